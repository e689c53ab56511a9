"""What every ``Proxy`` does, as the plan sees it: HAProxy itself, and the fake that the fast tests trust."""

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import pytest_asyncio
from hasite.errors import Permanent
from hasite.plan.world import ServerView
from hasite.proxies.base import Delivered, Rejected

from tests.contract.haproxy_lab import HOSTS, Bench, haproxy_lab
from tests.contract.web import eventually
from tests.fakes.machines import FakeMachine, FakeProxy, FakeSession, FakeWorld

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="HAProxy changes its user")


@dataclass
class FakeBench(Bench):
    world: FakeWorld = field(default_factory=FakeWorld)
    machine: FakeMachine = field(default_factory=lambda: FakeMachine("lb", "192.0.2.1"))

    async def break_health(self, name: str) -> None:
        await super().break_health(name)
        self.world.healthy.discard(HOSTS[name])

    async def systemctl(self, verb: str) -> None:
        if verb == "disable":
            self.machine.enabled = False
        else:
            self.machine.active = False

    async def edit_file(self, extra: bytes) -> None:
        self.machine.config = (self.machine.config or b"") + extra

    async def spoil(self) -> Rejected | Delivered:
        self.machine.refuses = "unknown keyword 'nonsense'"
        try:
            return await self.deliver(a="Active")
        finally:
            self.machine.refuses = None


@asynccontextmanager
async def fake_lab() -> AsyncIterator[Bench]:
    world = FakeWorld(healthy=set(HOSTS.values()))
    machine = world.add(FakeMachine("lb", "192.0.2.1"))
    yield FakeBench(FakeProxy(), FakeSession(world, machine), world=world, machine=machine)


@pytest_asyncio.fixture(params=["haproxy", "fake"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    async with haproxy_lab(tmp_path) if request.param == "haproxy" else fake_lab() as made:
        yield made


async def test_before_the_first_delivery_nothing_runs(bench: Bench) -> None:
    view = await bench.observe()
    assert (view.installed, view.active, view.enabled, view.config_sha256) == (True, False, False, None)
    assert (view.servers, view.peers) == ({}, {})


async def test_a_delivery_enables_and_starts_it_with_the_rendered_configuration(bench: Bench) -> None:
    view = await bench.serving(a="Active", b="Candidate", c="Draining")
    rendered = bench.proxy.render(bench.model(a="Active", b="Candidate", c="Draining"))
    assert (view.active, view.enabled, view.old_processes) == (True, True, 0)
    assert view.config_sha256 == hashlib.sha256(rendered).hexdigest()
    assert view.servers == {name: ServerView(True, 0) for name in "abc"}


async def test_a_server_that_fails_its_checks_is_down(bench: Bench) -> None:
    last = await bench.serving(a="Active", b="Active")
    await bench.break_health("a")
    await eventually(lambda: bench.sees("b"))
    health = await bench.proxy.health(bench.session, last)
    assert not health.servers["a"].up
    assert (health.config_sha256, health.enabled) == (last.config_sha256, True)


async def test_a_peer_where_nothing_answers_is_down(bench: Bench) -> None:
    assert await bench.deliver(peers=("127.0.0.3",), a="Active") == Delivered()
    await eventually(lambda: bench.sees_peers({"127.0.0.3": False}))


async def test_a_refused_configuration_changes_nothing(bench: Bench) -> None:
    before = await bench.serving(a="Active")
    refused = await bench.spoil()
    assert isinstance(refused, Rejected)
    assert refused.stage == "check"
    assert "nonsense" in refused.words
    assert await bench.observe() == before


async def test_an_edited_file_is_not_in_force_until_it_is_delivered_again(bench: Bench) -> None:
    before = await bench.serving(a="Active")
    await bench.edit_file(b"# mine\n")
    assert (await bench.observe()).config_sha256 is None
    assert await bench.deliver(a="Active") == Delivered()
    assert (await bench.observe()).config_sha256 == before.config_sha256


@pytest.mark.parametrize("damage", ["stop", "kill", "disable"])
async def test_what_was_stopped_or_disabled_is_seen_and_healed(bench: Bench, damage: str) -> None:
    before = await bench.serving(a="Active")
    await bench.systemctl(damage)
    damaged = await bench.observe()
    assert not (damaged.active and damaged.enabled)
    assert await bench.serving(a="Active") == before


async def test_health_of_a_stopped_proxy_is_not_active(bench: Bench) -> None:
    last = await bench.serving(a="Active")
    await bench.systemctl("stop")
    health = await bench.proxy.health(bench.session, last)
    assert health == replace(last, active=False, servers={}, peers={}, sessions=0)


async def test_delivering_the_same_again_does_no_harm(bench: Bench) -> None:
    before = await bench.serving(a="Active")
    assert await bench.deliver(a="Active") == Delivered()
    assert (await bench.observe()).config_sha256 == before.config_sha256


@pytest.mark.parametrize(
    ("first", "then", "taken"),
    [
        (("lease", 2), ("lease", 2), True),
        (("lease", 2), ("lease", 3), True),
        (("lease", 2), ("lease", 1), False),
        (("lease", 10), ("lease", 9), False),
        (("lease", 2), ("another", 1), True),
        (("", 0), ("lease", 0), True),
    ],
)
async def test_a_leader_that_was_followed_by_another_cannot_deliver_any_more(
    bench: Bench, first: tuple[str, int], then: tuple[str, int], taken: bool
) -> None:
    bench.term = first
    before = await bench.serving(a="Active")
    bench.term = then
    outcome = await bench.deliver(a="Active", b="Draining")
    if taken:
        assert outcome == Delivered()
    else:
        words = f"a later leader (its term {first[1]}, ours {then[1]}) has delivered since"
        assert outcome == Rejected("term", words)
        assert (await bench.observe()).config_sha256 == before.config_sha256


async def test_an_unsafe_value_is_refused_before_anything_is_sent(bench: Bench) -> None:
    with pytest.raises(Permanent) as raised:
        bench.proxy.render(replace(bench.model(a="Active"), domain="x\ny"))
    assert raised.value.reason == "UnsafeValue"
