"""Structured logs: one JSON object a line on stdout, or readable lines in a terminal.

A log is an event name and fields: `log.info("order.placed", order_id=…)`. Writing never blocks the loop:
a bounded queue feeds one thread, and what does not fit is dropped and counted.
Never log bodies, tokens, DSNs or query values; tests plant canaries and look for them.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
from collections.abc import MutableMapping
from typing import Any, Final

import orjson
import structlog
from opentelemetry import trace
from structlog.typing import FilteringBoundLogger, Processor

from service.foundation import metrics
from service.settings import TelemetrySettings

_QUEUE_LINES: Final = 10_000
_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger whose lines carry `component=name`."""
    logger: FilteringBoundLogger = structlog.get_logger(component=name)
    return logger


class _Writer:
    """Writes lines from a bounded queue in one thread; `drain` empties it at shutdown."""

    def __init__(self) -> None:
        self._queue: queue.Queue[bytes | threading.Event] = queue.Queue(_QUEUE_LINES)
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def msg(self, line: bytes | str) -> None:
        try:
            self._queue.put_nowait(line if isinstance(line, bytes) else line.encode("utf-8", "backslashreplace"))
        except queue.Full:
            metrics.log_dropped.inc()

    log = debug = info = warn = warning = error = critical = failure = fatal = exception = msg

    def drain(self, timeout_s: float = 2.0) -> None:
        done = threading.Event()
        try:
            self._queue.put(done, timeout=timeout_s)
        except queue.Full:
            return
        done.wait(timeout_s)

    def _run(self) -> None:
        out = sys.stdout.buffer
        while True:
            item = self._queue.get()
            if isinstance(item, threading.Event):
                item.set()
                continue
            try:
                out.write(item + b"\n")
                if self._queue.empty():
                    out.flush()
            except (OSError, ValueError):
                metrics.log_dropped.inc()


_writer: _Writer | None = None


def configure(settings: TelemetrySettings, *, process: str, version: str) -> None:
    """Set up structlog and route stdlib logging into it. Call once, before anything logs."""
    global _writer  # noqa: PLW0603 - one writer a process, made once
    _writer = _Writer()
    console = settings.log_format == "console" or (settings.log_format == "auto" and sys.stdout.isatty())
    renderer: Processor = structlog.dev.ConsoleRenderer() if console else _render_json
    writer = _writer
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
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


def drain() -> None:
    """Wait (bounded) until what was logged is written."""
    if _writer is not None:
        _writer.drain()


def _add_identity(process: str, version: str) -> Processor:
    def add(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"], event["version"] = process, version
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            event["trace_id"], event["span_id"] = f"{context.trace_id:032x}", f"{context.span_id:016x}"
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
