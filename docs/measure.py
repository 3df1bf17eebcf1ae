# ruff: noqa: INP001, T201 - a script, no package
"""Measures what the README says about the embedded stack: time to ready, memory, disk.

`PYTHONPATH=. .venv/bin/python docs/measure.py [memory|real]` starts a stack of its own four times (first with empty data) in a
temporary folder, prints a table, and leaves nothing running. Memory is PSS: shared pages are counted once.
`… docs/measure.py serve` does it with the API alone, on servers that run already.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

from service.dev.postgres import EmbeddedPostgres
from service.dev.roster import BrokerKind
from service.dev.stack import running_stack
from tests.integration.processes import Member, running
from tests.support.servers import free_base_port, running_servers

STARTS, SERVES = 4, 9
SETTLE_S = 5.0


def main(kafka: BrokerKind) -> None:
    """Start, measure, stop; print as it goes."""
    with tempfile.TemporaryDirectory(prefix="plumbline-measure-", ignore_cleanup_errors=True) as folder:
        home, port = Path(folder), free_base_port()
        seconds, memory = [], {}
        for number in range(STARTS):
            begin = time.monotonic()
            with running_stack(home, port, kafka=kafka) as stack:
                seconds.append(time.monotonic() - begin)
                print(f"start {number + 1} of {STARTS}: ready after {seconds[-1]:.1f} s", flush=True)
                if number == STARTS - 1:
                    time.sleep(SETTLE_S)  # idle memory: let what starting needed be given back
                    memory = _memory_by_role(stack["processes"])
        paid = [float(value) for value in re.findall(r"placed and paid in ([0-9.]+) s", (home / "logs" / "up.log").read_text())]
        postgres = EmbeddedPostgres(home, port)
        # Below `home`, or elsewhere when the caller is root.
        data = sum(_tree_bytes(folder) for folder in {home, postgres.folder} if folder == home or not folder.is_relative_to(home))
        postgres.wipe()
    _print_table(kafka, seconds=seconds, paid=paid, memory=memory, data=data)


def _print_table(kafka: str, *, seconds: list[float], paid: list[float], memory: dict[str, int], data: int) -> None:
    print(f"\nembedded stack, --kafka {kafka}")
    print(f"  empty data → ready            {seconds[0]:6.1f} s")
    print(f"  data there → ready, median    {statistics.median(seconds[1:]):6.1f} s")
    print(f"  of that one order placed → paid, median {statistics.median(paid):.1f} s")
    for role, size in sorted(memory.items(), key=lambda item: -item[1]):
        print(f"  memory (PSS) {role:<17}{size / 2**20:6.0f} MiB")
    print(f"  memory (PSS) together        {sum(memory.values()) / 2**20:6.0f} MiB")
    print(f"  disk: data and logs          {data / 2**20:6.0f} MiB")
    print(f"  disk: .venv                  {_tree_bytes(Path(sys.prefix)) / 2**20:6.0f} MiB")


def measure_serve() -> None:
    """From starting the process to the first 200 of its readiness page, and the processor time it needed until then."""
    with running_servers(seeded=True) as servers:
        ready = f"http://127.0.0.1:{servers.base_port + 106}/health/ready"
        ours = os.environ | servers.environment() | {"OPS_PORT": str(servers.base_port + 106)}
        keys = f"http://127.0.0.1:{servers.base_port + 103}/.well-known/jwks.json"
        with running(Member("issuer", keys, servers.home / "issuer.log", servers.environment())):
            taken = [_serve_once(ready, ours, servers.home / "api.log") for _ in range(SERVES)][1:]  # the first one compiles
    for what, seconds in zip(("start → ready", "processor time"), zip(*taken, strict=True), strict=True):
        print(f"  serve: {what:<15} median {statistics.median(seconds):.2f} s, {min(seconds):.2f} to {max(seconds):.2f}")


def _serve_once(ready: str, environment: dict[str, str], log: Path) -> tuple[float, float]:
    begin = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen([sys.executable, "-m", "service", "serve"], env=environment, stdout=output, stderr=output)
    try:
        while True:
            with suppress(urllib.error.URLError), urllib.request.urlopen(ready):  # noqa: S310 - loopback
                words = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
                return time.monotonic() - begin, sum(map(int, words[11:13])) / os.sysconf("SC_CLK_TCK")
            assert process.poll() is None, f"it ended: see {log.read_text()[-2000:]}"
            time.sleep(0.01)
    finally:
        process.terminate()
        process.wait()


def _memory_by_role(processes: list[dict[str, object]]) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for process in processes:
        found[str(process["role"])] += sum(_pss_bytes(pid) for pid in _with_descendants(int(str(process["pid"]))))
    supervisor = _parent(int(str(processes[0]["pid"])))
    found["supervisor"] = _pss_bytes(supervisor)
    return found


def _with_descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            children[_parent(int(entry.name))].append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        waiting.extend(children[found[-1]])
    return found


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it ended meanwhile
        return 0


def _pss_bytes(pid: int) -> int:
    match = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def _tree_bytes(folder: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


if __name__ == "__main__":
    if "serve" in sys.argv[1:]:
        measure_serve()
    else:
        main("real" if "real" in sys.argv[1:] else "memory")
