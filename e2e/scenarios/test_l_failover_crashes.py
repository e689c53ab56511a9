"""The operator is killed before and after each thing that a failover writes anywhere, and it ends as without."""

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from e2e import figures
from e2e.scenarios.conftest import SHOP
from e2e.scenarios.kubernetes_way import KubernetesWay
from e2e.site import Stage, eventually

DOMAIN = "shop.example.com"
CONFIG = "/etc/haproxy/haproxy.cfg"
DNS = {"ttlSeconds": 60, "degradedTtlSeconds": 30}
"""The TTL is lowered while degraded: that is a write too."""

Key = tuple[str, ...]


@dataclass
class Assassin:
    """Kills the operators, by SIGKILL, before and after each of their writes; each write is told apart by what it says.

    A write that is done anew by the next operator is the same one. Leases and Events are left out: the first are not
    the failover's, from the second nothing is ever read.
    """

    stage: Stage
    armed: bool = False
    killed: list[tuple[str, Key]] = field(default_factory=list)
    writes: dict[Key, None] = field(default_factory=dict)
    _records: dict[str, str] = field(default_factory=dict)

    def to_cloud(self, phase: str, method: str, path: str) -> bool | None:
        """A call of the provider's API. A record is told apart by what it says: its ID is another each time."""
        if method == "GET":
            return None
        for record in self.stage.world.cloud.state.domains[DOMAIN].records.values():
            self._records[str(record.id)] = f"{record.type} {record.data}"
        head, _, last = path.rpartition("/")
        return self._meet(phase, (method, f"{head}/{self._records.get(last, last)}"))

    def to_kubernetes(self, phase: str, method: str, path: str, body: Mapping[str, Any]) -> bool | None:
        """A call of the API server. What a status says is told apart by its addresses and conditions."""
        if "/leases/" in path or "/events" in path:
            return None
        return self._meet(phase, (method, path.partition("/namespaces/")[2], _gist(body.get("status") or body)))

    def _meet(self, phase: str, key: Key) -> bool | None:
        self.writes[key] = None
        if not self.armed or (phase, key) in self.killed:
            return None
        self.killed.append((phase, key))
        self.stage.crash_operators()
        return False


def _gist(status: Mapping[str, Any]) -> str:
    conditions = [(c["type"], c["status"], c["reason"]) for c in status.get("conditions", ())]
    addresses = [(a["address"], a["state"]) for a in status.get("addresses", ())]
    return json.dumps([conditions, addresses, status.get("plan"), status.get("published")])


@pytest.fixture
def assassin(stage: Stage) -> Assassin:
    return Assassin(stage)


@contextlib.asynccontextmanager
async def under_watch(stage: Stage, assassin: Assassin) -> AsyncIterator[None]:
    """An operator whose every way passes by the assassin."""
    way = KubernetesWay(stage.world)
    async with stage.without_operator():
        kubeconfig = str(await way.start(stage.world.directory / "operator.kubeconfig"))
        try:
            way.hook = assassin.to_kubernetes
            stage.world.cloud.on_request = assassin.to_cloud
            async with stage.another_operator("watched", KUBECONFIG=kubeconfig, HASITE_LEASE_DURATION="3"):
                await eventually(lambda: stage.leads("watched"), 60, "it leads")
                yield
        finally:
            assassin.armed = False
            stage.world.cloud.on_request = None
            await way.close()


async def picture(stage: Stage) -> object:
    """How it all ended, without what differs by time."""
    pool, site = await stage.get("pool", SHOP), await stage.get("hasite", SHOP)
    assert pool
    assert site
    records = stage.world.cloud.state.domains[DOMAIN].records.values()
    return {
        "records": sorted((r.type, r.name, r.data, r.ttl) for r in records if r.type in ("A", "AAAA", "TXT")),
        "droplets": sorted(d.name for d in await stage.droplets(SHOP)),
        "addresses": sorted((a["address"], a["state"]) for a in pool["status"]["addresses"]),
        "conditions": [(c["type"], c["status"], c["reason"]) for o in (pool, site) for c in o["status"]["conditions"]],
        "configurations": [await stage.on(d, "cat", CONFIG) for d in await stage.droplets(SHOP, "lb")],
    }


