"""HAProxy itself, on loopback: what a delivered configuration does with requests, checks and reloads."""

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio
from hasite.plan.proxies import ALIVE_PATH, Check, ProxyModel, Upstream
from hasite.plan.world import ProxyView
from hasite.proxies.base import Delivered, Rejected
from hasite.proxies.haproxy import HaproxyProxy
from hasite.proxies.haproxy_render import Layout

from tests.contract.local_machine import LocalSession, install_systemctl
from tests.contract.sshd import free_port
from tests.contract.web import App, eventually, fetch

pytestmark = [
    pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="HAProxy changes its user"),
]

HOSTS = {"a": "127.0.1.1", "b": "127.0.1.2", "c": "127.0.1.3"}


@dataclass
class Lab:
    proxy: HaproxyProxy
    session: LocalSession
    apps: dict[str, App]
    app_port: int

    @property
    def port(self) -> int:
        return self.proxy.layout.port

    def model(self, peers: tuple[str, ...] = (), **states: str) -> ProxyModel:
        """Upstreams by state, for example ``a="Active"``; a state that ends with "+" is of a backup."""
        upstreams = tuple(
            Upstream(name, HOSTS[name], state.rstrip("+"), state.endswith("+"))  # type: ignore[arg-type]
            for name, state in states.items()
        )
        check = Check("/healthz", 0.25, 0.2, 2, 2)
        return ProxyModel("lb", "ams", "shop.example.com", self.app_port, upstreams, check, peers, 0.25, 0.2, 5.0)

    async def deliver(self, peers: tuple[str, ...] = (), **states: str) -> Delivered | Rejected:
        return await self.proxy.deliver(self.session, self.proxy.render(self.model(peers, **states)))

    async def serving(self, peers: tuple[str, ...] = (), **states: str) -> ProxyView:
        """Delivered, and every server that is healthy is up."""
        assert await self.deliver(peers, **states) == Delivered()
        await eventually(lambda: self.sees(*(name for name in states if self.apps[name].healthy)))
        return await self.observe()

    async def sees(self, *names: str) -> bool:
        view = await self.observe()
        return {name for name, server in view.servers.items() if server.up} == set(names)

    async def observe(self) -> ProxyView:
        return await self.proxy.observe(self.session)

    async def sees_peers(self, expected: dict[str, bool]) -> bool:
        return (await self.observe()).peers == expected

    async def observe_sessions(self, name: str, count: int) -> bool:
        return (await self.observe()).servers[name].sessions == count

    async def has_old_processes(self, count: int) -> bool:
        return (await self.observe()).old_processes == count

    async def answers(self) -> bool:
        return (await self.observe()).active

    async def who(self, times: int = 20) -> set[str]:
        """The bodies of ``times`` requests, every one of which must be answered."""
        answers = [await fetch(self.port) for _ in range(times)]
        assert {status for status, _ in answers} == {200}
        return {body for _, body in answers}

    async def alive(self) -> int:
        return (await fetch(self.port, ALIVE_PATH))[0]


@pytest_asyncio.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    layout = Layout(
        config=f"{tmp_path}/haproxy.cfg",
        socket=f"{tmp_path}/admin.sock",
        states=f"{tmp_path}/states",
        bind_host="127.0.0.1",
        port=free_port(),
    )
    install_systemctl(tmp_path / "tools", tmp_path / "state", layout.config)
    async with AsyncExitStack() as stack:
        port = free_port()
        apps = {name: await stack.enter_async_context(App(name, host, port)) for name, host in HOSTS.items()}
        made = Lab(HaproxyProxy(layout), LocalSession(tmp_path / "tools"), apps, port)
        yield made
        await made.session.systemctl("kill", "haproxy")


async def test_the_first_delivery_enables_and_starts_it(lab: Lab) -> None:
    nothing = await lab.observe()
    assert (nothing.installed, nothing.active, nothing.enabled, nothing.config_sha256) == (True, False, False, None)
    view = await lab.serving(a="Active", b="Active")
    assert (view.active, view.enabled, view.old_processes) == (True, True, 0)
    assert await lab.who() == {"a", "b"}


async def test_the_hash_in_force_is_that_of_the_rendered_configuration(lab: Lab) -> None:
    view = await lab.serving(a="Active")
    assert view.config_sha256 == hashlib.sha256(lab.proxy.render(lab.model(a="Active"))).hexdigest()


async def test_a_candidate_is_checked_and_gets_no_request(lab: Lab) -> None:
    view = await lab.serving(a="Active", b="Candidate")
    assert view.servers["b"].up
    assert await lab.who() == {"a"}
    assert lab.apps["b"].checked > 0
    assert lab.apps["b"].served == 0


