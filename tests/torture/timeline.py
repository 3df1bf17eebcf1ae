"""A run on one page that needs nothing else: what was done to the victim, and what its customers and its backlog saw of it.

One time axis for all: faults by target, answered calls a second, latency, backlog. Colours follow the reader's light or dark page.
"""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from tests.faults.checker.evidence import Evidence

if TYPE_CHECKING:
    from tests.torture.nemesis import Done
    from tests.torture.run import Outcome

_WIDE, _LEFT, _RIGHT = 1180, 120, 20
_LANE, _PLOT, _GAP = 13, 130, 46
_BIN_S: Final = 0.5
_STYLE: Final = """
:root { --ink:#1b2733; --faint:#5b6b7a; --grid:#dfe5ea; --paper:#fff; --a:#1f6fb2; --b:#c2521c; --c:#6b4fa0; --band:#f3f6f8; }
@media (prefers-color-scheme: dark) { :root { --ink:#e6edf3; --faint:#9fb0bf; --grid:#2c3a46; --paper:#12191f;
  --a:#5aa9e6; --b:#ee8a55; --c:#b79ae8; --band:#1a242d; } }
body { margin:24px auto; max-width:1220px; padding:0 16px; background:var(--paper); color:var(--ink); font:14px/1.45 system-ui,sans-serif; }
h1 { font-size:20px; margin:0 0 4px; } p { margin:4px 0; color:var(--faint); } svg { width:100%; height:auto; }
svg text { fill:var(--ink); font:12px system-ui,sans-serif; } svg .faint { fill:var(--faint); font-size:11px; } svg .head { font-weight:600; }
pre { overflow:auto; background:var(--band); padding:12px; font-size:12px; } .bad { color:var(--b); font-weight:600; }
""".strip()


