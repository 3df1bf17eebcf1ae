#!/usr/bin/env python3
"""Writes `infra/terraform/COST.md`: what each environment costs a month, from `prices.json` and the tfvars themselves.

`--check` compares instead of writing (exit 1 when they differ), so a changed node type cannot leave the table behind.
When this fails, run `scripts/cost.py` and read the difference; the check is part of `deploy/verify/terraform.py tf`.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

TERRAFORM: Final = Path(__file__).resolve().parents[1] / "infra/terraform"
ENVIRONMENTS: Final = ("dev", "staging", "prod")
# Counts that the modules fix; tests/structure.py holds the ones that can be read from the code.
ZONES: Final = 3
SYSTEM_NODES: Final = 2
NODE_DISK_GB: Final = 50
BROKERS: Final = 3
WAF_RULES: Final = 5
KEYS: Final = 5  # data, logs, alerts, cluster; state (bootstrap)
DNSSEC_KEYS: Final = 2
FIXED_ALARMS: Final = 8  # with the load balancer's
ALARMS_A_CACHE_NODE: Final = 2
SECRETS: Final = 3  # app, migrate, and the owner's password that RDS keeps


@dataclass(frozen=True)
class Line:
    """One row: `quantity` of `unit`, priced by `price`; `each` hours or 1."""

    item: str
    quantity: float
    unit: str
    price: str
    hours: int = 1


def read_tfvars(text: str) -> dict[str, Any]:
    """Numbers, strings, booleans, lists of strings and one level of objects: all that the tfvars use."""
    values: dict[str, Any] = {}
    target = values
    for line in (raw.strip() for raw in text.splitlines()):
        if line == "}":
            target = values
        elif found := re.fullmatch(r"(\w+)\s*=\s*(.+)", line):
            name, value = found.groups()
            if value == "{":
                target = values[name] = {}
            else:
                target[name] = json.loads(value)
    return values


def lines_of(tfvars: dict[str, Any], use: dict[str, float], hours: int) -> list[Line]:
    """The bill of one environment. Data transfer between zones and to the internet is not in it."""
    cluster, cache, kafka = tfvars["cluster"], tfvars["cache"], tfvars["kafka"]
    nodes = SYSTEM_NODES + cluster["nodes_min"]
    nat, signed = tfvars["nat_gateway_count"], tfvars["edge"]["dnssec"]
    # Each ACU is billed for each instance: readers of tier 0 follow the writer, and all are at least at the minimum.
    acu = use["mean_acu"] + (tfvars["database"]["instances"] - 1) * tfvars["database"]["min_acu"]
    alarms = FIXED_ALARMS + ALARMS_A_CACHE_NODE * cache["nodes"] + nat
    return [
        Line("EKS control plane", 1, "cluster", "eks-cluster-hour", hours),
        Line(f"Nodes, {cluster['node_type']} (2 system + {cluster['nodes_min']} workload)", nodes, "node", f"{cluster['node_type']}-hour", hours),
        Line("Node disks, gp3", nodes * NODE_DISK_GB, "GB", "gp3-gb-month"),
        Line("NAT gateways", nat, "gateway", "nat-gateway-hour", hours),
        Line("NAT data", use["nat_gb"], "GB", "nat-gb"),
        Line("Public IPv4 (NAT, load balancer)", nat + ZONES, "address", "public-ipv4-hour", hours),
        Line("Interface endpoints × 3 zones", len(tfvars["interface_endpoints"]) * ZONES, "endpoint", "endpoint-hour", hours),
        Line(f"Aurora, mean over {tfvars['database']['instances']} instance(s)", acu, "ACU", "aurora-acu-hour", hours),
        Line("Aurora storage", use["database_gb"], "GB", "aurora-storage-gb-month"),
        Line("Aurora I/O", use["database_million_io"], "million", "aurora-million-io"),
        Line(f"Valkey, {cache['node_type']}", cache["nodes"], "node", f"{cache['node_type']}-hour", hours),
        Line(f"Kafka brokers, {kafka['broker_type']}", BROKERS, "broker", f"{kafka['broker_type']}-hour", hours),
        Line("Kafka storage", BROKERS * kafka["volume_gib"], "GB", "kafka-storage-gb-month"),
        Line("Load balancer", 1, "ALB", "alb-hour", hours),
        Line("Load balancer capacity", use["lcu"], "LCU", "alb-lcu-hour", hours),
        Line("Firewall", 1, "web ACL", "waf-acl-month"),
        Line("Firewall rules", WAF_RULES, "rule", "waf-rule-month"),
        Line("Firewall requests", use["requests_million"], "million", "waf-million-requests"),
        Line("KMS keys", KEYS + DNSSEC_KEYS * signed, "key", "kms-key-month"),
        Line("Secrets", SECRETS, "secret", "secret-month"),
        Line("Alarms", alarms, "alarm", "alarm-month"),
        Line("Logs taken in", use["log_gb"], "GB", "log-gb"),
        Line("Hosted zone", 1, "zone", "zone-month"),
        Line("Images", use["image_gb"], "GB", "ecr-gb-month"),
    ]


def table(lines: list[Line], prices: dict[str, Any]) -> tuple[list[str], float]:
    """Markdown rows and their sum in USD."""
    rows, total = [], 0.0
    for line in (line for line in lines if line.quantity):
        if line.price not in prices:
            message = f"prices.json has no price `{line.price}` ({line.item}): add it with its source"
            raise SystemExit(message)
        price = prices[line.price]
        usd = line.quantity * line.hours * price["usd"]
        total += usd
        mark = " ?" if price["source"].endswith("assumed") else ""
        hours = f"{line.hours} h" if line.hours > 1 else "month"
        rows.append(f"| {line.item} | {line.quantity:g} {line.unit} | {hours} | {price['usd']:g}{mark} | {usd:,.0f} |")
    return rows, total


def render() -> str:
    """The whole page."""
    book = json.loads((TERRAFORM / "prices.json").read_text())
    parts, totals = [], {}
    for name in ENVIRONMENTS:
        tfvars = read_tfvars((TERRAFORM / f"envs/{name}/terraform.tfvars").read_text())
        if tfvars["region"] != book["region"]:
            message = f"envs/{name} is in {tfvars['region']}, prices.json is for {book['region']}: collect that region's prices"
            raise SystemExit(message)
        rows, totals[name] = table(lines_of(tfvars, book["traffic"][name], book["hours_per_month"]), book["prices"])
        parts += [
            f"## {name}: about {totals[name]:,.0f} USD a month",
            "",
            "| item | quantity | for | USD each | USD |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    use = ["| use a month | dev | staging | prod |", "|---|---|---|---|"]
    use += [f"| {key} | " + " | ".join(f"{book['traffic'][name][key]:g}" for name in ENVIRONMENTS) + " |" for key in book["traffic"]["dev"]]
    head = [
        "# What it costs",
        "",
        "<!-- Written by scripts/cost.py from prices.json and envs/*/terraform.tfvars. Do not edit; run it. -->",
        "",
        f"Region {book['region']}, prices collected {book['collected']}. {book['note']}",
        "A price marked `?` is an assumption; its source below says which. Not counted: data transfer, snapshots, support, taxes, savings plans.",
        "",
        "| environment | USD a month |",
        "|---|---|",
        *(f"| {name} | {total:,.0f} |" for name, total in totals.items()),
        "",
    ]
    sources = ["## Where the prices are from", "", *(f"- `{key}`: {text}" for key, text in book["sources"].items())]
    return "\n".join([*head, *parts, "## Assumed use", "", *use, "", *sources]) + "\n"


def main() -> int:
    """Write, or with `--check` compare; 1 when COST.md is out of date."""
    page = TERRAFORM / "COST.md"
    made = render()
    if "--check" not in sys.argv[1:]:
        page.write_text(made)
        return 0
    if page.exists() and page.read_text() == made:
        return 0
    sys.stderr.write("infra/terraform/COST.md does not match prices.json and the tfvars: run scripts/cost.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
