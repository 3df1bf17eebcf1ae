#!/usr/bin/env python3
"""Builds the image and brings compose.yaml up on a real Docker engine, then kills, drains and removes it.

Uses the engine that answers, else one of its own with stand-in images (deploy/dev/engine.sh), which it ends. Every port
is on 127.0.0.1. Each promise is one line; closing line: `N passed, M failed`. Standard library only; cold about 6 min.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "plumbline:dev"
GENERATOR = "plumbline-load:dev"
MOST_LAYER_MB = 90
PATIENCE_S = 180
# Killed in turn; each is back by its restart policy, and an order placed with one key all along is paid once.
KILLED = ("api", "worker", "relay", "valkey", "kafka", "postgres")


class Broken(Exception):
    """What was expected and what was seen."""


@dataclass
class Report:
    """Runs checks, prints each with its time, counts."""

    passed: int = 0
    failed: int = 0
    started: float = field(default_factory=time.monotonic)

    def check(self, name: str, action: Callable[[], str]) -> bool:
        try:
            seen = action()
        except (Broken, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", "") or ""
            self.failed += 1
            print(f"{time.monotonic() - self.started:5.0f} s  FAILED {name}: {error} {said[-1500:]}", flush=True)
            return False
        self.passed += 1
        print(f"{time.monotonic() - self.started:5.0f} s  {name}: {seen}", flush=True)
        return True


# A busy machine is slow, not broken: what hangs for good still ends.
LONGEST_S = 3600


def run(*command: str, env: dict[str, str] | None = None, timeout_s: float = LONGEST_S) -> str:
    """Its output. Raises `CalledProcessError`, whose stderr says why."""
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True, timeout=timeout_s).stdout


def engine_settings() -> dict[str, str]:
    """The environment that reaches a Docker engine; empty additions when one answers already."""
    lines = subprocess.run(["deploy/dev/engine.sh", "env"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if lines.returncode != 0:
        raise Broken("no Docker engine: see the lines above")
    said = run("bash", "-c", f'{lines.stdout}\nprintf "%s\\n" "PATH=$PATH" "DOCKER_HOST=${{DOCKER_HOST-}}" "DOCKER_CONFIG=${{DOCKER_CONFIG-}}"')
    found = dict(line.split("=", 1) for line in said.splitlines())
    return {name: value for name, value in found.items() if value}


def free_ports(count: int) -> list[str]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(s.getsockname()[1]) for s in sockets]
    for s in sockets:
        s.close()
    return ports


def until(what: str, ready: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """The first true answer; refused connections count as not yet."""
    deadline, last = time.monotonic() + patience_s, "nothing"
    while time.monotonic() < deadline:
        try:
            if found := ready():
                return found
        except (OSError, subprocess.SubprocessError) as error:
            last = str(error)
        time.sleep(0.25)
    raise Broken(f"{what}: not within {patience_s:.0f} s; last: {last}")


class Shop:
    """The published port, asked as a customer does."""

    def __init__(self, port: str, token: str) -> None:
        self.base, self.token = f"http://127.0.0.1:{port}", token

    def call(self, method: str, path: str, body: object = None, *, key: str = "") -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")

    def buy(self) -> str:
        """Place an order and see it paid, repeating with one key whatever happens; says how long it took."""
        key, started = str(uuid.uuid4()), time.monotonic()
        order = {"lines": [{"sku": "SKU-0001", "quantity": 1}], "currency": "EUR"}

        def placed() -> Any:
            status, body = self.call("POST", "/v1/orders", order, key=key)
            if status in {400, 401, 403, 404, 409, 422}:
                raise Broken(f"POST /v1/orders: {status} {str(body)[:300]}")
            return body["id"] if status in {200, 201} else None

        identity = until("an order is accepted", placed)

        def paid() -> bool:
            status, body = self.call("GET", f"/v1/orders/{identity}")
            if status == 200 and body["status"] in {"rejected", "cancelled", "expired"}:
                raise Broken(f"the order is {body['status']}")
            return status == 200 and body["status"] in {"paid", "shipped"}

        until("the order is paid", paid)
        return f"placed and paid in {time.monotonic() - started:.1f} s"


class Stack:
    """The compose project, under a name and on ports of its own."""

    def __init__(self) -> None:
        http, ops, issuer, psp = free_ports(4)
        self.http = http
        self.env = {**os.environ, **engine_settings(), "COMPOSE_PROJECT_NAME": "plumbline-check"}
        self.env |= {"DOCKER_BUILDKIT": "1"}  # a Dockerfile names its own .dockerignore, which older builders do not know
        self.env |= {"HTTP_PORT": http, "OPS_PORT": ops, "ISSUER_PORT": issuer, "PSP_PORT": psp, "PLUMBLINE_BUILD": "0", "PLUMBLINE_WAIT_S": "480"}

    def docker(self, *arguments: str, timeout_s: float = LONGEST_S) -> str:
        return run("docker", *arguments, env=self.env, timeout_s=timeout_s).strip()

    def compose(self, *arguments: str) -> str:
        return self.docker("compose", *arguments)

    def container(self, service: str) -> str:
        return self.compose("ps", "--all", "--quiet", service)

    def inspect(self, target: str, what: str) -> str:
        return self.docker("inspect", "--format", what, target)


# -- the image


def build(stack: Stack) -> str:
    stack.compose("build", "--quiet", "api")
    return "from the unchanged Dockerfile"


def layers(stack: Stack) -> str:
    base = re.search(r"^ARG PYTHON_IMAGE=(\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert base is not None
    sizes = [int(stack.inspect(name, "{{.Size}}")) / 1e6 for name in (IMAGE, base[1])]
    if (ours := sizes[0] - sizes[1]) > MOST_LAYER_MB:
        raise Broken(f"our layers are {ours:.1f} MB over the base, the most is {MOST_LAYER_MB}")
    return f"{ours:.1f} MB over the base of {sizes[1]:.0f} MB"


HARDENED = ("run", "--rm", "--read-only", "--tmpfs", "/tmp:size=64m", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none")
LOOK = """
import errno, os, shutil, pathlib, sysconfig
assert (os.getuid(), os.getgid()) == (10001, 10001), (os.getuid(), os.getgid())
for place in ("/app/x", "/etc/x", "/x"):
    try: open(place, "w"); raise SystemExit(place + " was written")
    except OSError as error: assert error.errno in (errno.EROFS, errno.EACCES), error
