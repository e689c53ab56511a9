"""What is written into a HAProxy configuration, and what never can be."""

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hasite.api import LoadBalancerPool
from hasite.errors import Permanent, Transient
from hasite.machines.base import Result
from hasite.plan.proxies import Check, ProxyModel, Upstream
from hasite.proxies import ENGINES
from hasite.proxies.base import Rejected
from hasite.proxies.haproxy import HaproxyProxy
from hasite.proxies.haproxy_render import MAX_UPSTREAMS, mark_of, render
from hasite.proxies.haproxy_states import carried_states
from hasite.proxies.haproxy_stats import parse_statistics
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.local_machine import LocalSession
from tests.golden import assert_golden
from tools.crds import root_schema

State = Literal["Candidate", "Active", "Draining"]

MODEL = ProxyModel(
    name="shop-lb-ams-1",
    location="amsterdam",
    domain="shop.example.com",
    port=8080,
    upstreams=(
        Upstream("shop-app-nyc-2", "203.0.113.12", "Active", backup=True),
        Upstream("shop-app-ams-1", "198.18.0.11", "Active"),
        Upstream("shop-app-ams-2", "198.18.0.12", "Draining"),
        Upstream("shop-app-ams-3", "2001:db8::13", "Candidate"),
    ),
    check=Check("/healthz?full=1", 2.0, 1.0, 2, 2),
    peers=("203.0.113.80", "2001:db8:1::80"),
    probe_interval=1.0,
    probe_timeout=0.5,
    drain_seconds=30.0,
)
EMPTY = replace(MODEL, upstreams=(), peers=())


def upstreams(count: int) -> tuple[Upstream, ...]:
    states: tuple[State, ...] = ("Active", "Active", "Candidate", "Draining")
    return tuple(Upstream(f"app-{n}", f"198.18.{n // 250}.{n % 250}", states[n % 4]) for n in range(count))


@pytest.mark.parametrize(("name", "model"), [("haproxy-full.cfg", MODEL), ("haproxy-empty.cfg", EMPTY)])
def test_a_configuration_is_as_reviewed(name: str, model: ProxyModel) -> None:
    assert_golden(name, render(model).decode())


def test_the_order_of_upstreams_and_peers_does_not_matter() -> None:
    turned = replace(MODEL, upstreams=MODEL.upstreams[::-1], peers=MODEL.peers[::-1])
    assert render(turned) == render(MODEL)


def test_every_change_of_the_configuration_changes_its_mark() -> None:
    models = [MODEL, EMPTY, replace(MODEL, drain_seconds=31), replace(MODEL, domain="b.example.com")]
    assert len({mark_of(render(model)) for model in models}) == len(models)


