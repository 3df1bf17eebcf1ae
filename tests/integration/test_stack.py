"""`plumbline up` as its users meet it: ready means an order was paid, the dead come back, and the end leaves nothing.

One stack serves most tests (broker: PLUMBLINE_TEST_KAFKA, the in-memory one by default); killing the supervisor has its own.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import httpx
import jwt
import pytest

from service.dev import bringup, selfcheck, state
from service.dev import stack as stack_module
from service.dev.children import StackError, require_free_port
from service.dev.issuer import mint
from service.dev.postgres import EmbeddedPostgres
from service.dev.roster import BrokerKind, UpOptions
from service.dev.stack import run_reset, run_up, running_stack
from service.dev.supervisor import Supervisor
from tests.support.template import copy_template

SERVERS = {"postgres", "redis", "kafka", "issuer", "psp"}
SERVICE = {"api", "relay", "reaper", "worker"}
BROKER = cast("BrokerKind", os.environ.get("PLUMBLINE_TEST_KAFKA", "memory"))


def free_http_port() -> int:
    """A port whose derived ports are free too."""
    for _ in range(200):
        port = 12_000 + secrets.randbelow(18_000)
        with suppress(StackError):
            for offset in (0, *range(100, 106), *range(1000, 1006)):
                require_free_port(port + offset, owner="a test", setting="chosen")
            return port
    raise AssertionError("no free ports between 12000 and 31000: end what holds them")


def eventually(look: Callable[[], Any], what: str, timeout_s: float = 30.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.05)
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def ready(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(url + "/health/ready", timeout=2).status_code == 200
    return False


def command_line(home: Path, port: int, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PLUMBLINE_HOME": str(home), "HTTP_PORT": str(port), "OPS_PORT": str(port + 1000)}
    return subprocess.run(
        [sys.executable, "-m", "service", *words], env=env, cwd=state.ROOT, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("stack") / "home"
    yield folder
    assert run_reset(folder) == 0


@pytest.fixture(scope="module")
def stack(home: Path) -> Iterator[dict[str, Any]]:
    with running_stack(home, free_http_port(), kafka=BROKER) as parsed:
        yield parsed
        pids = [process["pid"] for process in state.read_stack(home)["processes"]]
        assert all(alive(pid) for pid in pids)
    assert not any(alive(pid) for pid in pids), "the end leaves no process"
    assert not (home / "stack.json").exists()


def of_role(home: Path, role: str) -> dict[str, Any]:
    return next(process for process in state.read_stack(home)["processes"] if process["role"] == role)


def test_stack_json_names_every_process_and_url(stack: dict[str, Any]) -> None:
    assert set(stack["urls"]) == {"api", "ops", "database", "redis", "kafka", "psp", "issuer"}
    assert {process["role"] for process in stack["processes"]} == SERVERS | SERVICE
    assert stack["broker"] == BROKER or BROKER == "auto"
    for process in stack["processes"]:
        assert (process["ops_url"] is not None) == (process["role"] in SERVICE)
        assert process["ops_url"] is None or ready(process["ops_url"]), process


@pytest.mark.parametrize(
    "role", [*(pytest.param(role, marks=pytest.mark.broker) for role in ("worker", "kafka", "relay")), "api", "psp", "redis", "postgres", "issuer"]
)
def test_a_killed_process_comes_back_and_orders_are_paid_again(stack: dict[str, Any], home: Path, role: str) -> None:
    killed = of_role(home, role)
    os.kill(killed["pid"], signal.SIGKILL)
    replaced = eventually(lambda: (found := of_role(home, role))["pid"] != killed["pid"] and found, f"{role} replaced")
    assert alive(replaced["pid"])
    if replaced["ops_url"]:
        eventually(lambda: ready(replaced["ops_url"]), f"{role} ready")

    def paid() -> bool:
        with suppress(selfcheck.SelfCheckError):
            return selfcheck.place_and_pay(stack["urls"], home) > 0
        return False

    eventually(paid, f"an order paid after {role} was killed", timeout_s=60)
    log = (home / "logs" / "up.log").read_text()
    assert f"! {killed['name']} (pid {killed['pid']}) ended, killed by SIGKILL" in log


@pytest.mark.memory_broker  # a real one keeps its records: it never starts empty
def test_an_empty_broker_is_filled_with_what_is_missing_anywhere(stack: dict[str, Any], home: Path) -> None:
    database = EmbeddedPostgres(home, int(stack["urls"]["database"].rsplit(":", 1)[1].split("/")[0]))

    def ask(query: str) -> str:
        return database.run("psql", "-XAtqc", query).strip()

    selfcheck.place_and_pay(stack["urls"], home)
    unfinished = "SELECT count(*) FROM orders WHERE status IN ('placed', 'reserved')"
    eventually(lambda: ask(unfinished) == "0", "every order has ended")
    eventually(lambda: ask("SELECT count(*) FROM outbox") == "0", "every event is with the broker")
    missing = "order_timeline WHERE type = 'order.paid'"
    eventually(lambda: ask(f"SELECT count(*) > 0 FROM {missing}") == "t", "the timeline knows it")
    before = int(ask(f"SELECT count(*) FROM {missing}"))
    ask(f"DELETE FROM {missing}")  # as if the broker had died before that group read them
    killed = of_role(home, "kafka")["pid"]
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: int(ask(f"SELECT count(*) FROM {missing}")) >= before, "the group heard of them again", timeout_s=60)
    eventually(lambda: of_role(home, "kafka")["pid"] != killed, "the broker's successor is named")


def test_the_providers_dials_are_turned_again_after_its_restart(stack: dict[str, Any], home: Path) -> None:
    dials = stack["urls"]["psp"] + "/dials"
    assert httpx.get(dials).json()["magic_totals"] is True
    killed = of_role(home, "psp")["pid"]
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: of_role(home, "psp")["pid"] != killed, "provider replaced")
    assert httpx.get(dials).json()["magic_totals"] is True


@pytest.mark.broker
def test_a_silent_broker_delays_an_order_and_loses_none(stack: dict[str, Any], home: Path) -> None:
    broker = of_role(home, "kafka")["pid"]
    os.kill(broker, signal.SIGSTOP)
    try:
        with pytest.raises(selfcheck.SelfCheckError, match=r"order .* is placed"):
            selfcheck.place_and_pay(stack["urls"], home, timeout_s=1)
    finally:
        os.kill(broker, signal.SIGCONT)
    token = mint(home, sub="self-check", role="customer", issuer=stack["urls"]["issuer"])

    def newest() -> str:
        answer = httpx.get(stack["urls"]["api"] + "/v1/orders?limit=1", headers={"Authorization": f"Bearer {token}"})
        return str(answer.json()["items"][0]["status"])

    eventually(lambda: newest() == "paid", "the delayed order paid", timeout_s=60)


def test_the_env_file_gives_a_shell_all_it_needs(stack: dict[str, Any], home: Path) -> None:
    program = f'. {home}/env && . {home}/env && echo "$API $OPS $PSP $TOKEN $ADMIN $DATABASE_URL" && echo "$PATH" | tr : "\\n" | sort | uniq -d'
    done = subprocess.run(["sh", "-ec", program], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    words, *twice = done.stdout.splitlines()
    api, ops, psp, token, admin, database = words.split()
    urls = stack["urls"]
    assert (api, ops, psp, database) == (urls["api"], urls["ops"], urls["psp"], urls["database"])
    assert not twice, "sourcing it twice adds the path once"
    for bearer, role in ((token, "customer"), (admin, "admin")):
        assert jwt.decode(bearer, options={"verify_signature": False})["role"] == role
        assert httpx.get(api + "/v1/products", headers={"Authorization": f"Bearer {bearer}"}).status_code == 200
    assert (home / "env").stat().st_mode & 0o077 == 0


def test_a_second_stack_in_the_same_folder_is_refused(stack: dict[str, Any], home: Path) -> None:
    done = command_line(home, free_http_port(), "up")
    assert done.returncode == 2
    assert "already runs" in done.stderr
    assert "plumbline down" in done.stderr
    assert ready(stack["urls"]["ops"]), "and leaves the first alone"


def test_a_taken_port_is_one_sentence_and_starts_nothing(tmp_path: Path) -> None:
    port = free_http_port()
    with socket.create_server(("127.0.0.1", port + 103)):
        done = command_line(tmp_path / "home", port, "up", "--kafka", "memory")
    assert done.returncode == 2
    assert done.stderr.startswith(f"plumbline: port {port + 103} of the issuer (HTTP_PORT + 103) cannot be had")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "home" / "logs" / "postgres.log").exists()


@pytest.mark.alone  # two whole stacks, one after the other
def test_a_killed_supervisor_leaves_nothing_and_its_lock_is_taken_over(tmp_path: Path) -> None:
    home, port = tmp_path / "home", free_http_port()
    copy_template(home, port=port + 100)
    try:
        done = command_line(home, port, "up", "--kafka", "memory", "--only", "deps", "--detach")
        assert done.returncode == 0, done.stderr + done.stdout
        pids = [process["pid"] for process in state.read_stack(home)["processes"]]
        assert len(pids) == len(SERVERS)
        assert all(alive(pid) for pid in pids)
        database = EmbeddedPostgres(home, port + 100)
        database.run("psql", "-Xqc", "CREATE TABLE kept ()")
        os.kill(int((home / "up.lock").read_text()), signal.SIGKILL)
        eventually(lambda: not any(alive(pid) for pid in pids), "children gone with their parent", timeout_s=10)
        done = command_line(home, port, "up", "--kafka", "memory", "--only", "deps", "--detach")
        assert done.returncode == 0, done.stderr + done.stdout
        assert "was killed; its lock is taken over" in done.stdout
        assert f"ready http://127.0.0.1:{port}\n" in done.stdout
        assert database.run("psql", "-XAtqc", "SELECT to_regclass('kept')").strip() == "kept"
        pids = [process["pid"] for process in state.read_stack(home)["processes"]]
        assert command_line(home, port, "down").returncode == 0
        assert not any(alive(pid) for pid in pids)
        assert "no stack runs" in command_line(home, port, "down").stdout
        key = (home / "issuer.pem").read_bytes()
        done = command_line(home, port, "up", "--kafka", "memory", "--only", "deps", "--detach", "--fresh")
        assert done.returncode == 0, done.stderr + done.stdout
        assert database.run("psql", "-XAtqc", "SELECT to_regclass('kept')").strip() == ""
        assert (home / "issuer.pem").read_bytes() == key, "tokens in use stay good"
    finally:
        data = EmbeddedPostgres(home, port).folder
        assert command_line(home, port, "reset").returncode == 0
    assert not home.exists()
    assert not data.exists()


@pytest.mark.parametrize(
    ("problem", "code"), [(selfcheck.SelfCheckError("order stuck"), 1), (StackError("no wheel: run `make setup`"), 2), (KeyboardInterrupt(), 0)]
)
def test_exit_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], problem: BaseException, code: int) -> None:
    def fail(_: UpOptions) -> int:
        raise problem

    monkeypatch.setattr(stack_module, "_run", fail)
    assert run_up(UpOptions(home=tmp_path)) == code
    assert capsys.readouterr().err == (f"plumbline: {problem}\n" if code else "")


def test_reload_restarts_the_service_once_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "service" / "orders.sql"
    for folder in ("service", "workers"):
        (tmp_path / folder).mkdir()
    source.write_text("SELECT 1")
    monkeypatch.setattr(state, "ROOT", tmp_path)
    restarts: list[int] = []
    supervisor = Supervisor(print)
    monkeypatch.setattr(supervisor, "restart", lambda children: restarts.append(len(list(children))))
    look = bringup.BringUp(UpOptions(home=tmp_path), supervisor).reloader()
    look()
    assert restarts == []
    os.utime(source, (time.time() + 5, time.time() + 5))
    look()
    look()
    assert len(restarts) == 1
