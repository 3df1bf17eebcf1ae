"""A real Prometheus and a real Alertmanager beside the real service under a story load: does every question get an answer?

1. Every selector of every alert, every recording rule and every panel expression returns a series, or is on `ABSENT` with
   its reason. 2. Exemplars lead from a latency bucket to a trace id. 3. A dead letter becomes an alert at a webhook, the
   watchdog reaches its own receiver. 4. What the chart's scalers ask for is there: processor time of every API process, and
   the offsets that every group of a ScaledObject has committed. Needs Debian's prometheus and prometheus-alertmanager
   (deploy/verify/telemetry_tools.sh) and the project's environment. Closing line: `N passed, M failed`. About a minute and a half.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import httpx
import yaml
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from reading import ROOT, panels, rules, selectors

from service.dev.issuer import mint
from service.dev.stack import running_stack
from service.dev.state import read_stack

# Not there in a healthy stack on one machine: why.
ABSENT: Final = {
    'orders_http_requests_total{status=~"5.."}': "no request failed; the rule counts that as 0",
    "orders_loop_errors_total": "no loop met an error",
    'orders_cache_requests_total{outcome=~"hit|stale|negative"}': "read by the panel beside misses",
    "kube_job_status_failed": "kube-state-metrics: only in a cluster",
    "kube_pod_container_status_restarts_total": "kube-state-metrics: only in a cluster",
    "kube_horizontalpodautoscaler_status_current_replicas": "kube-state-metrics: only in a cluster",
    "kube_horizontalpodautoscaler_spec_max_replicas": "kube-state-metrics: only in a cluster",
}
WAIT_S: Final = 90.0
HOPELESS: Final = 83  # × 9.99 ends in 17: the provider fails on it
Webhooks = list[tuple[str, dict[str, Any]]]


@contextlib.contextmanager
def webhook() -> Iterator[tuple[int, Webhooks]]:
    """Takes what Alertmanager sends: (path, message)."""
    got: Webhooks = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, json.loads(self.rfile.read(int(self.headers["content-length"])))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1], got
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def process(folder: Path, name: str, *arguments: str) -> Iterator[None]:
    """A server of ours, ended by its pid."""
    with (folder / f"{name}.log").open("wb") as log:
        running = subprocess.Popen([name, *arguments], stdout=log, stderr=log)
        try:
            yield
        finally:
            running.terminate()
            try:
                running.wait(10)
            except subprocess.TimeoutExpired:
                running.kill()


def configured(folder: Path, home: Path, *, hook: int, ports: tuple[int, int]) -> None:
    """The committed configurations with this machine's addresses in place of compose's, scraping every second."""
    text = (ROOT / "observability/prometheus.yaml").read_text()
    for role in ("api", "relay", "worker", "reaper"):
        targets = [p["ops_url"].removeprefix("http://") for p in read_stack(home)["processes"] if p["role"] == role]
        assert f'["{role}:9000"]' in text
        text = text.replace(f'["{role}:9000"]', json.dumps(targets))
    text = text.replace("alertmanager:9093", f"127.0.0.1:{ports[1]}").replace("/etc/prometheus/rules", str(ROOT / "deploy/helm/orders/files/rules"))
    (folder / "prometheus.yaml").write_text(text.replace("interval: 15s", "interval: 1s"))
    text = (ROOT / "observability/alertmanager.yaml").read_text().replace("127.0.0.1:9095", f"127.0.0.1:{hook}")
    (folder / "alertmanager.yaml").write_text(text.replace("group_wait: 10s", "group_wait: 1s"))


async def shop(home: Path, seconds: float) -> None:
    """Place, repeat, read, list, cancel, be refused; one order cannot be charged and becomes a dead letter."""
    urls = read_stack(home)["urls"]
    async with httpx.AsyncClient(base_url=urls["api"], timeout=10) as http:
        await http.post(f"{urls['psp']}/dials", json={"magic_totals": True, "heal": False})
        token = mint(home, sub="live", role="customer", issuer=urls["issuer"])
        headers = {"authorization": f"Bearer {token}"}
        ends, number = time.monotonic() + seconds, 0
        while time.monotonic() < ends:
            number += 1
            body = {"lines": [{"sku": "SKU-0001", "quantity": HOPELESS if number == 1 else 1 + number % 3}], "currency": "EUR"}
            keyed = headers | {"idempotency-key": f"live-{number}"}
            placed = (await http.post("/v1/orders", json=body, headers=keyed)).json()
            await http.post("/v1/orders", json=body, headers=keyed)
            await http.post("/v1/orders", json={"note": "other", **body}, headers=keyed)
            for path in (f"/v1/orders/{placed['id']}", f"/v1/orders/{placed['id']}", "/v1/orders?limit=5", "/v1/products?limit=2", "/nowhere"):
                await http.get(path, headers=headers)
            if number % 5 == 0:
                current = (await http.get(f"/v1/orders/{placed['id']}", headers=headers)).headers["etag"]
                await http.post(f"/v1/orders/{placed['id']}/cancel", headers=headers | {"idempotency-key": f"off-{number}", "if-match": current})
            await asyncio.sleep(0.1)


def questions() -> dict[str, str]:
    """Where an expression stands → the expression to ask."""
    found: dict[str, str] = {}
    for rule in rules():
        if "record" in rule:
            found[f"rule {rule['record']} {rule['labels']['slo']}"] = rule["expr"]
        else:
            found |= {f"alert {rule['alert']}: {selector}": selector for selector in selectors(rule["expr"])}
    for uid, panel in panels():
        for target in panel["targets"]:
            found[f"panel {uid} / {panel['title']} {target['refId']}"] = target["expr"].replace("$__rate_interval", "1m")
    return found


def excused(expr: str) -> bool:
    """All that an expression reads which is not there has a reason in `ABSENT`."""
    return any(selector in ABSENT or selector.partition("{")[0] in ABSENT for selector in selectors(expr))


def ask(http: httpx.Client, expr: str) -> int:
    """How many series an expression has now. Raises `AssertionError` when Prometheus refuses it."""
    answer = http.get("/api/v1/query", params={"query": expr}).json()
    assert answer["status"] == "success", f"{expr}: {answer.get('error')}"
    return len(answer["data"]["result"]) if answer["data"]["resultType"] == "vector" else 1


def unanswered(http: httpx.Client) -> list[str]:
    """Questions without an answer and without an excuse, after waiting for them."""
    left, deadline = questions(), time.monotonic() + WAIT_S
    print(f"{len(left)} expressions", flush=True)
    while left and time.monotonic() < deadline:
        left = {where: expr for where, expr in left.items() if not ask(http, expr)}
        if all(excused(expr) for expr in left.values()):
            break
        time.sleep(2)
    print(f"{len(left)} without a series, {sum(excused(expr) for expr in left.values())} of them with a reason", flush=True)
    return [f"{where}: {expr}" for where, expr in left.items() if not excused(expr)]


def exemplars(http: httpx.Client) -> list[str]:
    """Trace ids that hang on latency buckets."""
    now = time.time()
    asked = {"query": "orders_http_request_duration_seconds_bucket", "start": str(now - 600), "end": str(now + 5)}
    found = http.get("/api/v1/query_exemplars", params=asked).json()["data"]
    return [exemplar["labels"]["trace_id"] for series in found for exemplar in series["exemplars"]]


def delivered(got: Webhooks, path: str, alert: str) -> bool:
    """Has the webhook got this alert there?"""
    return any(at == path and any(a["labels"]["alertname"] == alert for a in message["alerts"]) for at, message in got)


def until(look: Any) -> bool:
    deadline = time.monotonic() + WAIT_S
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return bool(found)


async def uncommitted(bootstrap: str) -> list[str]:
    """Groups of the chart's ScaledObjects that the broker does not know by offsets: KEDA would scale on nothing."""
    chart = yaml.safe_load((ROOT / "deploy/helm/orders/values.yaml").read_text(encoding="utf-8"))
    run = {group for worker in chart["workers"].values() for group in worker["groups"]}
    # The first topic of a group is the one that every order writes to. Partitions by name: the in-memory broker knows no "all".
    first = {group: topics[0] for group, topics in chart["kafka"]["groups"].items() if group in run}
    asked = {group: [TopicPartition(topic, n) for n in range(chart["kafka"]["topics"][topic])] for group, topic in first.items()}
    left, deadline = set(asked), time.monotonic() + WAIT_S
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        while left and time.monotonic() < deadline:
            for group in sorted(left):
                told = await admin.list_consumer_group_offsets(group, partitions=asked[group])
                if any(offset.offset > 0 for offset in told.values()):
                    left.remove(group)
            await asyncio.sleep(1 if left else 0)
        return sorted(left) if asked else ["no group is named"]
    finally:
        await admin.close()


