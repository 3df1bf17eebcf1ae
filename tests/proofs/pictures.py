"""The pictures of the proofs as SVG text: the overload curve, the stampede bars, and the race that a delete loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

INK, FAINT, GRID, PAPER = "#1b2733", "#5b6b7a", "#e3e8ec", "#ffffff"
OURS, OTHER, STORE = "#1f6fb2", "#c2521c", "#fdf1dc"
_STYLE = f"""
  text {{ font-family: system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: {INK}; font-size: 13px; }}
  .title {{ font-size: 16px; font-weight: 600; }} .faint {{ fill: {FAINT}; }} .strong {{ font-weight: 600; }}
""".strip("\n")


def _page(width: int, height: int, label: str, rows: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"'
    body = [f'{head} aria-label="{escape(label)}">', f"<style>\n{_STYLE}\n</style>", f'<rect width="{width}" height="{height}" fill="{PAPER}"/>']
    return "\n".join([*body, *rows, "</svg>"]) + "\n"


def _text(x: float, y: float, words: str, *, kind: str = "", anchor: str = "start", fill: str = "") -> str:
    style = f' style="fill:{fill}"' if fill else ""
    return f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}"{style}>{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, width: float = 1.0, dash: str = "", tip: bool = False) -> str:
    extra = (f' stroke-dasharray="{dash}"' if dash else "") + (' marker-end="url(#tip)"' if tip else "")
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{colour}" stroke-width="{width:g}"{extra}/>'


# -- overload

_LEFT, _TOP, _WIDE, _HIGH = 70, 70, 620, 330
_X_MAX, _Y_MAX = 3.2, 1.2


def overload_curve(points: Sequence[Mapping[str, Any]]) -> str:
    """Goodput against what is offered, both as multiples of the capacity, with and without the limit."""
    rows = [_text(_LEFT, 30, "Three times more is asked than the database can do", kind="title")]
    rows.append(_text(_LEFT, 50, "good answers (2xx within 1 s) against requests offered, as multiples of the capacity", kind="faint"))
    rows += _axes()
    for arm, colour, name in (("with", OURS, "with the limit on requests in flight"), ("without", OTHER, "without it")):
        line = [(p["offered"], p["goodput"]) for p in points if p["arm"] == arm]
        places = [(_x(x), _y(y)) for x, y in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        rows.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        rows += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in places]
        rows.append(_text(_LEFT + _WIDE, min(y for _, y in places[-3:]) - 14, name, kind="strong", anchor="end", fill=colour))
    return _page(_LEFT + _WIDE + 40, _TOP + _HIGH + 60, "goodput against offered load, with and without admission", rows)


def _axes() -> list[str]:
    rows = []
    for tenth in range(0, 13, 2):
        rows += [
            _line(_LEFT, _y(tenth / 10), _LEFT + _WIDE, _y(tenth / 10), GRID),
            _text(_LEFT - 10, _y(tenth / 10) + 4, f"{tenth / 10:g}", anchor="end"),
        ]
    for half in range(7):
        rows.append(_text(_x(half / 2), _TOP + _HIGH + 22, f"{half / 2:g}", anchor="middle"))
    rows += [_line(_LEFT, _y(0), _LEFT + _WIDE, _y(0), FAINT), _line(_x(0), _y(0), _x(1.2), _y(1.2), FAINT, dash="4 4")]
    rows.append(_text(_x(0.62), _y(0.78), "all answered", kind="faint", anchor="end"))
    rows.append(_text(_LEFT + _WIDE / 2, _TOP + _HIGH + 46, "offered ÷ capacity", kind="faint", anchor="middle"))
    return rows


def _x(value: float) -> float:
    return _LEFT + _WIDE * min(value, _X_MAX) / _X_MAX


def _y(value: float) -> float:
    return _TOP + _HIGH * (1 - min(value, _Y_MAX) / _Y_MAX)


# -- the race

_LANES = (("slow reader", 150), ("Redis", 370), ("PostgreSQL", 560), ("writer", 790))
# (from, to, words, colour), top to bottom; a lane index each.
_RACE: tuple[tuple[int, int, str, str], ...] = (
    (0, 1, "peek: nothing; takes the lease", INK),
    (0, 2, "load: version 1", INK),
    (3, 2, "UPDATE … version 2, COMMIT", INK),
    (3, 1, "invalidate(2): floor = 2, lease dropped", OURS),
    (0, 1, "fill(version 1)", OTHER),
)


def race() -> str:
    """The interleaving that leaves a deleted entry stale for ever, and what refuses it here."""
    head = '<marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
    rows = [f'<defs>{head}<path d="M0 0L10 5L0 10z" fill="{INK}"/></marker></defs>']
    rows += [_text(40, 30, "A slow reader fills after the writer has invalidated", kind="title")]
    bottom = 110 + 52 * len(_RACE)
    for name, x in _LANES:
        fill = STORE if name in {"Redis", "PostgreSQL"} else "#e6f0fa"
        rows += [f'<rect x="{x - 62}" y="52" width="124" height="30" rx="7" fill="{fill}" stroke="{FAINT}"/>']
        rows += [_text(x, 72, name, kind="strong", anchor="middle"), _line(x, 82, x, bottom, GRID, width=2)]
    for number, (source, target, words, colour) in enumerate(_RACE):
        y, start, end = 122 + 52 * number, _LANES[source][1], _LANES[target][1]
        rows += [
            _line(start, y, end, y, colour, width=1.6, tip=True),
            _text((start + end) / 2, y - 8, f"{number + 1}  {words}", anchor="middle", fill=colour),
        ]
    rows += [
        _text(40, bottom + 26, "deleting:", kind="strong", fill=OTHER),
        _text(120, bottom + 26, "step 4 deletes nothing, step 5 stores version 1, and nobody will ever delete it again."),
    ]
    rows += [
        _text(40, bottom + 48, "here:", kind="strong", fill=OURS),
        _text(120, bottom + 48, "step 5 is refused twice: the lease is gone, and version 1 is below the floor. The next reader loads version 2."),
    ]
    return _page(900, bottom + 70, "the race between a slow fill and an invalidation", rows)


# -- the stampede


def stampede_bars(measured: Sequence[Mapping[str, Any]]) -> str:
    """Loads of one expiry under 800 callers, on a square-root scale so that 1 and 800 can both be seen."""
    longest = max(row["loads"] for row in measured) ** 0.5
    rows = [_text(40, 30, "One expiry of a hot key, 4 processes × 200 callers: loads from the database", kind="title")]
    for number, row in enumerate(measured):
        y, width = 62 + 34 * number, 430 * row["loads"] ** 0.5 / longest
        colour = OURS if row["arm"].startswith("ours") else OTHER
        rows += [_text(300, y + 15, row["arm"], anchor="end"), f'<rect x="312" y="{y}" width="{width:.1f}" height="22" rx="3" fill="{colour}"/>']
        rows.append(_text(320 + width, y + 16, str(row["loads"]), kind="strong"))
    rows.append(_text(312, 80 + 34 * len(measured), "square-root scale", kind="faint"))
    return _page(820, 100 + 34 * len(measured), "loads of one expiry by method", rows)
