"""`plumbline`: every process and every tool, as one table of contents.

Exit codes: 0 ok · 1 a check failed · 2 usage or environment. Heavy imports happen inside the commands,
so that `--help` answers at once.
"""

from __future__ import annotations

import gc
import os
import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from service.settings import Settings


_HELP = __doc__.split("\n\n")[0]


class _Contents(TyperGroup):
    """Lists the commands under the headings they were registered with."""

    def format_commands(self, _context: Any, formatter: Any) -> None:
        for title, chapter in groupby(self.commands.items(), lambda item: getattr(item[1], "rich_help_panel", "")):
            with formatter.section(title):
                formatter.write_dl([(name, command.get_short_help_str(formatter.width)) for name, command in chapter])


app = typer.Typer(cls=_Contents, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, help=_HELP)
topics_app = typer.Typer(no_args_is_help=True, help="Kafka topics.")
dlq_app = typer.Typer(no_args_is_help=True, help="Dead letters: list, show, replay, discard.")
events_app = typer.Typer(no_args_is_help=True, help="The event contract.")

_STACK, _SERVERS, _TOOLS = "The embedded stack", "Servers", "Tools"
# Where libraries find these they load them, 200 modules: rich and pygments to colour (structlog, httpx), metrics redis-py would
# report, models of pydantic 1 that FastAPI would know. No process of ours uses them. httpx looks for sniffio at every request,
# and for one that is not installed on the disk.
_NOT_LOADED = ("rich", "pygments", "opentelemetry.sdk.metrics", "pydantic.v1", "sniffio")
_HttpPort = Annotated[int, typer.Option(envvar="HTTP_PORT", min=1, max=64_000, help="The API; the other ports are counted from it.")]
_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}  # to a command line of their own


def _settings(process: str) -> Settings:
    """Settings, logging and tracing for this process; exit 2 with a sentence if they contradict each other."""
    # What is imported stays: collecting in between is a fifth of the time it takes. `_run` turns the collector on again.
    gc.disable()
    for name in _NOT_LOADED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # the documented way to have no module of a name
    from service import __version__
    from service.foundation import log, pulse, tracing
    from service.settings import SettingsError, load_settings

    try:
        settings = load_settings()
    except SettingsError as error:
        _fail(str(error))
    log.configure(settings.telemetry, process=process, version=__version__)
    provider = tracing.configure(settings.telemetry, process=process, version=__version__)
    if settings.telemetry.otlp_url:
        from service.foundation import export

        export.send(provider, to=settings.telemetry.otlp_url)
    pulse.describe(process, __version__)
    return settings


def _home() -> Path:
    return Path(os.environ.get("PLUMBLINE_HOME", ".plumbline"))


def _fail(message: str, *, code: int = 2) -> Any:
    typer.echo(f"plumbline: {message}", err=True)
    raise typer.Exit(code)


_ADDRESS_ADVICE = ": is the port free, and the address ours?"
# What is in hand at once is thousands of objects, none of them garbage: looked through every 700, they cost a tenth of a worker's time.
_YOUNG_OBJECTS = 10_000
_SERVER_ADVICE = "; `plumbline up` starts a stack, and `. .plumbline/env` tells this shell where it is"


def _run(main: Coroutine[Any, Any, Any], *, stays: bool = False) -> Any:
    """`stays`: a process whose log is one JSON object a line, also the line that says why it ended."""
    import uvloop

    from service.errors import ServiceError
    from service.foundation import log

    gc.freeze()  # or the first collection would go through all that was imported: a tenth of the start
    gc.enable()
    gc.set_threshold(_YOUNG_OBJECTS)
    try:
        return uvloop.run(main)
    except Exception as error:
        if not stays:
            raise
        known = isinstance(error, ServiceError | OSError)
        advice = _ADDRESS_ADVICE if isinstance(error, OSError) else ""
        log.get_logger(__name__).critical("process.ended", error=f"{type(error).__name__}: {error}{advice}", exc_info=not known)
        raise typer.Exit(2 if known else 1) from None
    finally:
        log.drain()


def _run_once(main: Coroutine[Any, Any, Any]) -> Any:
    """A command that does its work and ends: what is wrong is a sentence."""
    from service.errors import DependencyUnavailable, ServiceError

    try:
        return _run(main)
    except ServiceError as error:
        _fail(f"{error}{_SERVER_ADVICE if isinstance(error, DependencyUnavailable) else ''}")
    except BrokenPipeError:
        raise typer.Exit(0) from None  # the reader (`| head`) has seen enough
    except OSError as error:
        _fail(f"{error}{_ADDRESS_ADVICE}")


