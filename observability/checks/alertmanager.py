"""Alertmanager's configuration: `amtool check-config`, and every case of tests/routes.yaml. Closing line: `N passed, M failed`."""

from __future__ import annotations

import re
import subprocess
import sys

from reading import ROOT, TESTS

CONFIG = ROOT / "observability/alertmanager.yaml"
_CASE = re.compile(r"^- \{labels: \{(.*)\}, receiver: (\w+)\}$", re.MULTILINE)


def amtool(*words: str) -> tuple[int, str]:
    ended = subprocess.run(["amtool", *words], capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout.strip() or ended.stderr.strip()


def main() -> int:
    code, said = amtool("check-config", str(CONFIG))
    passed, failed = (1, 0) if code == 0 else (0, 1)
    if code:
        print(said)
    cases = _CASE.findall((TESTS / "routes.yaml").read_text())
    for labels, receiver in cases:
        pairs = [pair.replace(": ", "=") for pair in labels.split(", ")]
        code, said = amtool("config", "routes", "test", f"--config.file={CONFIG}", *pairs)
        good = code == 0 and said == receiver
        passed, failed = passed + good, failed + (not good)
        if not good:
            print(f"{labels} goes to {said}, not to {receiver}")
    if len(cases) < 6:
        failed += 1
        print("fewer than six routing cases were read")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