def page(outcome: Outcome, evidence: Evidence, faults: Sequence[Done], samples: Sequence[Mapping[str, float]]) -> str:
    """The whole document."""
    f = outcome.figures
    word = {0: "HELD", 1: "VIOLATED", 2: "INCONCLUSIVE"}[outcome.code]
    kind = ' class="bad"' if outcome.code else ""
    lines = html.escape("\n".join(outcome.lines))
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>torture, seed {f["seed"]}</title><style>{_STYLE}</style>
<h1>Seed {f["seed"]}, {f["seconds"]:g} s, {f["broker"]} broker: <span{kind}>{word}</span></h1>
<p>{html.escape(outcome.reason)} · {f["faults"]} faults of {f["kinds"]} kinds, {f["overlapping"]:.0%} overlapping
 · {f["operations"]:,} calls, {f["orders"]:,} orders
 · first success {f["first_ok_s"]:.1f} s and drained {f["drained_s"]:.1f} s after the last heal · load average {f["load_average"]:.1f}</p>
{_Drawing(evidence, faults, samples).svg()}
<pre>{lines}</pre></html>
"""


class _Drawing:
    """Rows under each other over one time axis."""

    def __init__(self, evidence: Evidence, faults: Sequence[Done], samples: Sequence[Mapping[str, float]]) -> None:
        self._evidence, self._faults, self._samples = evidence, faults, samples
        phases = evidence.phases
        self._begin = phases["begin"]
        self._end = max([phases.get("drained", 0.0), phases["healed"], *(s["at"] for s in samples[-1:])]) + 1
        self._y = 20.0
        self._rows: list[str] = []

    def svg(self) -> str:
        """All rows."""
        self._fault_lanes()
        self._throughput()
        self._latency()
        self._backlog()
        marks = [("chaos", "chaos begins"), ("healed", "healed"), ("drained", "quiet")]
        phases = self._evidence.phases
        lines = [self._mark(phases[name], word) for name, word in marks if name in phases]
        label = "faults, throughput, latency and backlog over time"
        return f'<svg viewBox="0 0 {_WIDE} {self._y + 10:.0f}" role="img" aria-label="{label}">{"".join(lines + self._rows)}</svg>'

    def _mark(self, at: float, word: str) -> str:
        x = self._x(at)
        line = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="14" y2="{self._y:.0f}" stroke="var(--faint)" stroke-dasharray="3 3"/>'
        return f'{line}<text class="faint" x="{x + 3:.1f}" y="11">{word}</text>'

    def _x(self, at: float) -> float:
        return _LEFT + (at - self._begin) / (self._end - self._begin) * (_WIDE - _LEFT - _RIGHT)

    def _fault_lanes(self) -> None:
        """One lane a target, more where its faults met; a hollow bar: nobody felt it. The title tells what was seen."""
        lanes: dict[str, list[list[Done]]] = defaultdict(list)
        for done in sorted(self._faults, key=lambda d: d.begin):
            mine = lanes[done.target]
            lane = next((lane for lane in mine if lane[-1].end <= done.begin), None)
            if lane is None:
                mine.append(lane := [])
            lane.append(done)
        for target, mine in lanes.items():
            height = _LANE * len(mine)
            self._rows.append(f'<rect x="{_LEFT}" y="{self._y:.0f}" width="{_WIDE - _LEFT - _RIGHT}" height="{height}" fill="var(--band)"/>')
            self._rows.append(f'<text x="{_LEFT - 8}" y="{self._y + height / 2 + 4:.0f}" text-anchor="end">{target}</text>')
            for number, lane in enumerate(mine):
                self._rows += [self._bar(done, self._y + number * _LANE) for done in lane]
            self._y += height + 5
        self._y += 14

    def _bar(self, done: Done, y: float) -> str:
        x, wide = self._x(done.begin), max(3.0, self._x(done.end) - self._x(done.begin))
        title = html.escape(f"{done.kind}, {done.end - done.begin:.1f} s: {done.seen or 'nobody felt it'}")
        look = 'fill="var(--b)"' if done.seen else 'fill="none" stroke="var(--b)"'
        return f'<rect x="{x:.1f}" y="{y + 2:.0f}" width="{wide:.1f}" height="{_LANE - 4}" rx="2" {look}><title>{title}</title></rect>'

    # -- plots

    def _throughput(self) -> None:
        series = {"ok": defaultdict(float), "refused": defaultdict(float), "unclear": defaultdict(float)}
        for op in self._evidence.operations:
            if op.kind != "walk":
                series[{"ok": "ok", "fail": "refused", "info": "unclear"}[op.outcome]][self._bin(op.completed)] += 1 / _BIN_S
        lines = {name: [(at, found[at]) for at in self._bins()] for name, found in series.items()}
        self._plot("calls a second", lines, {"ok": "var(--a)", "refused": "var(--c)", "unclear": "var(--b)"})

    def _latency(self) -> None:
        times: dict[float, list[float]] = defaultdict(list)
        for op in self._evidence.operations:
            if op.status and op.kind != "walk":
                times[self._bin(op.completed)].append((op.completed - op.invoked) * 1000)
        lines = {
            name: [(at, sorted(times[at])[int(share * (len(times[at]) - 1))]) for at in sorted(times)]
            for name, share in (("p50", 0.5), ("p95", 0.95))
        }
        self._plot("answered within, ms", lines, {"p50": "var(--a)", "p95": "var(--b)"})

    def _backlog(self) -> None:
        names = {"unfinished": "unfinished orders", "outbox": "events in the outbox"}
        lines = {word: [(s["at"], s[name]) for s in self._samples if name in s] for name, word in names.items()}
        self._plot("backlog", lines, {"unfinished orders": "var(--a)", "events in the outbox": "var(--b)"})

    def _bin(self, at: float) -> float:
        return self._begin + int((at - self._begin) / _BIN_S) * _BIN_S

    def _bins(self) -> Iterable[float]:
        return (self._begin + number * _BIN_S for number in range(int((self._end - self._begin) / _BIN_S)))

    def _plot(self, head: str, lines: Mapping[str, Sequence[tuple[float, float]]], colours: Mapping[str, str]) -> None:
        top, bottom = self._y + 20, self._y + 20 + _PLOT
        most = max((value for points in lines.values() for _, value in points), default=1.0) or 1.0
        scale: Callable[[float], float] = lambda value: bottom - value / most * _PLOT  # noqa: E731
        self._rows.append(f'<text class="head" x="{_LEFT}" y="{self._y + 10:.0f}">{head}</text>')
        for number, name in enumerate(lines):
            x = _LEFT + 150 + number * 160
            self._rows.append(
                f'<line x1="{x}" x2="{x + 18}" y1="{self._y + 6:.0f}" y2="{self._y + 6:.0f}" stroke="{colours[name]}" stroke-width="2"/>'
            )
            self._rows.append(f'<text class="faint" x="{x + 23}" y="{self._y + 10:.0f}">{name}</text>')
        for part in (0, 0.5, 1):
            y = scale(part * most)
            self._rows.append(f'<line x1="{_LEFT}" x2="{_WIDE - _RIGHT}" y1="{y:.0f}" y2="{y:.0f}" stroke="var(--grid)"/>')
            self._rows.append(f'<text class="faint" x="{_LEFT - 8}" y="{y + 4:.0f}" text-anchor="end">{part * most:,.0f}</text>')
        for name, points in lines.items():
            path = " ".join(f"{self._x(at):.1f},{scale(value):.1f}" for at, value in points)
            self._rows.append(f'<polyline points="{path}" fill="none" stroke="{colours[name]}" stroke-width="1.6"/>')
        seconds = int(self._end - self._begin)
        for second in range(0, seconds + 1, 10 if seconds <= 150 else 60):
            x = self._x(self._begin + second)
            self._rows.append(f'<text class="faint" x="{x:.0f}" y="{bottom + 14:.0f}" text-anchor="middle">{second} s</text>')
        self._y = top + _PLOT + _GAP - 20