def test_the_mark_of_a_foreign_file_is_none() -> None:
    assert mark_of(b"global\n    description something\n") is None


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")
@pytest.mark.parametrize(
    "model",
    [MODEL, EMPTY, replace(MODEL, upstreams=upstreams(500))],
    ids=["full", "empty", "as many servers as a pool may name"],
)
def test_haproxy_itself_accepts_it(tmp_path: Path, model: ProxyModel) -> None:
    path = tmp_path / "haproxy.cfg"
    path.write_bytes(render(model))
    done = subprocess.run(["haproxy", "-c", "-f", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if "[WARNING]" in line and "state file" not in line]
    assert warnings == []


@pytest.mark.parametrize(
    "model",
    [
        replace(MODEL, domain="shop.example.com\n    bind :81"),
        replace(MODEL, domain="Shop.example.com"),
        replace(MODEL, domain=""),
        replace(MODEL, name="a b"),
        replace(MODEL, location="x#y"),
        replace(MODEL, port=0),
        replace(MODEL, port=65536),
        replace(MODEL, check=replace(MODEL.check, path="/a b")),
        replace(MODEL, check=replace(MODEL.check, path="healthz")),
        replace(MODEL, check=replace(MODEL.check, path='/"')),
        replace(MODEL, check=replace(MODEL.check, path="/\n")),
        replace(MODEL, check=replace(MODEL.check, interval=float("nan"))),
        replace(MODEL, check=replace(MODEL.check, interval=-1.0)),
        replace(MODEL, check=replace(MODEL.check, rise=0)),
        replace(MODEL, peers=("203.0.113.80 weight 3",)),
        replace(MODEL, peers=("fe80::1%eth0",)),
        replace(MODEL, peers=("203.0.113.80", "203.0.113.80")),
        replace(MODEL, upstreams=(Upstream("a", "example.com", "Active"),)),
        replace(MODEL, upstreams=(Upstream("a", "192.0.2.1", "Active"), Upstream("a", "192.0.2.2", "Candidate"))),
        replace(MODEL, upstreams=upstreams(501)),
        replace(MODEL, probe_timeout=float("inf")),
    ],
)
def test_a_value_that_cannot_be_written_safely_is_refused(model: ProxyModel) -> None:
    with pytest.raises(Permanent) as raised:
        render(model)
    assert raised.value.reason == "UnsafeValue"


def skeleton(config: bytes) -> list[str]:
    """The first word of every line."""
    return [line.split()[0] if line.split() else "" for line in config.decode().splitlines()]


NASTY = st.text(max_size=40) | st.text(alphabet="\n\r\t #\"'\\$%{}[]();:/.-abc019", max_size=40)


@given(
    text=NASTY,
    place=st.sampled_from(["name", "location", "domain", "path", "peer", "upstream", "address"]),
)
def test_no_string_breaks_out_of_its_place(text: str, place: str) -> None:
    changes: dict[str, dict[str, Any]] = {
        "name": {"name": text},
        "location": {"location": text},
        "domain": {"domain": text},
        "path": {"check": replace(MODEL.check, path=f"/{text}")},
        "peer": {"peers": (text, "192.0.2.1")},
        "upstream": {"upstreams": (Upstream(text, "192.0.2.1", "Active"), *MODEL.upstreams[1:])},
        "address": {"upstreams": (Upstream("x", text, "Active"), *MODEL.upstreams[1:])},
    }
    try:
        config = render(replace(MODEL, **changes[place]))
    except Permanent as error:
        assert error.reason == "UnsafeValue"
        return
    without_backup = [line for line in skeleton(render(MODEL)) if line]
    assert sorted(set(skeleton(config))) in (sorted(set(skeleton(render(MODEL)))), sorted({*without_backup, ""}))
    assert config.isascii()
    assert not re.search(
        rb"[\"'\\$#]",
        b"\n".join(config.split(b"\n")[2:]).replace(b'"alive\\n"', b"").replace(b'"no server is up\\n"', b""),
    )


LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
ADDRESS = st.ip_addresses().map(str).filter(lambda address: "%" not in address)


@st.composite
def models(draw: st.DrawFn) -> ProxyModel:
    """What the schema of the resources lets through."""
    names = draw(st.lists(LABEL, max_size=6, unique=True))
    states: st.SearchStrategy[State] = st.sampled_from(["Candidate", "Active", "Draining"])
    path = "/" + draw(st.text(alphabet="abzAZ09._~!&*+,=:@%/?-", max_size=60))
    return replace(
        MODEL,
        name=draw(LABEL),
        domain=".".join(draw(st.lists(LABEL, min_size=1, max_size=4))),
        port=draw(st.integers(1, 65535)),
        upstreams=tuple(Upstream(name, draw(ADDRESS), draw(states), draw(st.booleans())) for name in names),
        peers=tuple(draw(st.lists(ADDRESS, max_size=4, unique=True))),
        check=Check(path, draw(st.floats(0.25, 60)), draw(st.floats(0.1, 60)), draw(st.integers(1, 20)), 2),
    )


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")
@settings(max_examples=25, deadline=None)
@given(models())
def test_haproxy_accepts_whatever_the_schema_lets_through(model: ProxyModel) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(render(model))
        file.flush()
        done = subprocess.run(["haproxy", "-c", "-f", file.name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_new_server_starts_down_and_a_new_peer_starts_unjudged() -> None:
    lines = carried_states("", render(MODEL)).decode().splitlines()
    states = {line.split()[3]: line.split()[5] for line in lines[1:]}
    assert states["shop-app-ams-1"] == "0"
    assert states["peer-203-0-113-80"] == "2"


@pytest.mark.parametrize(
    ("address", "state"),
    [("198.18.0.11", "2"), ("198.18.0.99", "0")],
    ids=["the same machine keeps its state", "another machine of the same name is new"],
)
def test_a_known_server_keeps_its_state_when_it_moves(address: str, state: str) -> None:
    running = f"1\n# be_id ...\n4 candidates 1 shop-app-ams-1 {address} 2 0 1 1 4 15 3 3 6 0 0 0 - 8080 - 0 0 - - 0\n"
    lines = carried_states(running, render(MODEL)).decode().splitlines()
    moved = next(line.split() for line in lines if " shop-app-ams-1 " in line)
    assert (moved[1], moved[5]) == ("app", state)


def test_the_limit_of_servers_is_that_of_the_pools_schema() -> None:
    most = root_schema(LoadBalancerPool)["properties"]["spec"]["properties"]["backends"]["properties"]["servers"]
    assert most["maxItems"] == MAX_UPSTREAMS


def test_statistics_that_are_cut_off_are_empty() -> None:
    assert parse_statistics("").servers == {}


HEAD = "# pxname,svname,qcur,scur,status,check_status,addr\n"


@pytest.mark.parametrize(
    "table",
    [
        f"{HEAD}app,a,0,many,UP,L7OK,192.0.2.1:80\n",
        f"{HEAD}app,a,-1,0,UP,L7OK,192.0.2.1:80\n",
        f"{HEAD}app,a,0,{'9' * 30},UP,L7OK,192.0.2.1:80\n",
        f"{HEAD}app,a,0,{'9' * 5000},UP,L7OK,192.0.2.1:80\n",
        f"{HEAD}web,FRONTEND,,x,OPEN,,\n",
        "# pxname,status\napp,UP\n",
        f'{HEAD}app,"{"a" * 200_000}",0,0,UP,L7OK,192.0.2.1:80\n',
    ],
    ids=["a word", "negative", "huge", "longer than Python reads", "a frontend's word", "no columns", "a huge field"],
)
def test_statistics_that_cannot_be_read_are_transient(table: str) -> None:
    with pytest.raises(Transient, match="the statistics of HAProxy could not be read"):
        parse_statistics(table)


FACTS = {
    "mark": "hasite-0",
    "changed": "1.0",
    "now": "100.0",
    "uptime": "50.0",
    "process": "7 (haproxy) S 1 " + "0 " * 17 + "0 0",
}


@dataclass
class Lying(LocalSession):
    """A machine that answers ``facts`` to every command, and ``words`` on HAProxy's socket."""

    facts: dict[str, str] = field(default_factory=lambda: FACTS)
    words: str = "Pid: 7\ndescription: hasite-0\n"
    status: int = 0
    stderr: str = ""

    async def run(self, command: str, *, stdin: bytes = b"", timeout: float = 10.0) -> Result:  # noqa: ASYNC109
        return Result(self.status, "\n".join(f"{key}={value}" for key, value in self.facts.items()), self.stderr)

    async def unix_request(self, path: str, request: bytes, *, timeout: float = 2.0) -> bytes:  # noqa: ASYNC109
        return self.words.encode()


async def test_a_machine_that_tells_the_truth_is_observed(tmp_path: Path) -> None:
    assert (await HaproxyProxy().observe(Lying(tmp_path))).active is False


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"now": "noon"}, "Pid: 7\n"),
        ({"changed": "x"}, "Pid: 7\ndescription: hasite-0\n"),
        ({"process": "x (haproxy) S 1"}, ""),
        ({"process": "7 (haproxy) S"}, ""),
        ({"process": "7 (haproxy) S 1 " + "0 " * 17 + "9" * 400}, ""),
        ({}, "Pid: none\n"),
        ({}, f"Pid: {'9' * 5000}\n"),
        ({}, f"{HEAD}app,a,0,many,UP,L7OK,192.0.2.1:80\n"),
    ],
)
async def test_a_machine_that_says_nonsense_is_transient(facts: dict[str, str], words: str, tmp_path: Path) -> None:
    with pytest.raises(Transient, match="could not be read"):
        await HaproxyProxy().observe(Lying(tmp_path, facts=FACTS | facts, words=words))


async def test_nonsense_on_the_socket_is_transient_and_not_an_inactive_proxy(tmp_path: Path) -> None:
    last = await HaproxyProxy().observe(Lying(tmp_path))
    with pytest.raises(Transient, match="could not be read"):
        await HaproxyProxy().health(Lying(tmp_path, words=f"{HEAD}app,a,0,many,UP,L7OK,x\n"), last)


async def test_the_words_of_a_refusal_cannot_move_a_terminal(tmp_path: Path) -> None:
    session = Lying(tmp_path, facts={"check": ""}, status=1, stderr="[ALERT] (1) : bad\x1b[2J\x9b1m\u202eline\r\n")
    refused = await HaproxyProxy().deliver(session, b"")
    assert refused == Rejected("write", "bad[2J1mline")


def test_haproxy_is_registered() -> None:
    assert ENGINES["haproxy"]().packages == ("haproxy",)
