"""Experiments on the schema, each repeatable by one command: `make bench-database` writes docs/database.md."""
