"""`plumbline doctor`: what is wrong, and what to do about it, one finding a line as it is found.

Looks and never touches. Answers 0 if nothing is wrong (notes may be there), 1 if something is.
Test: `tests/stories/test_the_doctor_finds_what_is_wrong.py`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from service.dev.examination import CHECKS, Finding
from service.settings import Settings, SettingsError, load_settings

_COLOURS: Final = {"ok": "32", "note": "33", "wrong": "1;31"}


async def run_doctor(adopted: Path | None) -> int:
    """Examine what the environment points at; `adopted`: the folder of a stack whose settings were taken over."""
    try:
        settings = load_settings()
    except SettingsError as error:
        _print(Finding("wrong", "settings", str(error), "change it; `plumbline doctor --settings` lists them all. No process starts until then"))
        return _sum_up([Finding("wrong", "settings", "")])
    print(f"plumbline doctor · {settings.app.env} · {f'the stack of {adopted}' if adopted else 'settings from the environment'}\n", flush=True)
    findings = list(examine_settings(settings))
    for finding in findings:
        _print(finding)
    # At once, told in order: what does not answer costs its timeout, but only once.
    for running in [asyncio.create_task(check(settings)) for check in CHECKS]:
        for finding in await running:
            findings.append(finding)
            _print(finding)
    return _sum_up(findings)


def examine_settings(settings: Settings) -> list[Finding]:
    """What start-up accepts and a person should still know: values that defeat each other. Pure."""
    doubts = (*_doubts_about_modes(settings), *_doubts_about_times(settings))
    found = [Finding("note", "settings", what, cure) for holds, what, cure in doubts if holds]
    return found or [Finding("ok", "settings", "no two of them contradict each other")]


def _doubts_about_modes(settings: Settings) -> list[tuple[bool, str, str]]:
    """(is it so, what is doubtful, the cure)."""
    app, factor = settings.app, settings.kafka.replication_factor
    return [
        (bool(app.failpoints), f"APP_FAILPOINTS = {','.join(app.failpoints)}: processes crash or hang on purpose", "unset it"),
        (app.profile == "load", "APP_PROFILE = load: nobody is limited", "unset it when the load test is over"),
        (
            settings.production and factor < 2,
            f"APP_KAFKA_REPLICATION_FACTOR = {factor}: events die with a broker",
            "use 3, with min.insync.replicas 2",
        ),
    ]


def _doubts_about_times(settings: Settings) -> list[tuple[bool, str, str]]:
    db, http, charge_ms, handler_s = settings.db, settings.http, settings.payments.timeout_ms, settings.worker.handler_timeout_s
    statement = f"APP_DB_COMMAND_TIMEOUT_MS = {db.command_timeout_ms} is below APP_DB_STATEMENT_TIMEOUT_MS = {db.statement_timeout_ms}"
    charge = f"APP_PAYMENTS_TIMEOUT_MS = {charge_ms} is not below APP_WORKER_HANDLER_TIMEOUT_S = {handler_s:g}"
    away = f"APP_REDIS_TIMEOUT_MS = {settings.redis.timeout_ms} eats up APP_HTTP_READ_DEADLINE_MS = {http.read_deadline_ms} when Redis is away"
    return [
        (db.command_timeout_ms < db.statement_timeout_ms, f"{statement}: we give up while the server works on", "make them equal"),
        (
            db.queue_timeout_ms + db.command_timeout_ms > http.write_deadline_ms,
            f"APP_HTTP_WRITE_DEADLINE_MS = {http.write_deadline_ms} is shorter than waiting for a connection and one statement",
            "raise it, or lower APP_DB_QUEUE_TIMEOUT_MS or APP_DB_COMMAND_TIMEOUT_MS",
        ),
        (settings.redis.timeout_ms * 4 > http.read_deadline_ms, away, "keep it at a few tens of milliseconds"),
        (charge_ms >= handler_s * 1000, f"{charge}: a slow charge is cut off by its handler", "raise the handler's"),
        (
            http.keep_alive_s <= 60,
            f"APP_HTTP_KEEP_ALIVE_S = {http.keep_alive_s}: a load balancer that keeps idle connections for 60 s sends into closed ones",
            "keep it above the load balancer's idle timeout",
        ),
    ]


def _print(finding: Finding) -> None:
    level = f"{finding.level:<5}"
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        level = f"\033[{_COLOURS[finding.level]}m{level}\033[0m"
    print(f"  {level}  {finding.subject:<13} {finding.what}", flush=True)
    if finding.cure:
        print(f"         {'':<13} → {finding.cure}", flush=True)


def _sum_up(findings: Sequence[Finding]) -> int:
    wrong, notes = (sum(finding.level == level for finding in findings) for level in ("wrong", "note"))
    told = [f"{wrong} {'thing is' if wrong == 1 else 'things are'} wrong" if wrong else "nothing is wrong"]
    told += [f"{notes} note{'s' * (notes > 1)}"] if notes else []
    print(f"\n{', '.join(told)}", flush=True)
    return 1 if wrong else 0