def cpu_is_told(http: httpx.Client, home: Path) -> bool:
    """Every API process says what it used: in a cluster the kubelet reads the same of its container for the HPA."""
    processes = sum(process["role"] == "api" for process in read_stack(home)["processes"])
    return until(lambda: ask(http, 'rate(process_cpu_seconds_total{job="orders-api"}[1m]) > 0') == processes > 0)


def main() -> int:
    from tests.support.servers import free_base_port  # noqa: PLC0415 - the repository's root is on the path only now

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="plumbline-live-", ignore_cleanup_errors=True)))
        home, base = folder / "home", free_base_port()
        settings = {"APP_TELEMETRY_SAMPLE_RATIO": "1", "APP_WORKER_TIERS_S": "0.3,0.6"}
        print("starting the service", flush=True)
        stack.enter_context(running_stack(home, base, kafka="memory", profile="load", env=settings))
        hook, got = stack.enter_context(webhook())
        ports = (base + 108, base + 109)
        configured(folder, home, hook=hook, ports=ports)
        stack.enter_context(process(
            folder, "prometheus-alertmanager", f"--config.file={folder}/alertmanager.yaml", f"--storage.path={folder}/am",
            f"--web.listen-address=127.0.0.1:{ports[1]}", "--cluster.listen-address=",
        ))  # fmt: skip
        stack.enter_context(process(
            folder, "prometheus", f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/tsdb",
            f"--web.listen-address=127.0.0.1:{ports[0]}", "--enable-feature=exemplar-storage",
        ))  # fmt: skip
        print("shopping for 25 s", flush=True)
        asyncio.run(shop(home, 25))
        with httpx.Client(base_url=f"http://127.0.0.1:{ports[0]}", timeout=10) as http:
            missing = unanswered(http)
            checks = {
                "every expression returns a series or has a reason not to": not missing,
                "exemplars lead to traces": until(lambda: exemplars(http)),
                "a dead letter reaches the ticket queue": until(lambda: delivered(got, "/ticket", "OrdersDlqNotEmpty")),
                "the watchdog reaches its receiver": until(lambda: delivered(got, "/deadman", "OrdersWatchdog")),
                "the processor time that the HPA scales on is told": cpu_is_told(http, home),
                "every group that KEDA scales on has committed offsets": not (idle := asyncio.run(uncommitted(read_stack(home)["urls"]["kafka"]))),
            }
            print(*missing, *idle, sep="\n")
    for name, good in checks.items():
        print(f"{'ok' if good else 'FAILED'}  {name}")
    passed = sum(checks.values())
    print(f"{passed} passed, {len(checks) - passed} failed")
    return 0 if passed == len(checks) else 1


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
