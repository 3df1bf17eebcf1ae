"""CPU time of processes from the kernel's scheduler, in nanoseconds (`/proc/<pid>/task/*/schedstat`).

Counts every thread that is alive; exact for what sleeps, and a server between two loads sleeps.
Tests: tests/faults/test_measuring.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from bench.errors import BenchError

_PROC = Path("/proc")


def cpu_ns(pids: Iterable[int]) -> int:
    """CPU time of these processes, all threads. Raises `BenchError` when one is gone."""
    return sum(_of_process(pid) for pid in pids)


def _of_process(pid: int) -> int:
    try:
        return sum(int((thread / "schedstat").read_text().split(maxsplit=1)[0]) for thread in (_PROC / str(pid) / "task").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        raise BenchError(f"process {pid} ended while it was measured: see its log in the state folder") from None


def spent_ns(before: Mapping[int, int], pids: Iterable[int]) -> int:
    """CPU time since `before` of processes that come and go; one that ended meanwhile is left out."""
    return sum(now - before[pid] for pid, now in snapshot(pids).items() if pid in before)


def snapshot(pids: Iterable[int]) -> dict[int, int]:
    """CPU time of each process that is there."""
    found = {}
    for pid in pids:
        with suppress(BenchError):
            found[pid] = _of_process(pid)
    return found


def children(pid: int) -> list[int]:
    """Direct children of a process, now."""
    return [int(word) for word in (_PROC / str(pid) / "task" / str(pid) / "children").read_text().split()]


def family(pid: int) -> list[int]:
    """The process and its direct children: a postmaster and its backends."""
    return [pid, *children(pid)]


def backends(postmaster: int) -> list[int]:
    """The client backends of a PostgreSQL server (not its writers, which work for everybody)."""
    return [pid for pid in children(postmaster) if "plumbline" in _title(pid)]


def rss_mib(pid: int) -> float:
    """Resident memory of a process."""
    for line in (_PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _title(pid: int) -> str:
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
