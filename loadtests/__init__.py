"""Load tests that end in a verdict: users for locust, a driver that watches the service, objectives, a report.

Not part of the image. What imports locust (and with it gevent's patches) is `locustfile.py`, `users.py` and
`recorder.py`; everything else is plain Python and tested without it. How to read a run: docs/load-testing.md.
"""