@app.command(rich_help_panel=_STACK)
def up(
    api: Annotated[int, typer.Option(min=1, help="API processes on one socket.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes a group.")] = 1,
    only: Annotated[Literal["deps"] | None, typer.Option(help="Servers only, for an IDE.")] = None,
    reload: Annotated[bool, typer.Option("--reload", help="Restart on code changes.")] = False,
    profile: Annotated[Literal["default", "load"], typer.Option(help="load lifts the rate limits.")] = "default",
    kafka: Annotated[Literal["auto", "real", "memory"], typer.Option(help="auto: real where Java and Maven are.")] = "auto",
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin with empty data.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Return when ready.")] = False,
    http_port: _HttpPort = 8000,
    ops_port: Annotated[int, typer.Option(envvar="OPS_PORT", min=0, max=65_000, help="Health pages, counted up; 0: HTTP_PORT + 1000.")] = 0,
) -> None:
    """Start everything here: servers, API, relay, reaper, workers."""
    from service.dev.roster import UpOptions
    from service.dev.stack import run_up

    options = UpOptions(
        home=_home(), http_port=http_port, ops_port=ops_port, api=api, workers=workers, only_deps=only is not None, reload=reload,
        profile=profile, kafka=kafka, fresh=fresh, detach=detach,
    )  # fmt: skip
    raise typer.Exit(run_up(options))


@app.command(rich_help_panel=_STACK)
def down() -> None:
    """Stop the stack of this folder."""
    from service.dev.stack import run_down

    raise typer.Exit(run_down(_home()))


@app.command(rich_help_panel=_STACK)
def reset() -> None:
    """Stop the stack and delete its data."""
    from service.dev.stack import run_reset

    raise typer.Exit(run_reset(_home()))


@app.command(rich_help_panel=_STACK)
def demo(scene: Annotated[list[int] | None, typer.Option(help="One by number; may be repeated.")] = None, http_port: _HttpPort = 8000) -> None:
    """Watch each promise being kept, scene by scene."""
    from service.dev.demo import run_demo

    raise typer.Exit(run_demo(_home(), http_port, scene or ()))


@app.command(rich_help_panel=_STACK)
def watch(once: Annotated[bool, typer.Option("--once", help="One picture, then end.")] = False) -> None:
    """See the running stack live: rates, outbox, groups, breakers."""
    from service.dev.children import StackError
    from service.dev.watch import watch as run

    try:
        raise typer.Exit(run(_home().absolute(), once=once))
    except StackError as error:
        _fail(str(error))


@app.command(rich_help_panel=_SERVERS)
def serve(fd: Annotated[int, typer.Option(help="An inherited listening socket.")] = -1) -> None:
    """Run the API."""
    settings = _settings("orders-api")
    from service.processes import run_api

    raise typer.Exit(0 if _run(run_api(settings, fd=None if fd < 0 else fd), stays=True) else 1)


@app.command(rich_help_panel=_SERVERS)
def worker(
    group: Annotated[list[str] | None, typer.Option(help="A consumer group; may be repeated.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All groups in one process.")] = False,
) -> None:
    """Run consumer groups, by name or all of them."""
    settings = _settings("orders-worker")
    from workers.main import GROUPS, run_workers

    names = list(GROUPS) if every else list(group or [])
    unknown = sorted(set(names) - set(GROUPS))
    if not names or unknown:
        _fail(f"name --all or --group with one of {', '.join(GROUPS)}" + (f", not {', '.join(unknown)}" if unknown else ""))
    _run(run_workers(settings, names), stays=True)


@app.command(rich_help_panel=_SERVERS)
def relay(refill: Annotated[bool, typer.Option("--refill", help="First do what `republish --unfinished` does.")] = False) -> None:
    """Publish the outbox to Kafka."""
    settings = _settings("orders-relay")
    from workers.main import APPLIED, run_relay

    if refill:
        from service.admin.by_hand import republish_events

        _run_once(republish_events(settings, since="", handled=APPLIED, rate=2_000.0))
    _run(run_relay(settings), stays=True)


@app.command(rich_help_panel=_SERVERS)
def reaper() -> None:
    """Expire unfinished orders, old keys and old rows."""
    settings = _settings("orders-reaper")
    from workers.main import run_reaper

    _run(run_reaper(settings), stays=True)