async def failed_over(stage: Stage, within: float) -> tuple[object, float]:
    """New York goes dark; returns how it stands when the rest is settled, and the seconds until DNS was right."""
    (kept,) = await stage.addresses(SHOP, "amsterdam")
    (balancer,) = await stage.droplets(SHOP, "lb", "amsterdam")
    await stage.world.drop("new-york", "cut")
    _, took = await eventually(lambda: stage.watcher.holds(DOMAIN, kept), within, "the address is gone", 0.05)

    async def settled() -> bool:
        pool = await stage.condition(SHOP, "DNSPublished", "pool")
        site = await stage.condition(SHOP, "Ready")
        return (pool.get("status"), site.get("reason")) == ("True", "LocationDown") and _published(stage) == {
            (address, DNS["degradedTtlSeconds"]) for address in (balancer.public_ipv4, balancer.public_ipv6)
        }

    await eventually(settled, within, "it is said, and the TTL lowered")
    return (await picture(stage))["records"], took  # type: ignore[index]


def _published(stage: Stage) -> set[tuple[str, int]]:
    """Addresses of both families with their TTL, as the provider has them."""
    records = stage.world.cloud.state.domains[DOMAIN].records.values()
    return {(r.data, r.ttl) for r in records if r.type in ("A", "AAAA")}


async def back(stage: Stage, within: float) -> object:
    """New York is back; returns how it all stands when it serves again."""
    addresses = await stage.addresses(SHOP)
    await stage.world.restore("new-york")
    await eventually(lambda: stage.watcher.holds(DOMAIN, *addresses), within, "the address is back", 0.1)
    await stage.until_ready(SHOP, within)
    return await picture(stage)


@pytest.mark.timeout(1200)
async def test_an_operator_that_is_killed_at_every_write_of_a_failover_ends_it_as_one_that_is_not(
    shop: Stage, assassin: Assassin
) -> None:
    before = (await shop.get("hasite", SHOP) or {})["spec"]["dns"]
    async with shop.visitors(DOMAIN), under_watch(shop, assassin):
        await shop.patch(SHOP, {"dns": DNS})
        await shop.until_ready(SHOP)
        configured = await _deliveries(shop)
        lost, kept = [await _records(shop, each) for each in ("new-york", "amsterdam")]
        assassin.writes.clear()
        reference, _ = await failed_over(shop, 60)
        expected = list(assassin.writes)
        end = await back(shop, 340)
        assert await _deliveries(shop) == configured, "a failover writes nothing to machines"

        assassin.writes.clear()
        assassin.armed = True
        told, took = await failed_over(shop, 500)
        assassin.armed = False
        figures.note("things that a failover writes", len(set(expected)))
        figures.note("crashes of the operator during one failover", len(assassin.killed))
        figures.record("a failover through a crash before and after each of its writes: address gone", took)
        assert told == reference
        # An address that is found to be down a moment after the other may have its TTL lowered first, or not.
        calls = {("DELETE", *at) for at in lost} | {("PUT", *at) for at in kept}
        assert calls <= set(expected)
        assert {(phase, key) for key in calls for phase in ("before", "after")} <= set(assassin.killed)
        assert await back(shop, 340) == end
    await shop.patch(SHOP, {"dns": before})
    await shop.until_ready(SHOP)


async def _records(stage: Stage, location: str) -> set[tuple[str]]:
    """The paths of the records of a location's load balancer, as the assassin tells them."""
    (droplet,) = await stage.droplets(SHOP, "lb", location)
    path = f"/v2/domains/{DOMAIN}/records"
    return {(f"{path}/A {droplet.public_ipv4}",), (f"{path}/AAAA {droplet.public_ipv6}",)}


async def _deliveries(stage: Stage) -> list[str]:
    """When each load balancer's configuration was last written."""
    return [await stage.on(d, "stat", "-c", "%z", CONFIG) for d in await stage.droplets(SHOP, "lb")]
