"""One self-contained HTML page a run: verdict, why, plots, checks, settings. No script, no font, no request."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from loadtests.histogram import Histogram
from loadtests.report.plots import Line, Plot, draw

_STYLE: Final = """
body{font:14px/1.45 system-ui,'DejaVu Sans',sans-serif;margin:24px auto;max-width:1290px;color:#222;padding:0 16px}
h1{font-size:20px;margin:0 0 4px}h2{font-size:15px;margin:26px 0 8px}
.verdict{display:inline-block;padding:4px 12px;border-radius:4px;color:#fff;font-weight:600;margin:8px 0}
.c0{background:#00714f}.c1{background:#b04a00}.c2{background:#555}.c3{background:#a0001c}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(560px,1fr));gap:14px}
.grid svg{width:100%;height:auto;border:1px solid #e4e4e4;border-radius:4px}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{padding:3px 12px 3px 0;text-align:right;border-bottom:1px solid #eee}td:first-child,th:first-child{text-align:left}
.facts td{text-align:left}.bad{color:#a0001c;font-weight:600}.say{color:#555;max-width:110ch}
"""


def render(summary: Mapping[str, Any], *, plots: Sequence[Plot] = ()) -> str:
    """The page of one summary; `plots` go first (capacity, scalability)."""
    title = f"{summary['scenario']}: {summary['verdict']}"
    body = [
        f"<h1>{escape(summary['scenario'])}</h1>",
        f'<div class="verdict c{summary["exit"]}">{escape(summary["verdict"])} · exit {summary["exit"]}</div>',
        *_why(summary), '<div class="grid">', *(draw(plot) for plot in (*plots, *run_plots(summary))), "</div>",
        "<h2>Routes</h2>", _routes(summary), "<h2>Checks</h2>", _checks(summary), "<h2>Run</h2>", _settings(summary),
    ]  # fmt: skip
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title><style>{_STYLE}</style><body>{''.join(body)}</body></html>"
    )


def write(summary: Mapping[str, Any], folder: Path, *, plots: Sequence[Plot] = ()) -> Path:
    """Write `report.html` into the folder."""
    path = folder / "report.html"
    path.write_text(render(summary, plots=plots), encoding="utf-8")
    return path


def _why(summary: Mapping[str, Any]) -> Iterable[str]:
    kind = {1: "objective", 2: "validity", 3: "invariant"}.get(summary["exit"])
    for check in summary["checks"]:
        if not check["holds"] and check["kind"] == kind:
            bound = "at least" if check["at_least"] else "at most"
            note = f" ({check['note']})" if check["note"] else ""
            text = f"{check['name']}: {check['measured']:g} {check['unit']}, {bound} {check['limit']:g}{note}"
            yield f'<div class="bad">{escape(text)}</div>'
    if summary.get("headline"):
        yield f"<p><b>{escape(summary['headline'])}</b></p>"
    yield f'<p class="say">{escape(summary["saturated"] or "Nothing was saturated.")}</p>'
    model = (
        "from the intended moment of each arrival"
        if summary["latency_from"] == "intended"
        else "from sending (closed model: a slow server slows its users down)"
    )
    yield f'<p class="say">Latencies are measured {model}.</p>'


def run_plots(summary: Mapping[str, Any]) -> list[Plot]:
    """Timelines and the CDF of one run."""
    timeline, samples = summary["timeline"], [s for s in summary["samples"] if -1 <= s["t"] <= summary["plan"]["seconds"] + 5]
    shaded = _shaded(summary)

    def second(*names: str) -> list[Line]:
        def value(row: Mapping[str, Any], name: str) -> float:
            return math.nan if name.endswith("_ms") and not row["done"] + row["failed"] else row[name]

        return [Line(name.removesuffix("_ms"), [(row["t"], value(row, name)) for row in timeline]) for name in names]

    def sampled(*pairs: tuple[str, str]) -> list[Line]:
        return [Line(label, [(s["t"], s[name]) for s in samples if name in s]) for name, label in pairs]

    plots = [
        Plot("Throughput", "seconds", "a second", second("offered", "done", "failed", "dropped"), shaded),
        Plot("Latency by the second", "seconds", "ms", second("p50_ms", "p95_ms", "p99_ms"), shaded, log_y=True),
        Plot("Latency, cumulative", "ms", "share of answers", _cdf(summary)),
    ]
    if samples:
        full = sampled(("pool_share", "connections in use"), ("slots_share", "admission slots"))
        waits = sampled(("pool_wait_ms", "pool wait p99 ≤"), ("loop_ms", "API later than others"), ("handler_ms", "time in handler"))
        roles = {"api": "API", "postgres": "PostgreSQL", "worker": "workers", "generator": "generator", "machine": "machine"}
        plots += [
            Plot("At work in the API", "seconds", "requests", sampled(("in_flight", "in flight")), shaded),
            Plot("Full: pool and slots", "seconds", "share", full, shaded),
            Plot("Waits", "seconds", "ms", waits, shaded),
            Plot("Behind the API", "seconds", "records", sampled(("outbox_rows", "outbox"), ("lag", "lag of all groups")), shaded),
            Plot("Shed", "seconds", "a second", sampled(("shed", "refused with 503")), shaded),
            Plot("CPU", "seconds", "cores", sampled(*((f"cpu_{role}", label) for role, label in roles.items())), shaded),
            Plot("Sessions in PostgreSQL", "seconds", "sessions", sampled(("pg_active", "active"), ("pg_locked", "waiting for a lock")), shaded),
        ]
    return plots


def _cdf(summary: Mapping[str, Any]) -> list[Line]:
    raw, intended = Histogram(), Histogram()
    for route in summary["recorder"]["routes"].values():
        raw.merge(Histogram.from_json(route["raw"]))
        intended.merge(Histogram.from_json(route["intended"]))
    lines = [("from intended", intended), ("from sending", raw)]
    return [Line(name, histogram.cumulative()) for name, histogram in lines if histogram.total]


def _shaded(summary: Mapping[str, Any]) -> list[tuple[float, float, str]]:
    event = summary["plan"].get("event_s")
    return [(event[0], event[1], summary["plan"]["cut"] or summary["plan"]["shape"])] if event and event[1] else []


def _routes(summary: Mapping[str, Any]) -> str:
    heads = ["route", "n", "failed", "p50 ms", "p95 ms", "p99 ms", "p99.9 ms", "max ms", "p99 from sending"]
    rows = [
        [name, r["requests"], r["failed"], *(f"{r['ms'][p]:g}" for p in ("p50", "p95", "p99", "p99.9", "max")), f"{r['raw_ms']['p99']:g}"]
        for name, r in summary["routes"].items()
    ]  # fmt: skip
    return _table(heads, rows)


def _checks(summary: Mapping[str, Any]) -> str:
    rows = []
    for check in summary["checks"]:
        mark = "ok" if check["holds"] else '<span class="bad">no</span>'
        sign = "≥" if check["at_least"] else "≤"
        rows.append(
            [
                f"{escape(check['kind'])}: {escape(check['name'])}",
                mark,
                f"{check['measured']:g}",
                f"{sign} {check['limit']:g} {escape(check['unit'])}",
                escape(check["note"]),
            ]
        )
    return _table(["check", "holds", "measured", "limit", "note"], rows, escaped=True)


def _settings(summary: Mapping[str, Any]) -> str:
    host, plan = summary["host"], summary["plan"]
    rows = [
        ["began", summary["began"]], ["commit", summary["commit"]], ["profile", summary["profile"] or "–"],
        ["host", f"{host['cpu']}, {host['cores']} cores, {host['memory_gib']} GiB, Linux {host['kernel']}, Python {host['python']}"],
        ["plan", ", ".join(f"{key} {value}" for key, value in plan.items())],
    ]  # fmt: skip
    if summary["truth"]:
        truth = summary["truth"]
        took = f"placed → paid p50 {truth['placed_to_paid_p50_s']} s, p99 {truth['placed_to_paid_p99_s']} s; drained in {truth['drain_s']} s"
        rows.append(["saga", f"{truth['placed']} placed, {truth['paid']} paid; {took}"])
    rows += [["full", text] for text in summary["saturated_all"]]
    return _table(["", ""], rows).replace("<table>", '<table class="facts">')


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]], *, escaped: bool = False) -> str:
    lines = ["<table><tr>", *(f"<th>{escape(head)}</th>" for head in heads), "</tr>"]
    for row in rows:
        cells = (str(cell) if escaped else escape(str(cell)) for cell in row)
        lines += ["<tr>", *(f"<td>{cell}</td>" for cell in cells), "</tr>"]
    return "".join([*lines, "</table>"])
