"""nftables rulesets of the local world, as text; that the kernel obeys them is shown in e2e/test_world_machines.py."""

import pytest

from e2e.world.cloud.backend import FirewallRule
from e2e.world.network.rules import Faults, known_place, render_core, render_region
from e2e.world.network.topology import Port

PORT = Port(7, "nyc3", "192.0.2.10", "198.18.1.10")


@pytest.mark.parametrize(
    ("faults", "rule"),
    [
        (Faults(cut_in=frozenset({"nyc3"})), 'oifname "nyc3" counter drop'),
        (Faults(cut_out=frozenset({"dns1"})), 'iifname "dns1" counter drop'),
        (Faults(cut_pairs=frozenset({("ops", "ams3")})), 'iifname "ops" oifname "ams3" counter drop'),
        (Faults(loss={None: 5}), "numgen random mod 100000 < 5000 counter drop"),
        (Faults(loss={("a", "b"): 0.5}), 'iifname "b" oifname "a" numgen random mod 100000 < 500 counter drop'),
    ],
)
def test_each_fault_is_a_drop_in_the_core(faults: Faults, rule: str) -> None:
    assert f"    {rule}\n" in render_core(faults)


def test_the_core_tracks_no_connections_so_that_a_cut_ends_open_ones() -> None:
    assert "ct state" not in render_core(Faults(cut_in=frozenset({"nyc3"})))


@pytest.mark.parametrize(
    ("rule", "accepted"),
    [
        (FirewallRule("tcp", "22", ("203.0.113.10/32",)), ["ip saddr { 203.0.113.10/32 }tcp dport 22 accept"]),
        (
            FirewallRule("tcp", "80", ("0.0.0.0/0", "::/0")),
            ["meta nfproto ipv4 tcp dport 80 accept", "meta nfproto ipv6 tcp dport 80 accept"],
        ),
        (FirewallRule("udp", "all", ("2001:db8::/32",)), ["ip6 saddr { 2001:db8::/32 }meta l4proto udp accept"]),
        (FirewallRule("tcp", "8000-9000", ("0.0.0.0/0",)), ["meta nfproto ipv4 tcp dport 8000-9000 accept"]),
        (FirewallRule("icmp", "", ("::/0",)), ["meta nfproto ipv6 meta l4proto ipv6-icmp accept"]),
    ],
)
def test_a_rule_of_the_provider_becomes_an_accept_for_each_address_family(
    rule: FirewallRule, accepted: list[str]
) -> None:
    text = render_region([PORT], {7: (rule,)})
    lines = [" ".join(line.split()) for line in text.splitlines()]
    wanted = [line.replace("}", "} ") for line in accepted]
    assert [line for line in lines if line.endswith("accept") and "established" not in line] == wanted


def test_a_droplet_with_a_firewall_refuses_what_no_rule_permits_on_both_its_interfaces() -> None:
    text = render_region([PORT], {7: ()})
    assert 'oifname { "e0-7", "e1-7" } jump droplet-7' in text
    assert text.index("established,related accept") < text.index("    drop\n")


def test_a_droplet_without_a_firewall_is_open() -> None:
    assert "jump" not in render_region([PORT], {})


def test_a_droplet_without_power_is_silent_whatever_its_firewall_permits() -> None:
    text = render_region([PORT], {7: ()}, frozenset({7}))
    assert 'iifname { "e0-7", "e1-7" } drop' in text
    assert "jump" not in text


@pytest.mark.parametrize(
    "rule",
    [FirewallRule("tcp", "22; drop", ("0.0.0.0/0",)), FirewallRule("gre", "", ("0.0.0.0/0",))],
)
def test_what_is_no_firewall_rule_is_refused(rule: FirewallRule) -> None:
    with pytest.raises(ValueError, match="not a firewall rule"):
        render_region([PORT], {7: (rule,)})


def test_a_place_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ValueError, match="no such place: lon1; there are nyc3"):
        known_place("lon1")
