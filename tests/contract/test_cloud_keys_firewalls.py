"""SSH keys and firewalls: registered once, and read back as they were asked for."""

import base64
import hashlib
from dataclasses import replace

import pytest
from hasite.clouds.digitalocean import CREATE_DROPLET, DigitalOcean
from hasite.clouds.transport import Operation
from hasite.errors import Permanent, Transient, Unclear
from hasite.plan.world import Firewall, FirewallRule

from e2e.world.cloud import Kind
from tests.fakes.cloud import SPEC, TOKEN, world

BLOB = base64.b64encode(b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00 " + bytes(range(32))).decode()
PUBLIC_KEY = f"ssh-ed25519 {BLOB} operator"


async def test_a_key_is_registered_once_and_a_registration_of_the_same_key_is_adopted() -> None:
    async with world() as (cloud, driver):
        fingerprint = await driver.ensure_ssh_key(PUBLIC_KEY, "one")
        assert fingerprint.replace(":", "") == hashlib.md5(base64.b64decode(BLOB)).hexdigest()
        again = DigitalOcean(TOKEN, driver.api._client._client._base_url)
        assert await again.ensure_ssh_key(PUBLIC_KEY, "two") == fingerprint
        await again.close()
        assert len(cloud.state.keys) == 1
        sent = len(cloud.journal)
        await driver.ensure_ssh_key(PUBLIC_KEY, "one")
        assert len(cloud.journal) == sent
        created = await driver.create_droplet(replace(SPEC, ssh_key_fingerprints=(fingerprint,)))
        assert len(cloud.state.droplets[created.id].ssh_keys) == 1


async def test_a_key_whose_registration_answered_500_after_the_work_is_adopted_by_the_next_try() -> None:
    async with world() as (cloud, driver):
        cloud.faults.fail(Kind.ERROR_AFTER, method="POST", path="/v2/account/keys")
        with pytest.raises(Transient):
            await driver.ensure_ssh_key(PUBLIC_KEY, "one")
        await driver.ensure_ssh_key(PUBLIC_KEY, "one")
        assert len(cloud.state.keys) == 1


async def test_what_is_no_key_is_refused_before_anything_is_sent() -> None:
    async with world() as (cloud, driver):
        with pytest.raises(Permanent):
            await driver.ensure_ssh_key("ssh-ed25519 not!base64", "one")
        assert len(cloud.journal) == 0


FIREWALL = Firewall(
    id="",
    name="hasite-lb",
    inbound=frozenset(
        {
            FirewallRule("tcp", "80", cidrs=frozenset({"0.0.0.0/0", "::/0"})),
            FirewallRule("tcp", "8000-9000", tags=frozenset({"uid:1"})),
            FirewallRule("udp", "all", cidrs=frozenset({"192.0.2.1/32"})),
            FirewallRule("icmp", "all", cidrs=frozenset({"0.0.0.0/0"})),
        }
    ),
    tags=frozenset({"role:lb"}),
)


async def test_a_firewall_comes_back_as_it_was_asked_for() -> None:
    async with world() as (_, driver):
        created = await driver.create_firewall(FIREWALL)
        assert replace(created, id="") == FIREWALL
        assert [replace(firewall, id="") for firewall in await driver.firewalls(3600.0)] == [FIREWALL]
        changed = replace(created, inbound=frozenset(list(created.inbound)[:1]), tags=frozenset({"role:app"}))
        await driver.update_firewall(changed)
        assert await driver.firewalls(3600.0) == (changed,)
        await driver.destroy_firewall(created.id)
        await driver.destroy_firewall(created.id)
        assert await driver.firewalls(3600.0) == ()


async def test_everything_may_leave_a_machine_behind_our_firewall() -> None:
    async with world() as (cloud, driver):
        await driver.create_firewall(FIREWALL)
        [firewall] = cloud.state.firewalls.values()
        everywhere = ("0.0.0.0/0", "::/0")
        outbound = {(rule.protocol, rule.ports, rule.target.addresses) for rule in firewall.outbound}
        assert outbound == {(protocol, "0", everywhere) for protocol in ("tcp", "udp", "icmp")}


async def test_a_single_address_and_its_cidr_are_the_same_source() -> None:
    async with world() as (_, driver):
        plain = FirewallRule("tcp", "22", cidrs=frozenset({"192.0.2.1", "2001:DB8:0::1"}))
        created = await driver.create_firewall(replace(FIREWALL, inbound=frozenset({plain})))
        assert created.inbound == {FirewallRule("tcp", "22", cidrs=frozenset({"192.0.2.1/32", "2001:db8::1/128"}))}


async def test_a_firewall_whose_create_answered_500_after_the_work_is_unclear_and_listed() -> None:
    async with world() as (cloud, driver):
        cloud.faults.fail(Kind.ERROR_AFTER, method="POST", path="/v2/firewalls")
        with pytest.raises(Unclear):
            await driver.create_firewall(FIREWALL)
        assert len(await driver.firewalls(3600.0)) == 1


async def test_a_rule_opened_to_something_we_have_no_field_for_is_seen_as_different() -> None:
    async with world() as (_, driver):
        droplet = await driver.create_droplet(SPEC)
        created = await driver.create_firewall(FIREWALL)
        rule = {"protocol": "tcp", "ports": "22", "sources": {"droplet_ids": [droplet.id]}}
        await driver.api.call(
            Operation("firewalls.add_rules", CREATE_DROPLET.effect), created.id, body={"inbound_rules": [rule]}
        )
        [seen] = await driver.firewalls(0.0)
        assert seen.inbound - created.inbound == {FirewallRule("tcp", "22", cidrs=frozenset({f"droplet:{droplet.id}"}))}
