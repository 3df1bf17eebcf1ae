"""The stack of a load run stands back for the generator that measures it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

from loadtests.target import stand_back

_FAMILY = """
import subprocess, sys, threading
threading.Thread(target=sys.stdin.read, daemon=True).start()
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
print("ready", flush=True)
child.wait()
"""


def test_every_thread_of_a_process_and_of_its_children_has_a_lower_priority_than_ours() -> None:
    family = subprocess.Popen([sys.executable, "-c", _FAMILY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert family.stdout is not None
        assert family.stdout.readline() == "ready\n"
        stand_back(family.pid)
        processes = [psutil.Process(family.pid), *psutil.Process(family.pid).children()]
        priorities = [os.getpriority(os.PRIO_PROCESS, thread.id) for process in processes for thread in process.threads()]
        assert len(priorities) >= 3
        group = Path(f"/proc/{family.pid}/autogroup")
        assert not group.exists() or group.read_text().split()[-1] == "19", "its session's too, where the kernel shares the cores out by session"
        assert min(priorities) >= max(19, os.getpriority(os.PRIO_PROCESS, 0))
    finally:
        for child in psutil.Process(family.pid).children():
            child.kill()
        family.kill()
        family.communicate()


def test_a_process_that_has_ended_is_no_error() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    stand_back(ended.pid)
