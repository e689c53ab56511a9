"""Every field of a HASite and of a LoadBalancerPool: changed, the world follows; changed back, it follows again.

A field without a row fails ``test_every_field_has_a_row``. All rows with ``HASITE_MATRIX=1``, some in the fast suite.
What the schema refuses is tried against the real API server, in ``e2e/test_crds.py``.
"""

import asyncio
import copy
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hasite.api import HASite, LoadBalancerPool
from hasite.plan.proxies import ProxyModel

from tests.api.cases import TABLE
from tests.api.schemas import nodes
from tests.api.test_constraints import SCHEMAS
from tests.fakes.kube import Json
from tests.fakes.machines import FakeMachine, decode
from tests.scenarios.clockwork import monotonic
from tests.scenarios.extent import FULL
from tests.scenarios.ground import SICK
from tests.scenarios.stories import LONG, ready
from tests.scenarios.universe import DOMAIN, NAME, NAMESPACE, OTHER_TOKEN, ZONE, Universe, play, site_spec

See = Callable[[Universe], Awaitable[object]]
KINDS = {"HASite": HASite, "LoadBalancerPool": LoadBalancerPool}
SERVERS = ("203.0.113.50", "203.0.113.51", "203.0.113.52")


# What is looked at.


def looks(see: Callable[[Universe], object]) -> See:
    async def look(universe: Universe) -> object:
        return see(universe)

    return look


def _models(universe: Universe) -> list[ProxyModel]:
    return [decode(m.in_force) for m in universe.ground.machines.values() if m.in_force is not None]


def proxies(value: Callable[[ProxyModel], object]) -> See:
    """What the configurations in force say."""
    return looks(lambda universe: {value(model) for model in _models(universe)})


def droplets(role: str, value: Callable[[Any], object]) -> See:
    """What the droplets of a tier are."""
    return looks(
        lambda universe: sorted(
            str(value(d)) for d in universe.cloud.state.droplets.values() if f"-{role}-" in d.name and not d.deleting
        )
    )


def _watched(universe: Universe) -> list[Any]:
    return [t for each in universe.operators[-1].watch._targets.values() for t in each.values() if t.engine]


def watch(value: Callable[[Any], object]) -> See:
    """What the operator's own probes go by."""
    return looks(lambda universe: {value(target) for target in _watched(universe)})


def _ttls(universe: Universe) -> object:
    return {r.ttl for records in universe.names.zones.values() for r in records if r.type in ("A", "AAAA")}


async def _lose_region(universe: Universe) -> tuple[frozenset[str], float]:
    universe.witness.trouble = True
    before, start = universe.names.addresses(DOMAIN), monotonic()
    universe.ground.dark.add("nyc3")
    await universe.until(lambda: universe.names.addresses(DOMAIN) < before, LONG, "withdrawal")
    return before, monotonic() - start


async def _mend(universe: Universe, before: frozenset[str]) -> float:
    start = monotonic()
    universe.ground.dark.clear()
    await universe.until(lambda: universe.names.addresses(DOMAIN) >= before, LONG, "publication")
    await ready(universe)
    await asyncio.sleep(700.0)  # so that the hold-down of the next time begins anew
    return monotonic() - start - 700.0


async def _degraded_ttl(universe: Universe) -> object:
    before, _ = await _lose_region(universe)
    await asyncio.sleep(5.0)
    seen = _ttls(universe)
    await _mend(universe, before)
    return seen


async def _withdrawn_slowly(universe: Universe) -> object:
    before, seconds = await _lose_region(universe)
    await _mend(universe, before)
    return seconds > 15.0


async def _published_slowly(universe: Universe) -> object:
    before, _ = await _lose_region(universe)
    await asyncio.sleep(10.0)
    return await _mend(universe, before) > 30.0


async def _tokens(universe: Universe) -> object:
    universe.cloud.journal.clear()
    await asyncio.sleep(180.0)
    return {call.token for call in universe.cloud.journal}


