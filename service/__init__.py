"""Plumbline: an order service that proves what others only describe."""

__version__ = "0.1.0"
