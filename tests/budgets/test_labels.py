"""Metric labels are bounded by design: none is named for something that has no end."""

from __future__ import annotations

from prometheus_client import REGISTRY

import service.foundation.metrics  # noqa: F401 - defines them

_ENDLESS = {"id", "order_id", "customer", "customer_id", "sku", "key", "path", "url", "subject", "principal", "request_id", "trace_id", "message"}


def test_no_label_is_endless() -> None:
    labels = {name: set(getattr(collector, "_labelnames", ())) for collector, names in REGISTRY._collector_to_names.items() for name in names}
    assert not {name: found & _ENDLESS for name, found in labels.items() if found & _ENDLESS}
    assert any(found for found in labels.values()), "looked at no labels: has prometheus_client changed?"