def _policies(field: str) -> See:
    """What it says, from the site down; what follows from it is tested apart, below."""
    return looks(lambda u: [getattr(each.spec, field) for each in (u.site(), u.pool()) if each])


# The rows.


@dataclass(frozen=True)
class Row:
    """Another value, and what shows that the world follows."""

    value: Any
    see: See


HEALTH_CHECK = {
    "path": Row("/other", proxies(lambda m: m.check.path)),
    "interval": Row("4s", proxies(lambda m: m.check.interval)),
    "timeout": Row("500ms", proxies(lambda m: m.check.timeout)),
    "rise": Row(3, proxies(lambda m: m.check.rise)),
    "fall": Row(4, proxies(lambda m: m.check.fall)),
}
COMMON = {
    "credentialsRef.name": Row("another", _tokens),
    "managementPolicy": Row("Observe", _policies("management_policy")),
    "deletionPolicy": Row("Retain", _policies("deletion_policy")),
    "locations[].name": Row("newark", droplets("lb", lambda d: d.name.split("-lb-")[1].split("-0-")[0])),
    "dns.ttlSeconds": Row(60, looks(_ttls)),
    "dns.degradedTtlSeconds": Row(31, _degraded_ttl),
    "failureDetection.interval": Row("4s", proxies(lambda m: m.probe_interval)),
    "failureDetection.timeout": Row("300ms", watch(lambda t: t.timeout)),
    "failureDetection.failureThreshold": Row(30, _withdrawn_slowly),
    "failureDetection.recoveryThreshold": Row(60, _published_slowly),
    "failureDetection.holdDown": Row("2m", _published_slowly),
}
TIER = {
    "replicasPerLocation": Row(2, droplets("lb", lambda d: d.region)),
    "size": Row("s-2vcpu-2gb", droplets("lb", lambda d: d.size)),
    "image": Row("debian-13-x64", droplets("lb", lambda d: d.image.slug)),
    "routing": Row("PreferLocal", proxies(lambda m: tuple(u.backup for u in m.upstreams))),
}


def under(prefix: str, rows: Mapping[str, Row]) -> dict[str, Row]:
    return {f"{prefix}.{path}": row for path, row in rows.items()}


ROWS: Mapping[str, Mapping[str, Row]] = {
    "HASite": {
        **COMMON,
        **under("loadBalancers", TIER),
        **under("app.healthCheck", HEALTH_CHECK),
        "app.replicasPerLocation": Row(2, droplets("app", lambda d: d.region)),
        "app.port": Row(9090, looks(lambda u: _open_ports(u) | {m.port for m in _models(u)})),
        "app.size": Row("s-2vcpu-2gb", droplets("app", lambda d: d.size)),
        "app.image": Row("debian-13-x64", droplets("app", lambda d: d.image.slug)),
        "app.userData": Row("#!/bin/sh\n# v2\n", droplets("app", lambda d: "# v2" in d.user_data)),
        "app.drain": Row("7s", proxies(lambda m: m.drain_seconds)),
    },
    "LoadBalancerPool": {
        **COMMON,
        **TIER,
        **under("backends.healthCheck", HEALTH_CHECK),
        "backends.port": Row(9090, proxies(lambda m: m.port)),
        "backends.drain": Row("7s", proxies(lambda m: m.drain_seconds)),
        "backends.servers[].name": Row("s9", proxies(lambda m: tuple(u.name for u in m.upstreams))),
        "backends.servers[].location": Row(
            "new-york", looks(lambda u: [s.location for p in [u.pool()] if p for s in p.spec.backends.servers])
        ),
        "backends.servers[].address": Row(SERVERS[2], proxies(lambda m: tuple(u.address for u in m.upstreams))),
        "backends.servers[].privateAddress": Row(
            "198.18.1.200",
            looks(lambda u: [s.private_address for p in [u.pool()] if p for s in p.spec.backends.servers]),
        ),
        "backends.servers[].state": Row("Draining", proxies(lambda m: tuple(u.state for u in m.upstreams))),
    },
}

