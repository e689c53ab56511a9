"""What is changed by hand is put back, each within its bound."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from e2e import figures
from e2e.scenarios.conftest import SHOP
from e2e.site import Stage, eventually
from e2e.world.cloud.state import Droplet, Record

DOMAIN = "shop.example.com"

BOUNDS = {
    "an app droplet deleted": 180.0,
    "a load balancer droplet deleted": 180.0,
    "an app droplet powered off": 150.0,
    "a load balancer droplet renamed": 100.0,
    "a tag removed": 160.0,
    "a firewall opened": 200.0,
    "a record removed": 30.0,
    "a record changed": 30.0,
    "a record doubled": 200.0,
    "haproxy.cfg edited": 25.0,
    "haproxy stopped": 60.0,  # a reload that the stop cut short is tried again after 30 s
    "haproxy disabled": 25.0,
}
"""Seconds from damage to healed. At rest droplets are listed every 75 s, firewalls and zones every 150 s, which keeps
API calls few; a resource is looked at every 15 s, a machine every 10 s. A droplet that is made anew has to boot too."""


@dataclass(frozen=True)
class Damage:
    name: str
    do: Callable[[], Awaitable[object]]
    healed: Callable[[], Awaitable[bool]]
    shown: bool = True
    """Whether the damage is to be seen before it may be healed; ``do`` may see to that itself."""


async def heals(*damages: Damage) -> None:
    """All at once, each timed on its own."""

    async def one(damage: Damage) -> str:
        await damage.do()
        try:
            if damage.shown:
                await eventually(lambda: _not(damage.healed), 10, f"{damage.name}: nothing was damaged", 0.05)
            _, took = await eventually(damage.healed, BOUNDS[damage.name], damage.name, 0.3)
        except AssertionError as error:
            return str(error)
        figures.record(f"drift: {damage.name}", took, BOUNDS[damage.name])
        return ""

    failures = await asyncio.gather(*(one(damage) for damage in damages))
    assert not any(failures), "\n".join(filter(None, failures))


async def _not(healed: Callable[[], Awaitable[bool]]) -> bool:
    return not await healed()


def a_records(stage: Stage) -> list[Record]:
    return [r for r in stage.world.cloud.state.domains[DOMAIN].records.values() if r.type == "A"]


async def test_drift_at_the_provider_is_healed(shop: Stage) -> None:
    state = shop.world.cloud.state
    gone, tagged = await shop.droplets(SHOP, "app", "new-york")
    off, *_ = await shop.droplets(SHOP, "app", "amsterdam")
    balancer, *_ = await shop.droplets(SHOP, "lb", "new-york")
    firewall = next(f for f in state.firewalls.values() if f.name.startswith("hasite-app-"))
    tag = next(tag for tag in tagged.tags if tag.startswith("hasite:app:"))
    name, rules, record = balancer.name, len(firewall.inbound), a_records(shop)[0]
    resource = {"resources": [{"resource_id": str(tagged.id), "resource_type": "droplet"}]}
    open_rule = {"protocol": "tcp", "ports": "8080", "sources": {"addresses": ["0.0.0.0/0"]}}

    async def replaced() -> bool:
        return len(await shop.droplets(SHOP, "app")) == 4 and "4/4" in await shop.kubectl("get", "hasites", SHOP)

    async def again(condition: bool) -> bool:
        return condition

    await heals(
        Damage("an app droplet deleted", lambda: shop.destroy(gone), replaced),
        Damage(
            "an app droplet powered off",
            lambda: shop.cloud("POST", f"droplets/{off.id}/actions", type="power_off"),
            lambda: serves(shop, off),
        ),
        Damage(
            "a load balancer droplet renamed",
            lambda: shop.cloud("POST", f"droplets/{balancer.id}/actions", type="rename", name="mine"),
            lambda: again(state.droplets[balancer.id].name == name),
        ),
        Damage(
            "a tag removed",
            lambda: shop.cloud("DELETE", f"tags/{tag}/resources", **resource),
            lambda: again(tag in state.droplets[tagged.id].tags),
        ),
        Damage(
            "a firewall opened",
            lambda: shop.cloud("POST", f"firewalls/{firewall.id}/rules", inbound_rules=[open_rule]),
            lambda: again(len(firewall.inbound) == rules),
        ),
        Damage(
            "a record doubled",
            lambda: shop.cloud("POST", f"domains/{DOMAIN}/records", type="A", name="@", data=record.data, ttl=300),
            lambda: again(len(a_records(shop)) == 2),
        ),
    )
    await shop.until_ready(SHOP)


async def serves(stage: Stage, droplet: Droplet) -> bool:
    """Whether every load balancer finds an app healthy."""
    pool = await stage.get("pool", SHOP)
    servers = pool["status"]["servers"] if pool else []
    return droplet.powered and any(s["name"] == droplet.name and s["healthy"] for s in servers)


async def test_records_that_were_changed_by_hand_are_put_back(shop: Stage) -> None:
    ours = {record.data for record in a_records(shop)}
    removed, changed = a_records(shop)

    async def published(address: str) -> bool:
        return all(address in given for given in shop.watcher.answers(DOMAIN).values())

    # A person's record may lead anywhere until it is put back.
    shop.watcher.excused.add("203.0.113.99")
    await at_rest(shop)
    await heals(
        Damage(
            "a record removed",
            lambda: _and_seen(shop, shop.cloud("DELETE", f"domains/{DOMAIN}/records/{removed.id}")),
            lambda: published(removed.data),
            shown=False,
        )
    )
    await at_rest(shop)
    await heals(
        Damage(
            "a record changed",
            lambda: _and_seen(
                shop, shop.cloud("PUT", f"domains/{DOMAIN}/records/{changed.id}", type="A", data="203.0.113.99")
            ),
            lambda: published(changed.data),
            shown=False,
        )
    )
    await eventually(lambda: shop.watcher.holds(DOMAIN, *ours), 20, "only ours are left")
    await shop.until_ready(SHOP)


async def at_rest(stage: Stage) -> None:
    """The operator looks only now and then: what is damaged while it is at work would be healed before it shows."""

    async def reconciles() -> list[str]:
        page = await stage.world.metrics()
        return [line for line in page.splitlines() if line.startswith("hasite_reconcile_total")]

    async def rests() -> bool:
        before = await reconciles()
        await asyncio.sleep(2)
        return await reconciles() == before

    await eventually(rests, 60, "the operator is at rest", 0)


async def _and_seen(stage: Stage, change: Awaitable[object]) -> None:
    """Until every name server gives it, or it is put back already, which a look at that very moment does."""
    before, ours = stage.watcher.answers(DOMAIN), {record.data for record in a_records(stage)}
    await change

    def served() -> bool:
        return all(stage.watcher.answers(DOMAIN)[server] != given for server, given in before.items())

    await eventually(lambda: served() or {r.data for r in a_records(stage)} == ours, 5, "it is served", 0.05)


async def test_a_load_balancer_that_was_changed_by_hand_is_put_right(shop: Stage) -> None:
    (here,) = await shop.droplets(SHOP, "lb", "new-york")
    (there,) = await shop.droplets(SHOP, "lb", "amsterdam")
    config = await shop.on(here, "cat", "/etc/haproxy/haproxy.cfg")

    async def says(droplet: Droplet, command: str, words: str) -> bool:
        _, out = await shop.world.machines.exec(droplet.id, ("sh", "-c", command))
        return out.strip() == words

    async def as_it_was() -> bool:
        return await shop.on(here, "cat", "/etc/haproxy/haproxy.cfg") == config

    async with shop.visitors(DOMAIN):
        await heals(
            Damage(
                "haproxy.cfg edited",
                lambda: shop.on(here, "sed", "-i", "s/8080/8081/", "/etc/haproxy/haproxy.cfg"),
                as_it_was,
            ),
            Damage(
                "haproxy disabled",
                lambda: shop.on(there, "systemctl", "disable", "haproxy"),
                lambda: says(there, "systemctl is-enabled haproxy", "enabled"),
            ),
        )
        await heals(
            Damage(
                "haproxy stopped",
                # The operator may start it again before a stop that is waited for has ended.
                lambda: shop.on(there, "systemctl", "stop", "--no-block", "haproxy"),
                lambda: says(there, "systemctl is-active haproxy", "active"),
            )
        )
        await shop.until_ready(SHOP)


async def test_a_load_balancer_that_was_deleted_by_hand_is_replaced(shop: Stage) -> None:
    (balancer,) = await shop.droplets(SHOP, "lb", "amsterdam")
    (kept,) = await shop.addresses(SHOP, "new-york")

    async def replaced() -> bool:
        addresses = await shop.addresses(SHOP)
        return len(addresses) == 2 and shop.watcher.holds(DOMAIN, *addresses)

    async with shop.visitors(DOMAIN):
        damage = Damage("a load balancer droplet deleted", lambda: shop.destroy(balancer), replaced)
        healing = asyncio.create_task(heals(damage))
        _, took = await eventually(lambda: shop.watcher.holds(DOMAIN, kept), 10, "its address is gone from DNS")
        figures.record("the address of a load balancer droplet that was deleted is gone from DNS", took, 6)
        await healing
    await shop.until_ready(SHOP)
