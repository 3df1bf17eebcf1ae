"""`plumbline load …`: every run ends in a verdict and an exit code.

0 ok · 1 objective missed · 2 invalid run, or it cannot run here · 3 invariant broken. A run starts a fresh stack of
its own beside `plumbline up` (HTTP_PORT + 300) unless --home or --host says otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from loadtests.plan import SCENARIOS
from service.dev.roster import BrokerKind

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, help=__doc__)

_Host = Annotated[str, typer.Option(help="A service elsewhere; with --tokens. Loopback only, unless --i-own.")]
_Home = Annotated[Path | None, typer.Option(help="State folder of a running stack, instead of a fresh one.")]
_Tokens = Annotated[Path | None, typer.Option(help="Tokens, one a line: `plumbline token --count N`.")]
_Own = Annotated[bool, typer.Option("--i-own", help="The other host is yours, and whoever runs it knows.")]
_Api = Annotated[int, typer.Option(help="API processes of the stack.")]
_Workers = Annotated[int, typer.Option(help="Worker processes a group of the stack.")]
_Kafka = Annotated[BrokerKind, typer.Option(help="auto: real where Java and Maven are.")]
_Out = Annotated[Path | None, typer.Option(help="Folder for the report; default: load-results/<scenario>-<time>.")]
_Rate = Annotated[float, typer.Option(help="Arrivals a second at the highest; 0: the scenario's own.")]
_Seconds = Annotated[float, typer.Option(help="Length; 0: the scenario's own.")]
_Slo = Annotated[Path | None, typer.Option("--objectives", help="Another slo.toml.")]

_ABOUT = {
    "smoke": "Half a minute at 20/s: does the whole path work, and within its objectives?",
    "steady": "One rate with random gaps.",
    "ramp": "From a tenth of the rate to the rate.",
    "spike": "Five times the calm rate for a fifth of the time; how soon is it well again?",
    "soak": "Long and calm: slopes of memory, connections, lag.",
    "hotkey": "Everybody buys the same few products (Zipf 1.2).",
    "stress": "Upwards until something gives: what gives first?",
    "outage": "A dependency is away for 5 s in the middle; is the backlog worked off?",
    "retry-storm": "PostgreSQL stops for 5 s while impatient clients send again and again: nothing twice.",
    "abuse": "One customer ignores every limit (default profile); others must not notice.",
}


def _scenario(name: str) -> Callable[..., None]:
    def command(
        rate: _Rate = 0, seconds: _Seconds = 0, host: _Host = "", home: _Home = None, tokens: _Tokens = None, i_own: _Own = False,
        api: _Api = 1, workers: _Workers = 1, kafka: _Kafka = "auto", out: _Out = None, objectives: _Slo = None,
        processes: Annotated[int, typer.Option(help="Generator processes.")] = 1,
        poisson: Annotated[bool, typer.Option("--poisson", help="Random gaps between arrivals.")] = False,
        cut: Annotated[str, typer.Option(help="outage, retry-storm: kafka, redis, psp or postgres.")] = "",
        mix: Annotated[str, typer.Option(help="shop, buy, hotkey, retry, list or abuse.")] = "",
    ) -> None:  # fmt: skip
        from loadtests.procedures import run_scenario
        from loadtests.target import Wanted

        plan = SCENARIOS[name]
        changed: dict[str, Any] = {"processes": processes, "poisson": poisson or plan.poisson}
        changed |= {key: value for key, value in {"rate": rate, "seconds": seconds, "mix": mix}.items() if value}
        if cut and plan.cut:
            changed["cut"] = cut
        wanted = Wanted(host, home, tokens, i_own, api, workers, kafka)
        _end(lambda: run_scenario(replace(plan, **changed), wanted, out=out, objectives=objectives))

    command.__doc__ = _ABOUT[name]
    return command


for _name in SCENARIOS:
    app.command(_name)(_scenario(_name))


@app.command()
def capacity(
    rate: Annotated[float, typer.Option(help="Where to begin, orders a second.")] = 10, seconds: Annotated[float, typer.Option(help="A step.")] = 8,
    home: _Home = None, api: _Api = 1, workers: _Workers = 1, kafka: _Kafka = "auto", out: _Out = None, objectives: _Slo = None,
    rehearse: Annotated[bool, typer.Option("--rehearse", help="Go on although the machine is busy; the result stays invalid.")] = False,
) -> None:  # fmt: skip
    """Orders a second at the objective: double, bisect, repeat; and what saturates first."""
    from loadtests.procedures import find_capacity
    from loadtests.target import Wanted

    wanted = Wanted(home=home, api=api, workers=workers, kafka=kafka)
    _end(lambda: find_capacity(wanted, start=rate, seconds=seconds, out=out, objectives=objectives, rehearse=rehearse))


@app.command()
def usl(
    seconds: Annotated[float, typer.Option(help="A step.")] = 5,
    home: _Home = None, api: _Api = 1, workers: _Workers = 1, kafka: _Kafka = "auto", out: _Out = None,
    mix: Annotated[str, typer.Option(help="buy, shop, hotkey or list.")] = "buy",
) -> None:  # fmt: skip
    """Closed sweep of 1 to 64 users, and the Universal Scalability Law fitted to it."""
    from loadtests.procedures import fit_scalability
    from loadtests.target import Wanted

    wanted = Wanted(home=home, api=api, workers=workers, kafka=kafka)
    _end(lambda: fit_scalability(wanted, seconds=seconds, mix=mix, out=out))


@app.command()
def sick(
    only: Annotated[list[str] | None, typer.Argument(help="Names; none: all ten.")] = None,
    kafka: _Kafka = "memory", out: _Out = None,
    pictures: Annotated[Path | None, typer.Option(help="Folder for the SVG of each.")] = None,
) -> None:  # fmt: skip
    """Ten ways to be sick under load, each by really breaking the stack: is it named?"""
    from loadtests.sick import SICK, show_all
    from loadtests.target import TargetError, Wanted

    def work() -> int:
        unknown = sorted(set(only or ()) - set(SICK))
        if unknown:
            raise TargetError(f"there is no {', '.join(unknown)}: {', '.join(SICK)}")
        folder = (out or Path("load-results") / "sick").absolute()
        return show_all(Wanted(kafka=kafka), folder, only=tuple(only or ()), pictures=pictures)

    _end(work)


@app.command()
def stall(
    seconds: Annotated[float, typer.Option(help="Each of the two runs.")] = 15,
    kafka: _Kafka = "memory", home: _Home = None, out: _Out = None,
) -> None:  # fmt: skip
    """The same server, stopped 1.5 s every 5 s, measured closed and open: why the model matters."""
    from loadtests.stall import show
    from loadtests.target import Wanted

    _end(lambda: show(Wanted(home=home, kafka=kafka), (out or Path("load-results") / "stall").absolute(), seconds=seconds))


@app.command()
def scale(
    rate: Annotated[float, typer.Option(help="Orders a second offered to each arrangement.")] = 40,
    seconds: Annotated[float, typer.Option(help="Each.")] = 10,
    kafka: _Kafka = "memory", out: _Out = None,
) -> None:  # fmt: skip
    """1, 2, 4 API processes by one socket and behind haproxy; 1, 2, 4 workers a group."""
    from loadtests.scale import show
    from loadtests.target import Wanted

    def work() -> int:
        folder = (out or Path("load-results") / "scale").absolute()
        folder.mkdir(parents=True, exist_ok=True)
        return show(Wanted(kafka=kafka), folder, rate=rate, seconds=seconds)

    _end(work)


@app.command()
def diff(before: Path, after: Path) -> None:
    """Compare two runs' summary.json: what changed by more than noise? 0 no worse · 1 worse · 2 not comparable."""
    from loadtests.procedures import compare_runs

    _end(lambda: compare_runs(before, after))


def _end(work: Callable[[], int]) -> None:
    """Run it; what cannot be done ends in exit 2 with a sentence."""
    from loadtests.run import RunError
    from loadtests.target import TargetError
    from service.dev.children import StackError

    try:
        code = work()
    except (RunError, TargetError, StackError) as error:
        typer.echo(f"plumbline: {error}", err=True)
        code = 2
    except KeyboardInterrupt:
        typer.echo("plumbline: interrupted, so there is no verdict", err=True)
        code = 2
    raise typer.Exit(code)


def main(arguments: list[str] | None = None) -> None:
    """With these words instead of the command line's."""
    app(arguments, prog_name="plumbline load")


if __name__ == "__main__":
    main(sys.argv[1:])
