"""Torture: real processes, random faults that overlap, customers who never forget, and a verdict (`make torture`, docs/torture.md)."""
