"""The benchmark: floors written by hand, the service with everything on, and the ratio between them (bench/README.md)."""
