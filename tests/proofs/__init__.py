"""Experiments whose outcome is a table or a picture in the documentation: `python -m tests.proofs` writes them anew."""
