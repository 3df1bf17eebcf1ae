"""The checker: a program of its own that reads what happened and says which promises were kept (`python -m tests.faults.checker`)."""