IMMUTABLE = {
    "domain": "this field is immutable",
    "locations[].region": "region is immutable: add a location and take this one away",
}
"""Refused by the API server once they are set; the words."""
TESTED_APART = {
    "loadBalancers.engine": "it has one value",
    "engine": "it has one value",
    "dns.zone": "test_a_zone_that_is_named_too_late_is_refused_with_the_reason",
    **dict.fromkeys(("database.name", "database.database", "database.user"), "test_site_database.py"),
    "app.progressDeadline": "test_a_version_that_never_serves_is_reported_after_the_deadline",
}


def _open_ports(universe: Universe) -> set[object]:
    return {rule.ports for f in universe.cloud.state.firewalls.values() if "-app-" in f.name for rule in f.inbound}


def _fields(kind: str) -> set[str]:
    schema = SCHEMAS[kind]["properties"]["spec"]
    leaves = (path for path, node in nodes(schema, "") if not {"properties", "items"} & node.keys())
    return {path.removeprefix(".") for path in leaves}


@pytest.mark.parametrize("kind", ROWS)
def test_every_field_has_a_row(kind: str) -> None:
    assert _fields(kind) <= ROWS[kind].keys() | IMMUTABLE.keys() | TESTED_APART.keys()


@pytest.mark.parametrize("kind", ROWS)
def test_what_is_immutable_has_its_rule_tried_against_the_api_server(kind: str) -> None:
    tried = {(case.where.removeprefix("spec."), case.keyword) for of, case in TABLE if of == kind}
    assert set(IMMUTABLE.items()) <= tried


def _put(spec: Json, path: str, value: Any) -> None:
    *steps, last = re.findall(r"\w+", path)
    node: Any = spec
    for step in steps:
        node = node.setdefault(step, {})
        node = node[0] if isinstance(node, list) else node
    node[last] = value


def _pool_spec() -> Json:
    spec = site_spec()
    del spec["app"]
    servers = [{"name": f"s{n}", "location": "elsewhere", "address": SERVERS[n]} for n in (0, 1)]
    return {**spec, "backends": {"port": 8080, "drain": "2s", "servers": servers}}


SPECS: Mapping[str, Callable[[], Json]] = {"HASite": site_spec, "LoadBalancerPool": _pool_spec}


async def _begin(universe: Universe, kind: str) -> None:
    universe.kube.put_secret(NAMESPACE, "another", {"token": OTHER_TOKEN})
    for address in (*SERVERS, "198.18.1.200"):
        universe.ground.add(FakeMachine("given", address))
        universe.ground.healthy.add(address)
    universe.start()
    universe.create(kind)
    await ready(universe)
    await asyncio.sleep(30.0)


ALL = [(kind, path) for kind, rows in ROWS.items() for path in rows]
SOME = [("HASite", path) for path in ("dns.ttlSeconds", "app.port")]


@pytest.mark.parametrize(("kind", "path"), ALL if FULL else SOME)
def test_the_world_follows_a_field_there_and_back(kind: str, path: str) -> None:
    row = ROWS[kind][path]

    async def story(universe: Universe) -> None:
        await _begin(universe, kind)
        spec = copy.deepcopy(universe.kube.raw(KINDS[kind], NAMESPACE, NAME)["spec"])  # type: ignore[index]
        before = await row.see(universe)
        universe.kube.edit(KINDS[kind], NAMESPACE, NAME, lambda each: _put(each["spec"], path, row.value))
        await asyncio.sleep(1.0)
        if row.value != "Observe":
            await ready(universe)
        await asyncio.sleep(60.0)
        assert await row.see(universe) != before
        universe.kube.edit(KINDS[kind], NAMESPACE, NAME, lambda each: each.update(spec=spec))
        await asyncio.sleep(1.0)
        await ready(universe)
        await asyncio.sleep(60.0)
        assert await row.see(universe) == before
        assert not universe.witness.breaches

    play(story, spec=SPECS[kind]())