async def test_a_draining_server_gets_no_new_request(lab: Lab) -> None:
    await lab.serving(a="Active", b="Active")
    view = await lab.serving(a="Active", b="Draining")
    assert view.servers["b"].up
    assert await lab.who() == {"a"}


async def test_a_server_that_drains_can_be_taken_back(lab: Lab) -> None:
    await lab.serving(a="Active", b="Draining")
    await lab.serving(a="Active", b="Active")
    assert await lab.who() == {"a", "b"}


async def test_a_draining_server_shows_its_requests_in_flight_until_they_end(lab: Lab) -> None:
    await lab.serving(a="Active")
    lab.apps["a"].gate = asyncio.Event()
    request = asyncio.create_task(fetch(lab.port))
    await eventually(lambda: lab.observe_sessions("a", 1))
    lab.apps["a"].gate.set()
    assert await request == (200, "a")
    await eventually(lambda: lab.observe_sessions("a", 0))


async def test_a_backup_gets_requests_only_when_no_other_can(lab: Lab) -> None:
    await lab.serving(a="Active", b="Active+", c="Active+")
    assert await lab.who() == {"a"}
    lab.apps["a"].healthy = False
    await eventually(lambda: lab.sees("b", "c"))
    assert await lab.who() == {"b", "c"}


async def test_the_alive_path_follows_the_active_servers_alone(lab: Lab) -> None:
    await lab.serving(a="Active", b="Candidate", c="Draining")
    assert await lab.alive() == 200
    lab.apps["a"].healthy = False
    await eventually(lambda: lab.sees("b", "c"))
    assert await lab.alive() == 503
    assert lab.apps["a"].served == lab.apps["b"].served == lab.apps["c"].served == 0


async def test_a_server_that_no_check_has_seen_is_not_alive(lab: Lab) -> None:
    lab.apps["a"].healthy = False
    assert await lab.deliver(a="Active") == Delivered()
    assert await lab.alive() == 503
    assert not (await lab.observe()).servers["a"].up


async def test_a_reload_keeps_what_is_known_of_the_servers(lab: Lab) -> None:
    lab.apps["b"].healthy = False
    await lab.serving(a="Active", b="Active")
    assert await lab.deliver(a="Active", b="Active", c="Candidate") == Delivered()
    view = await lab.observe()
    assert view.servers["a"].up
    assert not view.servers["b"].up
    assert await lab.who() == {"a"}


async def test_a_candidate_that_was_up_serves_at_once_when_it_becomes_active(lab: Lab) -> None:
    await lab.serving(a="Candidate")
    assert await lab.alive() == 503
    assert await lab.deliver(a="Active") == Delivered()
    assert await lab.alive() == 200


async def test_no_request_fails_while_configurations_change(lab: Lab) -> None:
    await lab.serving(a="Active", b="Active")
    done = asyncio.Event()
    statuses: list[int] = []

    async def visit() -> None:
        while not done.is_set():
            statuses.append((await fetch(lab.port))[0])

    visitors = [asyncio.create_task(visit()) for _ in range(4)]
    for states in ({"a": "Active", "b": "Draining"}, {"a": "Active", "c": "Candidate"}, {"a": "Active", "c": "Active"}):
        assert await lab.deliver(**states) == Delivered()  # type: ignore[arg-type]
    done.set()
    await asyncio.gather(*visitors)
    assert len(statuses) > 100
    assert set(statuses) == {200}


async def test_an_old_process_ends_what_it_had(lab: Lab) -> None:
    await lab.serving(a="Active")
    lab.apps["a"].gate = asyncio.Event()
    request = asyncio.create_task(fetch(lab.port))
    await eventually(lambda: lab.observe_sessions("a", 1))
    assert await lab.deliver(a="Active", b="Active") == Delivered()
    assert (await lab.observe()).old_processes == 1
    lab.apps["a"].gate.set()
    assert await request == (200, "a")
    await eventually(lambda: lab.has_old_processes(0))


async def test_peers_are_probed_and_get_no_request(lab: Lab) -> None:
    async with App("peer", "127.0.0.2", lab.port) as peer:
        await lab.serving(peers=("127.0.0.2", "127.0.0.3"), a="Active")
        await eventually(lambda: lab.sees_peers({"127.0.0.2": True, "127.0.0.3": False}))
        peer.healthy = False
        await eventually(lambda: lab.sees_peers({"127.0.0.2": False, "127.0.0.3": False}))
        await lab.who()
        assert peer.served == 0
        assert peer.checked > 0