pathlib.Path("/tmp/x").write_text("x")
found = [tool for tool in ("pip", "pip3", "uv", "gcc", "curl", "wget") if shutil.which(tool)]
here = sysconfig.get_paths()["purelib"]
found += [name for name in ("pip", "setuptools", "wheel", "pytest", "boto3", "botocore") if os.path.isdir(here + "/" + name)]
assert not found, found
assert not [n for n in os.environ if any(w in n for w in ("PASSWORD", "SECRET", "TOKEN", "_URL"))]
"""


def hardened(stack: Stack) -> str:
    stack.docker(*HARDENED, "--entrypoint", "python", IMAGE, "-c", LOOK)
    if "serve" not in stack.docker(*HARDENED, IMAGE, "--help"):
        raise Broken("plumbline --help does not list its commands")
    return "uid 10001, read-only root, /tmp writable, no installer or compiler, no secret in the environment"


def history(stack: Stack) -> str:
    said = stack.docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", IMAGE)
    if found := re.findall(r"(?i)(password|secret|token)=\S+", said):
        raise Broken(f"the image's history holds {found}")
    labels = json.loads(stack.inspect(IMAGE, "{{json .Config.Labels}}"))
    if missing := {f"org.opencontainers.image.{name}" for name in ("source", "revision", "version", "created")} - set(labels):
        raise Broken(f"labels {missing} are missing")
    return f"no secret, {len(labels)} labels"


# -- the stack


def up(stack: Stack) -> str:
    run("deploy/dev/compose.sh", "up", env=stack.env)
    states = stack.compose("ps", "--format", "{{.Service}} {{.Health}}").splitlines()
    if sick := [line for line in states if not line.endswith(" healthy")]:
        raise Broken(f"not healthy: {sick}")
    return f"{len(states)} services healthy"


def on_loopback(stack: Stack) -> str:
    published = set()
    for identity in stack.compose("ps", "--all", "--quiet").split():
        ports = json.loads(stack.inspect(identity, "{{json .HostConfig.PortBindings}}")) or {}
        published |= {binding["HostIp"] for bindings in ports.values() for binding in bindings}
    if published != {"127.0.0.1"}:
        raise Broken(f"published on {published}")
    return "every published port is on 127.0.0.1"


def kill(stack: Stack, shop: Shop, service: str) -> str:
    identity = stack.container(service)
    before = int(stack.inspect(identity, "{{.RestartCount}}"))
    # By its process: `docker kill` counts as wanted, and nothing would bring it back.
    os.kill(int(stack.inspect(identity, "{{.State.Pid}}")), signal.SIGKILL)
    bought = shop.buy()
    until(f"{service} was restarted", lambda: int(stack.inspect(identity, "{{.RestartCount}}")) > before)
    until(f"{service} is healthy", lambda: stack.inspect(identity, "{{.State.Health.Status}}") == "healthy")
    return f"order {bought}, container restarted and healthy"


def drain(stack: Stack, shop: Shop) -> str:
    """A request whose body is still on its way when SIGTERM comes is answered, and the process ends with 0."""
    identity = stack.container("api")
    body = json.dumps({"lines": [{"sku": "SKU-0001", "quantity": 1}], "currency": "EUR"}).encode()
    head = (
        f"POST /v1/orders HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {shop.token}\r\n"
        f"Idempotency-Key: {uuid.uuid4()}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", int(stack.http)), timeout=30) as connection:
        connection.sendall(head.encode() + body[:10])
        time.sleep(0.5)  # the head must be in the process, and nothing answers to a head alone
        started = time.monotonic()
        stopping = subprocess.Popen(["docker", "stop", "--time", "35", identity], env=stack.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(2)
        connection.sendall(body[10:])
        answer = connection.makefile("rb").readline().decode()
        stopping.wait(60)
    took, code = time.monotonic() - started, stack.inspect(identity, "{{.State.ExitCode}}")
    stack.docker("start", identity)
    if " 201 " not in answer or code != "0" or took > 30:
        raise Broken(f"answer {answer.strip()!r}, exit {code}, {took:.1f} s")
    until("the API is back", lambda: stack.inspect(identity, "{{.State.Health.Status}}") == "healthy")
    return f"request in hand answered 201, exit 0 after {took:.1f} s"


def workers_drain(stack: Stack) -> str:
    codes = {}
    for service in ("worker", "relay", "reaper"):
        identity = stack.container(service)
        stack.docker("stop", "--time", "35", identity)
        codes[service] = stack.inspect(identity, "{{.State.ExitCode}}")
        stack.docker("start", identity)
    if set(codes.values()) != {"0"}:
        raise Broken(f"exit codes {codes}")
    return "worker, relay and reaper end with 0 on SIGTERM"


def generator(stack: Stack, shop: Shop) -> str:
    """The chart's `load` Jobs run this image; here it loads the published port, hardened as there."""
    stack.docker("build", "--quiet", "--file", "loadtests/Dockerfile", "--tag", GENERATOR, ".")
    limits = ("--read-only", "--tmpfs", "/tmp:size=64m,mode=1777", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "host")
    with tempfile.TemporaryDirectory() as folder:
        tokens = Path(folder) / "tokens"
        tokens.write_text(shop.token + "\n", encoding="utf-8")
        Path(folder).chmod(0o755)
        asked = ("--host", shop.base, "--tokens", "/tokens/tokens", "--mix", "buy", "--rate", "2", "--seconds", "5", "--exit-code-on-error", "0")
        command = ["docker", "run", "--rm", *limits, "-v", f"{folder}:/tokens:ro", GENERATOR, "--locustfile=/app/loadtests/locustfile.py"]
        done = subprocess.run([*command, "--headless", "-u", "1", *asked], env=stack.env, capture_output=True, text=True, check=False, timeout=300)
    row = re.search(r"^POST /v1/orders +(\d+) +(\d+) ", done.stdout, re.MULTILINE)
    if row is None or (row[1], row[2]) != ("10", "0") or "verdict: " not in done.stdout:
        raise Broken(f"exit {done.returncode}: {done.stdout[-1200:]} {done.stderr[-800:]}")
    return f"uid 10001, read-only root; 10 of 10 orders placed at 2/s, {done.stdout[done.stdout.rindex('verdict: ') :].splitlines()[0]}"