@app.command("fake-psp", rich_help_panel=_SERVERS)
def fake_psp(port: Annotated[int, typer.Option(help="0: HTTP_PORT + 104.")] = 0) -> None:
    """Run the fake payment provider."""
    settings = _settings("fake-psp")
    from service.dev.plain import run_plain
    from service.dev.psp import create_provider

    _run_once(run_plain(settings, create_provider(settings.app.home), port=port or settings.http.port + 104))


@app.command(rich_help_panel=_SERVERS)
def issuer(port: Annotated[int, typer.Option(help="0: HTTP_PORT + 103.")] = 0) -> None:
    """Run the development token issuer."""
    settings = _settings("dev-issuer")
    from service.dev.issuer import create_issuer
    from service.dev.plain import run_plain

    _run_once(run_plain(settings, create_issuer(settings), port=port or settings.http.port + 103))


@app.command(rich_help_panel=_TOOLS)
def migrate(
    to: Annotated[str, typer.Option(help="A revision, also an older one; head: with what only older code needs removed.")] = "",
    catalogue: Annotated[bool, typer.Option("--seed", help="Then do what `seed` does, in the same process.")] = False,
) -> None:
    """Bring the schema to what this code needs, beside the service."""
    settings = _settings("migrate")
    from service.migrations import downgrade, upgrade
    from service.revision import read_revision, target

    wanted = to or _run_once(target(settings))
    if wanted is None:
        typer.echo(f"the database is at {_run_once(read_revision(settings))}: this code needs no more")
    else:
        back = wanted != "head" and wanted < (_run_once(read_revision(settings)) or "")
        (downgrade if back else upgrade)(wanted)
        typer.echo(f"schema is at {_run_once(read_revision(settings))}")
    if catalogue:
        from service.dev.seed import seed_shop

        typer.echo(f"{_run_once(seed_shop(settings))} products")


@app.command("db-wait", rich_help_panel=_TOOLS)
def db_wait(timeout: Annotated[float, typer.Option(help="Seconds.")] = 120.0) -> None:
    """Wait until the database has the schema this code needs."""
    settings = _settings("db-wait")
    from service.revision import wait_for_schema

    if not _run_once(wait_for_schema(settings, timeout_s=timeout)):
        _fail(f"the schema was not there within {timeout:g} s: is `plumbline migrate` running?", code=1)


@app.command(rich_help_panel=_TOOLS)
def seed(orders: Annotated[int, typer.Option(min=0, help="Bring the shop to so many orders, a year of them.")] = 0) -> None:
    """Insert the catalogue (1,000 products), and orders if asked."""
    settings = _settings("seed")
    from service.dev.seed import seed_shop

    typer.echo(f"{_run_once(seed_shop(settings))} products")
    if orders:
        from service.dev.seed_orders import seed_orders

        typer.echo(f"{_run_once(seed_orders(settings.db.url.get_secret_value(), orders)):,} orders, analysed")


@app.command(rich_help_panel=_TOOLS)
def token(
    sub: Annotated[str, typer.Option(help="Subject: the customer id.")] = "customer-1",
    role: Annotated[Literal["customer", "operator", "auditor", "admin"], typer.Option()] = "customer",
    scope: Annotated[str, typer.Option(help="Space-separated; empty: all of the role's.")] = "",
    ttl: Annotated[int, typer.Option(min=1, max=3600, help="Seconds.")] = 3600,
    count: Annotated[int, typer.Option(min=1, help="More than one: subjects get a number.")] = 1,
) -> None:
    """Print access tokens of the development issuer."""
    from service.dev.issuer import mint

    for number in range(count):
        typer.echo(mint(_home(), sub=sub if count == 1 else f"{sub}-{number + 1}", role=role, scope=scope or None, ttl_s=ttl))


@app.command(rich_help_panel=_TOOLS)
def doctor(settings: Annotated[bool, typer.Option("--settings", help="List every setting instead.")] = False) -> None:
    """Say what is wrong, and what to do about it."""
    from service.dev.here import adopt_stack

    adopted = adopt_stack()
    if settings:
        from service.dev.settings_table import print_settings

        raise typer.Exit(print_settings())
    from service.dev.doctor import run_doctor

    raise typer.Exit(_run_once(run_doctor(adopted)))


@topics_app.command("apply")
def topics_apply() -> None:
    """Create the topics that are missing."""
    settings = _settings("topics")
    from workers.tiers import create_topics

    created = _run_once(create_topics(settings))
    typer.echo(f"created {len(created)} topics" if created else "all topics are there")


@dlq_app.callback()
def dlq() -> None:
    from service.dev.here import adopt_stack

    adopt_stack()


