"""The benchmark's instruments: CPU is counted, medians and verdicts are right, wrong answers are not measured."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cpu import cpu_ns, snapshot, spent_ns
from bench.errors import BenchError
from bench.goals import GOALS
from bench.loadgen import KEY_FIELD, compile_generator, request, run_load, write_frames
from bench.report import judge
from bench.rounds import Sample, Series, ratio
from bench.statements import table
from tests.support.servers import free_base_port

_MET = {goal.name: goal.must for goal in GOALS}
_CALM = {"w0": 0.05, "p1": 0.1}


def _series(*server_us: float) -> Series:
    return Series([Sample(us, 0, 0, 0, 1, 1, 1) for us in server_us])


def test_a_ratio_is_the_median_of_the_rounds_and_ignores_what_disturbs_a_round() -> None:
    floor = _series(100, 100, 300, 100, 100)
    assert ratio(_series(200, 200, 600, 200, 200), floor) == 2.0
    assert ratio(floor, floor) == 1.0


def test_spread_is_that_of_the_quartiles() -> None:
    assert _series(100, 100, 100, 100, 900).spread() == 0.0
    assert _series(100, 100, 150, 160, 170).spread() == pytest.approx(0.6)
    assert _series(100, 200).spread() == 0.0


def test_verdicts() -> None:
    assert judge(_MET | {"self": 1.05}, _CALM) == "ok"
    assert judge(_MET | {"self": 1.0, "create_all_on": 2.3}, _CALM) == "missed"
    assert judge(_MET | {"self": 1.0, "relay_vs_raw": 0.2}, _CALM) == "missed"
    assert judge(_MET | {"self": 1.09}, _CALM) == "inconclusive"
    assert judge(_MET | {"self": 1.0, "create_all_on": 9.0}, {"w0": 0.41}) == "inconclusive"


def test_cpu_time_is_that_of_the_process() -> None:
    burning = subprocess.Popen([sys.executable, "-c", "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\ninput()"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    try:
        assert burning.stdout is not None
        burning.stdout.readline()
        before = snapshot([burning.pid])
        assert 0.5e9 <= cpu_ns([burning.pid]) < 0.8e9
        assert spent_ns(before, [burning.pid]) < 0.05e9
    finally:
        burning.communicate(b"\n")
    with pytest.raises(BenchError, match="ended while it was measured"):
        cpu_ns([burning.pid])
    assert spent_ns(before, [burning.pid]) == 0


async def _answering(status: str, seen: list[bytes], *, after_s: float = 0) -> tuple[asyncio.Server, int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                seen.append(head)
                if after_s:
                    await asyncio.sleep(after_s)
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok".encode())
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    port = free_base_port()
    return await asyncio.start_server(serve, "127.0.0.1", port), port


async def test_the_generator_counts_good_answers_and_sends_fresh_keys(tmp_path: Path) -> None:
    seen: list[bytes] = []
    server, port = await _answering("201 Created", seen)
    frames = write_frames(tmp_path / "frames", [request("GET", "/a", headers=[("idempotency-key", KEY_FIELD)])])
    program = compile_generator()
    load = await asyncio.to_thread(run_load, program, port=port, connections=3, seconds=0.2, frames=frames, status=201, core=None)
    server.close()
    keys = [line for head in seen for line in head.split(b"\r\n") if line.startswith(b"idempotency-key")]
    assert load.good == len(seen) == len(set(keys)) > 3
    assert 0 < load.p50_us <= load.p99_us
    assert load.cpu_us > 0


async def test_an_open_rate_is_kept_and_times_count_from_when_a_request_was_due(tmp_path: Path) -> None:
    seen: list[bytes] = []
    server, port = await _answering("200 OK", seen, after_s=0.05)
    frames = write_frames(tmp_path / "frames", [request("GET", "/a")])
    # Twice as often as one connection can be answered: each waits 25 ms longer than the one before.
    asked = {"connections": 1, "seconds": 0.5, "status": 200, "core": None, "rate": 40.0}
    load = await asyncio.to_thread(run_load, compile_generator(), port=port, frames=frames, **asked)
    server.close()
    assert load.good == len(seen) == 20
    assert load.p50_us > 5 * 25_000
    assert load.cpu_us < 250_000, "it waits without spinning"


async def test_a_wrong_answer_ends_the_measurement(tmp_path: Path) -> None:
    server, port = await _answering("503 Service Unavailable", [])
    frames = write_frames(tmp_path / "frames", [request("GET", "/a")])
    with pytest.raises(BenchError, match=r"expected 200, got: HTTP/1\.1 503"):
        await asyncio.to_thread(run_load, compile_generator(), port=port, connections=1, seconds=0.1, frames=frames, status=200, core=None)
    server.close()


def test_statements_are_added_up_by_text() -> None:
    log = (
        "2026-01-01 00:00:00 UTC [1] LOG:  duration: 1.000 ms  bind s1: SELECT a\n\tFROM t -- why\n\tWHERE b\n"
        "2026-01-01 00:00:00 UTC [1] LOG:  duration: 2.000 ms  execute s1: SELECT a\n\tFROM t -- why\n\tWHERE b\n"
        "2026-01-01 00:00:00 UTC [1] LOG:  duration: 1.000 ms  statement: COMMIT\n"
        "2026-01-01 00:00:00 UTC [1] LOG:  checkpoint complete\n"
    )
    first, second = table(log)
    assert "75.0%" in first
    assert "1 ×    3000 µs  SELECT a FROM t WHERE b" in first
    assert "1 ×    1000 µs  COMMIT" in second