def gone(stack: Stack) -> str:
    stack.compose("down", "--volumes", "--timeout", "40")
    label = "label=com.docker.compose.project=plumbline-check"
    left = [stack.docker(*what, "--quiet", "--filter", label) for what in (("ps", "--all"), ("volume", "ls"), ("network", "ls"))]
    if any(left):
        raise Broken(f"left behind: {left}")
    return "no container, volume or network is left"


def verify(stack: Stack, report: Report) -> None:
    if not report.check("image builds", lambda: build(stack)):
        return
    report.check("our layers", lambda: layers(stack))
    report.check("runs hardened", lambda: hardened(stack))
    report.check("history and labels", lambda: history(stack))
    try:
        if report.check("compose up", lambda: up(stack)):
            shop = Shop(stack.http, run("deploy/dev/compose.sh", "token", env=stack.env).strip())
            report.check("ports", lambda: on_loopback(stack))
            report.check("an order", shop.buy)
            for service in KILLED:
                report.check(f"kill -9 of {service}", lambda service=service: kill(stack, shop, service))
            report.check("SIGTERM of the API", lambda: drain(stack, shop))
            report.check("SIGTERM of the others", lambda: workers_drain(stack))
            report.check("an order after all that", shop.buy)
            report.check("the load generator's image", lambda: generator(stack, shop))
        if report.failed:
            print(stack.compose("logs", "--no-color", "--tail", "25")[-6000:], flush=True)
    finally:
        report.check("compose down", lambda: gone(stack))


def main() -> int:
    report = Report()
    try:
        verify(Stack(), report)
    except Broken as error:
        report.failed += 1
        print(f"FAILED {error}", flush=True)
    finally:
        subprocess.run(["deploy/dev/engine.sh", "stop"], cwd=ROOT, check=False)
    print(f"{report.passed} passed, {report.failed} failed")
    return 0 if report.failed == 0 and report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
