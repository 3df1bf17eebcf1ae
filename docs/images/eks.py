# ruff: noqa: INP001 - a script, no package
"""Draws docs/images/eks.svg: where each part runs on AWS, and on which port it speaks. `python docs/images/eks.py` writes it.

Names and ports are those of infra/terraform and deploy/helm/orders; tests/budgets/test_docs.py compares the picture with both.
"""

from __future__ import annotations

import sys
from pathlib import Path
from xml.sax.saxutils import escape

from drawing import FAINT, OURS, OUTSIDE, STORE, Arrow, Box, legend, page

# (x, y, width, height, name): what lies in what.
FRAMES = (
    (210, 20, 690, 630, "VPC, three zones"),
    (225, 50, 660, 110, "public subnets"),
    (225, 175, 660, 290, ""),
    (225, 480, 660, 155, "data subnets: no way out"),
)
BOXES = (
    Box(20, 75, 120, 64, "Client", ("HTTPS",), OUTSIDE),
    Box(245, 75, 200, 70, "WAF, ALB", ("TLS 1.3, idle 60 s", "drains 30 s"), STORE),
    Box(665, 75, 200, 70, "NAT", ("one a zone in prod",), STORE),
    Box(245, 205, 200, 100, "API", ("3-30 pods, HPA: CPU 60 %", "8000 public, 9000 ops", "stops in 60 s at most"), OURS),
    Box(465, 205, 185, 100, "Workers", ("core, followers", "2-12 pods each,", "KEDA: lag 200"), OURS),
    Box(670, 205, 195, 100, "Relay, reaper", ("2 and 1 pods;", "one active by", "advisory lock"), OURS),
    Box(245, 365, 200, 80, "Jobs", ("migrate, topics apply;", "pods wait in db-wait"), OURS),
    Box(465, 365, 400, 80, "Operators", ("load balancer controller, External Secrets, KEDA,", "Prometheus operator, Pod Identity agent"), OUTSIDE),
    Box(245, 515, 190, 100, "Aurora", ("PostgreSQL 17", "IAM token, TLS", "1, 2 or 3 instances"), STORE),
    Box(465, 515, 185, 100, "ElastiCache", ("Valkey 8", "IAM token, TLS", "1, 2 or 3 nodes"), STORE),
    Box(680, 515, 185, 100, "MSK", ("Kafka, 3 brokers", "IAM token, TLS", "min. in-sync 2"), STORE),
    Box(930, 60, 170, 100, "Issuer, provider", ("and the webhook:", "HTTPS only,", "listed addresses"), OUTSIDE),
    Box(930, 205, 170, 100, "ECR", ("images by digest,", "signed, attested"), STORE),
    Box(930, 345, 170, 110, "Secrets Manager", ("addresses, read by", "External Secrets,", "mounted as files"), STORE),
    Box(930, 515, 170, 100, "CloudWatch, SNS", ("alarms on what", "Prometheus", "cannot see"), STORE),
)
ARROWS = (
    Arrow(1, ((140, 107), (243, 107)), (172, 107), (160, 88), ("443",)),
    Arrow(2, ((345, 145), (345, 203)), (345, 172), (360, 177), ("8000",)),
    Arrow(3, ((295, 305), (295, 335), (235, 335), (235, 565), (243, 565)), (235, 470), (246, 475), ("5432",)),
    Arrow(4, ((405, 305), (405, 335), (455, 335), (455, 565), (463, 565)), (455, 470), (466, 475), ("6379",)),
    Arrow(5, ((767, 305), (767, 335), (875, 335), (875, 565), (867, 565)), (875, 470), (831, 475), ("9098",)),
    Arrow(6, ((557, 205), (557, 110), (663, 110)), (600, 110), (570, 96), ("443",)),
    Arrow(7, ((865, 110), (928, 110)), (890, 110), (904, 90), ("443",)),
    Arrow(8, ((928, 400), (867, 400)), (902, 400), (906, 382), ("1 h",)),
)
NOTES = (
    (466, 355, "private subnets: EKS, Pod Security restricted"),
    (20, 200, "1, 2  an order comes in;"),
    (20, 217, "health checks go to 9000"),
    (20, 245, "3  API, workers, relay,"),
    (20, 262, "reaper: each as its user"),
    (20, 290, "4  API and workers;"),
    (20, 307, "may be away"),
    (20, 335, "5  relay and workers"),
    (20, 363, "6, 7  keys of the issuer,"),
    (20, 380, "charges, notifications"),
    (20, 408, "8  a rotated secret is used"),
    (20, 425, "by the next connection"),
)
LEGEND = ((OURS, "our pods"), (STORE, "AWS, by Terraform"), (OUTSIDE, "others"))


def _frame(x: int, y: int, width: int, height: int, name: str) -> str:
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="12" fill="none" stroke="{FAINT}" stroke-dasharray="4 4"/>'
        f'<text class="note" x="{x + 14}" y="{y + 19}">{escape(name)}</text>'
    )


def draw() -> str:
    """The whole picture as SVG text."""
    parts = [
        *(_frame(*frame) for frame in FRAMES),
        *(box.svg() for box in BOXES),
        *(arrow.svg() for arrow in ARROWS),
        *(f'<text class="step" x="{x}" y="{y}">{escape(text)}</text>' for x, y, text in NOTES),
        *legend(20, 560, LEGEND),
    ]
    description = "Client through WAF and load balancer to the API pods; pods to Aurora, ElastiCache and MSK with IAM tokens; out by NAT only."
    return page(1120, 670, "The service on AWS", description, parts)


if __name__ == "__main__":
    target = Path(__file__).with_name("eks.svg")
    target.write_text(draw(), encoding="utf-8")
    sys.stdout.write(f"wrote {target.name}\n")
