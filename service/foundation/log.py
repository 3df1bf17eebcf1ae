"""Structured logs: one JSON object a line on stdout, or readable lines in a terminal.

A log is an event name and fields: `log.info("order.placed", order_id=…)`. Writing never blocks the loop:
lines gather for 50 ms in a bounded queue for one thread; what does not fit is dropped and counted.
Never log bodies, tokens, DSNs or query values; tests plant canaries and look for them.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import MutableMapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import structlog
from structlog.typing import FilteringBoundLogger, Processor

from service.foundation import metrics
from service.foundation.tracing import current_ids
from service.settings import TelemetrySettings

_QUEUE_LINES: Final = 10_000
_FLUSH_S: Final = 0.05
_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


# Set once a request, in the request's own task; every line of the request carries it.
request_id: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger whose lines carry `component=name`."""
    logger: FilteringBoundLogger = structlog.get_logger(component=name)
    return logger


class _Writer:
    """Lines gather in memory; one thread writes them every few milliseconds, many at a time.

    Waking a thread for each line would cost the loop more than the line (the interpreter lock changes hands).
    """

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque()
        self._writing = threading.Lock()
        threading.Thread(target=self._run, name="log-writer", daemon=True).start()

    def msg(self, line: bytes | str) -> None:
        if len(self._lines) >= _QUEUE_LINES:
            metrics.log_dropped.inc()
            return
        self._lines.append(line if isinstance(line, bytes) else line.encode("utf-8", "backslashreplace"))

    log = debug = info = warn = warning = error = critical = failure = fatal = exception = msg

    def flush(self) -> None:
        """Write what is there now."""
        with self._writing:
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            if not lines:
                return
            try:
                sys.stdout.buffer.write(b"\n".join(lines) + b"\n")
                sys.stdout.buffer.flush()
            except (OSError, ValueError):
                metrics.log_dropped.inc(len(lines))

    def _run(self) -> None:
        while True:
            time.sleep(_FLUSH_S)
            self.flush()


_writer: _Writer | None = None
# Of `line`: whether anybody wants it, what each JSON line says of the process (None: lines are for a terminal), and how each event's begins.
_wanted = True
_process: dict[str, str] | None = None
_beginnings: Final[dict[str, bytes]] = {}


def configure(settings: TelemetrySettings, *, process: str, version: str) -> None:
    """Set up structlog and route stdlib logging into it. Call once, before anything logs."""
    global _writer, _process, _wanted  # noqa: PLW0603 - one writer a process, made once
    _writer = _Writer()
    console = settings.log_format == "console" or (settings.log_format == "auto" and sys.stdout.isatty())
    renderer: Processor = structlog.dev.ConsoleRenderer() if console else _render_json
    writer = _writer
    _wanted = settings.log_level in ("debug", "info")
    _process = None if console else {"service": process, "version": version}
    _beginnings.clear()
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        _add_moment,
        _add_identity(process, version),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.log_level]),
        logger_factory=lambda *args: writer,
        cache_logger_on_first_use=True,
    )
    _adopt_stdlib(settings.log_level)


def line(event: str, fields: dict[str, Any]) -> None:
    """As `info(event, **fields)`, at a tenth of the cost where lines are JSON: for what every request and every record writes."""
    if not _wanted:
        return
    if _process is None or _writer is None:
        structlog.get_logger().info(event, **fields)
        return
    fields["timestamp"] = datetime.now(UTC)
    if (ids := current_ids()) is not None:
        fields["trace_id"], fields["span_id"] = ids[:2]
    if event not in _beginnings:
        _beginnings[event] = orjson.dumps({"event": event, "level": "info"} | _process)[:-1]
    _writer.msg(b"%b,%b" % (_beginnings[event], orjson.dumps(fields)[1:]))


def drain() -> None:
    """Wait (bounded) until what was logged is written."""
    if _writer is not None:
        _writer.flush()


def _add_moment(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["timestamp"] = datetime.now(UTC).isoformat(timespec="microseconds")
    return event


def _add_identity(process: str, version: str) -> Processor:
    def add(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"], event["version"] = process, version
        current = request_id.get()
        if current is not None:
            event["request_id"] = current
        if (ids := current_ids()) is not None:
            event["trace_id"], event["span_id"] = ids[:2]
        return event

    return add


def _render_json(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> bytes:
    return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS)


class _StdlibBridge(logging.Handler):
    """Lines of libraries (uvicorn, aiokafka, alembic) become events too."""

    def emit(self, record: logging.LogRecord) -> None:
        emit = get_logger(record.name)
        emit.log(record.levelno, "library.message", message=record.getMessage(), exc_info=record.exc_info or None)


def _adopt_stdlib(level: str) -> None:
    root = logging.getLogger()
    root.handlers[:] = [_StdlibBridge()]
    root.setLevel(max(_LEVELS[level], logging.WARNING))
    # aiokafka logs ~100 ERROR lines a second while a broker is away; the consumer says it once itself.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