async def test_a_get_that_was_cut_off_is_repeated_elsewhere(lab: Lab) -> None:
    await lab.serving(a="Active", b="Active")
    lab.apps["a"].hang_up = True
    assert await lab.who() == {"b"}
    assert lab.apps["a"].served > 0


async def test_a_post_that_was_cut_off_is_not_repeated(lab: Lab) -> None:
    await lab.serving(a="Active", b="Active")
    lab.apps["a"].hang_up = lab.apps["b"].hang_up = True
    status, _ = await fetch(lab.port, method="POST")
    assert status == 502
    assert lab.apps["a"].served + lab.apps["b"].served == 1


async def test_a_post_to_a_server_that_refuses_connections_goes_elsewhere(lab: Lab) -> None:
    await lab.serving(a="Active", b="Active")
    await lab.apps["a"].stop()
    assert {(await fetch(lab.port, method="POST")) for _ in range(6)} == {(200, "b")}


async def test_the_app_learns_the_visitors_address_and_protocol(lab: Lab) -> None:
    await lab.serving(a="Active")
    await lab.who(1)
    headers = {line.lower() for line in lab.apps["a"].headers}
    assert {"x-forwarded-for: 127.0.0.1", "x-forwarded-proto: http"} <= headers


async def test_a_configuration_that_its_check_refuses_changes_nothing(lab: Lab) -> None:
    before = await lab.serving(a="Active")
    bad = lab.proxy.render(lab.model(a="Active")).replace(b"balance roundrobin", b"nonsense here")
    refused = await lab.proxy.deliver(lab.session, bad)
    assert isinstance(refused, Rejected)
    assert refused.stage == "check"
    assert "nonsense" in refused.words
    after = await lab.observe()
    assert (after.config_sha256, after.active) == (before.config_sha256, True)
    assert await lab.who() == {"a"}


async def test_a_start_that_fails_brings_the_old_file_back(lab: Lab) -> None:
    await lab.serving(a="Active")
    before = await lab.session.read(lab.proxy.layout.config)
    await lab.session.systemctl("stop", "haproxy")
    async with App("other", "127.0.0.1", lab.port):
        refused = await lab.deliver(b="Active")
    assert isinstance(refused, Rejected)
    assert refused.stage == "reload"
    assert "Address already in use" in refused.words
    assert await lab.session.read(lab.proxy.layout.config) == before


async def test_a_file_that_was_edited_is_not_in_force_until_it_is_delivered_again(lab: Lab) -> None:
    await lab.serving(a="Active")
    config = lab.proxy.render(lab.model(a="Active"))
    await lab.session.write(lab.proxy.layout.config, config + b"# mine\n")
    assert (await lab.observe()).config_sha256 is None
    assert await lab.deliver(a="Active") == Delivered()
    assert (await lab.observe()).config_sha256 is not None


async def test_a_file_that_was_edited_loaded_and_put_back_is_not_in_force(lab: Lab) -> None:
    await lab.serving(a="Active")
    config = lab.proxy.render(lab.model(a="Active"))
    await lab.session.write(lab.proxy.layout.config, config.replace(b"retries 3", b"retries 2"))
    await lab.session.systemctl("stop", "haproxy")
    await lab.session.systemctl("start", "haproxy")
    await eventually(lab.answers)
    await lab.session.write(lab.proxy.layout.config, config)
    assert (await lab.observe()).config_sha256 is None


@pytest.mark.parametrize("damage", ["stop", "kill", "disable"])
async def test_what_was_stopped_or_disabled_is_seen_and_healed(lab: Lab, damage: str) -> None:
    await lab.serving(a="Active")
    await lab.session.systemctl(damage, "haproxy")
    view = await lab.observe()
    assert not (view.active and view.enabled)
    assert await lab.deliver(a="Active") == Delivered()
    view = await lab.observe()
    assert view.active
    assert view.enabled
    await eventually(lambda: lab.sees("a"))
    assert await lab.who() == {"a"}


async def test_health_sees_servers_anew_and_keeps_the_rest(lab: Lab) -> None:
    last = await lab.serving(a="Active")
    runs = len(lab.session.runs)
    lab.apps["a"].healthy = False

    async def seen_down() -> bool:
        return not (await lab.proxy.health(lab.session, last)).servers["a"].up

    await eventually(seen_down)
    assert (await lab.proxy.health(lab.session, last)).config_sha256 == last.config_sha256
    assert len(lab.session.runs) == runs


async def test_health_of_a_stopped_proxy_is_not_active(lab: Lab) -> None:
    last = await lab.serving(a="Active")
    await lab.session.systemctl("stop", "haproxy")
    assert await lab.proxy.health(lab.session, last) == replace(last, active=False, servers={}, peers={}, sessions=0)
