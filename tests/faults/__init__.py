"""Faults on purpose: a proxy, control of processes, broker and databases, a failpoint sweep, and the checker that judges (docs/faults.md)."""