def _reasons(universe: Universe) -> set[tuple[str, str, str]]:
    there = [each for each in (universe.site(), universe.pool()) if each]
    return {(c.type, c.status, c.reason) for each in there for c in each.status.conditions}


@pytest.mark.parametrize("kind", ROWS)
def test_a_zone_that_is_named_too_late_is_refused_with_the_reason(kind: str) -> None:
    async def story(universe: Universe) -> None:
        await _begin(universe, kind)
        records = universe.names.zones
        universe.kube.edit(KINDS[kind], NAMESPACE, NAME, lambda each: _put(each["spec"], "dns.zone", ZONE))
        await asyncio.sleep(60.0)
        assert ("Stalled", "True", "ZoneFixed") in _reasons(universe)
        assert universe.names.zones == records

    play(story, spec=SPECS[kind]())


@pytest.mark.parametrize(("deadline", "reported"), [("1m", True), ("10m", False)])
def test_a_version_that_never_serves_is_reported_after_the_deadline(deadline: str, reported: bool) -> None:
    async def story(universe: Universe) -> None:
        await _begin(universe, "HASite")
        change = {"userData": f"#!/bin/sh\n# {SICK}\n", "progressDeadline": deadline}
        universe.edit_site(lambda spec: spec["app"].update(change))
        await asyncio.sleep(120.0)
        assert (("Stalled", "True", "RolloutStalled") in _reasons(universe)) is reported
        assert not universe.witness.breaches
        assert len([d for d in universe.cloud.state.droplets.values() if "-app-" in d.name]) == 3

    play(story)


def test_what_is_observed_is_left_alone_and_planned() -> None:
    async def story(universe: Universe) -> None:
        await _begin(universe, "HASite")
        universe.edit_site(lambda spec: spec.update(managementPolicy="Observe"))
        await asyncio.sleep(60.0)
        universe.journal.clear()
        universe.edit_site(lambda spec: spec["app"].update(replicasPerLocation=2))
        await asyncio.sleep(60.0)
        assert not [line for line in universe.journal if " cloud " in line or " ssh " in line]
        site = universe.site()
        assert site is not None
        assert any(line.startswith("CreateDroplet") for line in site.status.plan)

    play(story)


def test_what_is_observed_is_left_as_it_is_when_its_resource_is_deleted() -> None:
    async def story(universe: Universe) -> None:
        await _begin(universe, "HASite")
        universe.edit_site(lambda spec: spec.update(managementPolicy="Observe"))
        await asyncio.sleep(30.0)
        universe.journal.clear()
        universe.kube.remove(HASite, NAMESPACE, NAME)
        await universe.until(lambda: universe.site() is None and universe.pool() is None, LONG, "the end")
        await asyncio.sleep(100.0)
        assert not [line for line in universe.journal if " cloud " in line or " ssh " in line]

    play(story)


def test_what_is_retained_serves_on_after_its_resource_is_gone() -> None:
    async def story(universe: Universe) -> None:
        await _begin(universe, "HASite")
        universe.edit_site(lambda spec: spec.update(deletionPolicy="Retain"))
        await asyncio.sleep(60.0)
        left, published = set(universe.cloud.state.droplets), universe.names.addresses(DOMAIN)
        universe.kube.remove(HASite, NAMESPACE, NAME)
        await universe.until(lambda: universe.site() is None and universe.pool() is None, LONG, "the end")
        await asyncio.sleep(100.0)
        assert set(universe.cloud.state.droplets) == left
        assert universe.names.addresses(DOMAIN) == published

    play(story)


@pytest.mark.parametrize("kind", ROWS)
def test_a_kind_of_engine_is_the_only_one(kind: str) -> None:
    path = "loadBalancers.engine" if kind == "HASite" else "engine"
    found = dict(nodes(SCHEMAS[kind]["properties"]["spec"], ""))[f".{path}"]
    assert found.get("enum", [found.get("const")]) == ["haproxy"]