@dlq_app.command("list")
def dlq_list(
    consumer: Annotated[str, typer.Option(help="Only of this consumer.")] = "",
    status: Annotated[Literal["open", "replayed", "discarded", "all"], typer.Option()] = "open",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The newest so many.")] = 50,
) -> None:
    """Show what groups gave up on, newest first."""
    settings = _settings("dlq")
    from service.dev.letters import print_letters

    raise typer.Exit(_run_once(print_letters(settings, consumer=consumer, status=status, limit=limit)))


@dlq_app.command("show")
def dlq_show(letter: Annotated[str, typer.Argument(help="Its id, or the beginning of it.")]) -> None:
    """Show one dead letter: why, where from, its headers and payload."""
    settings = _settings("dlq")
    from service.dev.letters import print_letter

    raise typer.Exit(_run_once(print_letter(settings, letter)))


@dlq_app.command("replay")
def dlq_replay(
    ids: Annotated[list[str] | None, typer.Argument(help="Dead letters; none: all that match the filters.")] = None,
    consumer: Annotated[str, typer.Option(help="Only of this consumer.")] = "",
    status: Annotated[str, typer.Option(help="Only in this state.")] = "open",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen.")] = False,
    rate: Annotated[float, typer.Option(min=0.1, help="At most so many a second.")] = 50.0,
) -> None:
    """Send dead letters to their groups once more; repeating it changes nothing."""
    settings = _settings("dlq")
    from service.admin.by_hand import decide_letters

    raise typer.Exit(_run_once(decide_letters(settings, "replay", ids or [], consumer=consumer, status=status, dry_run=dry_run, rate=rate)))


@dlq_app.command("discard")
def dlq_discard(
    ids: Annotated[list[str], typer.Argument(help="Dead letters.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen.")] = False,
) -> None:
    """Give dead letters up for good."""
    settings = _settings("dlq")
    from service.admin.by_hand import decide_letters

    raise typer.Exit(_run_once(decide_letters(settings, "discard", ids, consumer="", status="open", dry_run=dry_run, rate=50.0)))


@app.command(rich_help_panel=_TOOLS)
def republish(
    since: Annotated[str, typer.Option(help="Sent at or after: 2030-01-31T12:00Z, or 30m, 6h, 2d ago.")] = "",
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Of unfinished orders, and what a group has not applied.")] = False,
    rate: Annotated[float, typer.Option(min=1, help="At most so many events a second.")] = 2_000.0,
) -> None:
    """Put events Kafka lost back into the outbox."""
    if bool(since) == unfinished:
        _fail("say either --since TIME or --unfinished")
    settings = _settings("republish")
    from service.admin.by_hand import republish_events
    from workers.main import APPLIED

    raise typer.Exit(_run_once(republish_events(settings, since=since, handled=APPLIED, rate=rate)))


@app.command(add_help_option=False, context_settings=_PASSED_ON, rich_help_panel=_TOOLS)
def load(context: typer.Context) -> None:
    """Load tests that end in a verdict; `load --help` lists them."""
    from service.dev.beside import load_tests

    load_tests()(context.args)


@app.command(add_help_option=False, context_settings=_PASSED_ON, rich_help_panel=_TOOLS)
def capacity(context: typer.Context) -> None:
    """From business numbers to processes, connections, partitions."""
    from service.dev.capacity import main

    main(context.args)


@app.command(rich_help_panel=_TOOLS)
def openapi() -> None:
    """Print the OpenAPI document."""
    import orjson

    from service.app import create_app
    from service.settings import load_settings
    from service.web.docs import describe

    typer.echo(orjson.dumps(describe(create_app(load_settings())), option=orjson.OPT_INDENT_2).decode())


@events_app.command("schema")
def events_schema(folder: Annotated[Path, typer.Argument(help="Where to write.")] = Path("docs/events")) -> None:
    """Write one JSON Schema an event type."""
    import orjson

    from service.events import TYPES

    folder.mkdir(parents=True, exist_ok=True)
    for name, model in TYPES.items():
        schema = orjson.dumps(model.model_json_schema(), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
        (folder / f"{name}.v1.json").write_bytes(schema + b"\n")
    typer.echo(f"wrote {len(TYPES)} schemas to {folder}")


app.add_typer(topics_app, name="topics", rich_help_panel=_TOOLS)
app.add_typer(dlq_app, name="dlq", rich_help_panel=_TOOLS)
app.add_typer(events_app, name="events", rich_help_panel=_TOOLS)

if __name__ == "__main__":
    app(prog_name="plumbline")
