"""From the published set to changes of records: a table of single plans, and zones worked on until they are still."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from hasite.plan.dns import (
    Answers,
    DnsPlan,
    DnsWish,
    agrees,
    choose_zone,
    gone_everywhere,
    owner_domain,
    owner_label,
    plan_dns,
    relative,
    seen_everywhere,
)
from hasite.plan.names import Owner, owner_of_text, owner_text
from hasite.plan.steps import CreateRecord, CreateZone, DeleteRecord, DestroyZone, Step, UpdateRecord
from hasite.plan.world import Answer, DnsRecord, Unknown, ZoneView
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plan.build import DOMAIN, OTHER, POOL, ZONE, A, B, C, a, answer, txt

SILENT = Unknown("no answer")
SOA, NS = DnsRecord("SOA", "@", "ns1", 1800, 101), DnsRecord("NS", "@", "ns1", 1800, 102)


def wish(*addresses: str, **more: object) -> DnsWish:
    return replace(DnsWish(DOMAIN, ZONE, POOL, addresses, 60), **more)  # type: ignore[arg-type]


def view(*records: DnsRecord) -> ZoneView:
    return ZoneView(ZONE, (SOA, NS, *records))


def short(steps: Sequence[Step]) -> str:
    """``+A x`` creates, ``-A x#id`` deletes, ``~A x=ttl`` changes."""
    words = []
    for step in steps:
        match step:
            case CreateRecord():
                words.append(f"+{step.record.type} {step.record.data if step.record.type != 'TXT' else 'ours'}")
            case DeleteRecord():
                words.append(f"-{step.record.type} #{step.record.id}")
            case UpdateRecord():
                words.append(f"~{step.record.type} {step.record.data} {step.record.ttl}")
            case _:
                words.append(type(step).__name__)
    return ", ".join(words)


@dataclass(frozen=True)
class Case:
    wish: DnsWish
    zone: ZoneView | Unknown
    answers: Answers
    then: str
    refused: str | None = None
    settled: bool = False
    waits: bool = False


def said(*addresses: str, owner: Owner | None = POOL) -> Answers:
    return {"ns1": answer(*addresses, owner=owner), "ns2": answer(*addresses, owner=owner)}


NOTHING = said(owner=None)
IPV6 = "2001:db8::1"
CASES = {
    "an absent domain is created": Case(wish(A), ZoneView(ZONE, None), {}, "CreateZone"),
    "a zone that cannot be read is left alone": Case(wish(A), SILENT, said(B), "", waits=True),
    "ownership comes before the first address": Case(wish(A), view(), NOTHING, "+TXT ours"),
    "ownership is not taken before there is an address": Case(wish(), view(), NOTHING, ""),
    "addresses are added": Case(wish(A, B), view(txt()), said(), f"+A {A}, +A {B}"),
    "an IPv6 address becomes an AAAA record": Case(wish(IPV6), view(txt()), said(), f"+AAAA {IPV6}"),
    "all there and answered is settled": Case(wish(A), view(txt(), a(A)), said(A), "", settled=True),
    "what the servers do not answer yet is waited for": Case(wish(A), view(txt(), a(A)), said(), "", waits=True),
    "an old address waits until a new one is added": Case(wish(B), view(txt(), a(A)), said(A), f"+A {B}", waits=True),
    "an old address waits until a new one is seen": Case(wish(B), view(txt(), a(A), a(B, 2)), said(A), "", waits=True),
    "an old address waits for the slowest server": Case(
        wish(B), view(txt(), a(A), a(B, 2)), {"ns1": answer(A, B), "ns2": answer(A)}, "", waits=True
    ),
    "an old address does not wait for a server that gives no answer": Case(
        wish(B), view(txt(), a(A), a(B, 2)), {"ns1": answer(A, B), "ns2": SILENT}, "-A #1"
    ),
    "an old address waits when no server gives an answer": Case(
        wish(B), view(txt(), a(A), a(B, 2)), {"ns1": SILENT}, "", waits=True
    ),
    "a lost location leaves when another is seen": Case(wish(B), view(txt(), a(A), a(B, 2)), said(A, B), "-A #1"),
    "an address that is not ours any more goes without a replacement": Case(
        wish(disowned=frozenset({A})), view(txt(), a(A)), said(A), "-A #1"
    ),
    "an address that is not ours any more goes before anything else": Case(
        wish(B, C, disowned=frozenset({A})), view(txt(), a(A), a(B, 2)), said(A, B), f"-A #1, +A {C}"
    ),
    "the last address stays when none is wanted": Case(wish(), view(txt(), a(A)), said(A), "", waits=True),
    "a record added by hand is removed": Case(wish(A), view(txt(), a(A), a(C, 2)), said(A, C), "-A #2"),
    "a doubled record goes, the older one stays": Case(wish(A), view(txt(), a(A, 5), a(A, 3)), said(A), "-A #5"),
    "a record changed by hand is changed back": Case(wish(A), view(txt(), a(A, ttl=3600)), said(A), f"~A {A} 60"),
    "a record removed by hand is put back": Case(wish(A, B), view(txt(), a(A)), said(A), f"+A {B}"),
    "a doubled ownership record goes": Case(wish(A), view(txt(), txt(number=12), a(A)), said(A), "-TXT #12"),
    "an ownership record removed by hand is put back beside our own addresses": Case(
        wish(A, B), view(a(A), a(B, 2)), said(A, B, owner=None), "+TXT ours"
    ),
    "records without our TXT are left alone": Case(
        wish(A), view(a(C)), said(C, owner=None), "", refused="ForeignRecords"
    ),
    "records without our TXT are left alone, though one is wanted": Case(
        wish(A), view(a(A), a(C, 2)), said(A, C, owner=None), "", refused="ForeignRecords"
    ),
    "a CNAME at the name is left alone": Case(
        wish(A), view(DnsRecord("CNAME", "shop", "elsewhere.", 60, 1)), {"ns1": SILENT}, "", refused="ForeignRecords"
    ),
    "another owner's name is left alone": Case(
        wish(A), view(txt(OTHER), a(C)), said(C, owner=OTHER), "", refused="DomainOwnedByOther"
    ),
    "of two owners the first keeps the name, and the second takes its claim back": Case(
        wish(A), view(txt(OTHER, 5), txt(POOL, 6)), said(), "-TXT #6", refused="DomainOwnedByOther"
    ),
    "the first of two owners goes on": Case(wish(A), view(txt(POOL, 5), txt(OTHER, 6)), said(), f"+A {A}"),
    "records at other names are nobody's business": Case(
        wish(A),
        view(txt(), a(A), a(C, 3, name="www"), txt(OTHER, 4, "_hasite.www")),
        said(A),
        "",
        settled=True,
    ),
    "an empty list changes nothing while the servers answer with ours": Case(wish(A), view(), said(A), "", waits=True),
    "a list without our TXT changes nothing while the servers answer with it": Case(
        wish(B), view(a(A)), said(A), "", waits=True
    ),
    "a list without a wanted address doubles nothing while the servers answer with it": Case(
        wish(A, B), view(txt(), a(A)), said(A, B), "", waits=True
    ),
    "giving up the name: addresses first": Case(
        wish(delete_all=True), view(txt(), a(A), a(B, 2)), said(A, B), "-A #1, -A #2"
    ),
    "giving up the name: the TXT waits until no server gives an address": Case(
        wish(delete_all=True), view(txt()), {"ns1": answer(), "ns2": answer(A)}, "", waits=True
    ),
    "giving up the name: the TXT waits for a server that gives no answer": Case(
        wish(delete_all=True), view(txt()), {"ns1": answer(), "ns2": SILENT}, "", waits=True
    ),
    "giving up the name: the TXT last": Case(wish(delete_all=True), view(txt()), said(), "-TXT #9"),
    "giving up the name: nothing is left": Case(wish(delete_all=True), view(), NOTHING, "", settled=True),
    "giving up the name: an empty list is not the end while servers answer with ours": Case(
        wish(delete_all=True), view(), said(A), "", waits=True
    ),
    "giving up the name: others' records stay": Case(
        wish(delete_all=True), view(a(C)), said(C, owner=None), "", settled=True
    ),
    "giving up the name: the zone goes when we made it and it holds nothing else": Case(
        wish(delete_all=True, zone_is_ours=True), view(txt()), said(), "DestroyZone"
    ),
    "giving up the name: the zone stays when it was there before us": Case(
        wish(delete_all=True), view(txt()), said(), "-TXT #9"
    ),
    "giving up the name: the zone stays when it holds something else": Case(
        wish(delete_all=True, zone_is_ours=True), view(txt(), a(C, 3, name="www")), said(), "-TXT #9"
    ),
    "giving up the name: the zone stays when it delegates a name": Case(
        wish(delete_all=True, zone_is_ours=True), view(txt(), DnsRecord("NS", "eu", "ns.x", 60, 3)), said(), "-TXT #9"
    ),
    "giving up the name: the zone is gone already": Case(
        wish(delete_all=True), ZoneView(ZONE, None), {}, "", settled=True
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_plan(case: Case) -> None:
    plan = plan_dns(case.wish, case.zone, case.answers)
    assert short(plan.steps) == case.then
    assert [r.reason for r in plan.refusals] == ([case.refused] if case.refused else [])
    assert plan.settled is case.settled
    assert bool(plan.waits) is case.waits


def test_a_name_server_that_gives_no_answer_does_not_keep_a_name_from_being_settled() -> None:
    """It may be silent for days, and each look would read the zone at the provider, whose calls are counted."""
    assert plan_dns(wish(A), view(txt(), a(A)), {"ns1": answer(A), "ns2": SILENT}) == DnsPlan(settled=True)


ZONES: dict[str, tuple[str | None, tuple[str, ...], str]] = {
    "the wish": ("example.com", ("shop.example.com",), "example.com"),
    "the longest zone of the account that the name lies in": (None, ("com", "example.com", "b.com"), "example.com"),
    "the name itself when none fits": (None, ("ample.com",), "shop.example.com"),
    "the name itself when it is a zone": (None, ("example.com", "shop.example.com"), "shop.example.com"),
}


@pytest.mark.parametrize(("wanted", "account", "zone"), ZONES.values(), ids=ZONES)
def test_the_zone_is(wanted: str | None, account: tuple[str, ...], zone: str) -> None:
    assert choose_zone(DOMAIN, wanted, account) == zone


def test_names_within_a_zone() -> None:
    assert relative(DOMAIN, ZONE) == "shop"
    assert relative(ZONE, ZONE) == "@"
    assert owner_label("shop") == "_hasite.shop"
    assert owner_label("@") == "_hasite"
    assert owner_domain(DOMAIN) == "_hasite.shop.example.com"


def test_ownership_texts_are_read_as_they_are_written() -> None:
    assert owner_of_text(f'"{owner_text(POOL)}"') == POOL.uid
    assert owner_of_text("v=spf1 -all") is None
    assert owner_of_text("heritage=external-dns,uid=1") is None


SIGHT: dict[str, tuple[Answers, bool, bool]] = {
    "by all": ({"1": answer(A), "2": answer(A)}, True, False),
    "by one of two": ({"1": answer(A), "2": answer()}, False, False),
    "by none": ({"1": answer(), "2": answer()}, False, True),
    "by one, and the other is silent": ({"1": answer(A), "2": SILENT}, True, False),
    "not by one, and the other is silent": ({"1": answer(), "2": SILENT}, False, False),
    "nobody answers": ({"1": SILENT}, False, False),
    "nobody was asked": ({}, False, False),
}


@pytest.mark.parametrize(("answers", "seen", "gone"), SIGHT.values(), ids=SIGHT)
def test_an_address_is_seen(answers: Answers, seen: bool, gone: bool) -> None:
    assert seen_everywhere(A, answers) is seen
    assert gone_everywhere(A, answers) is gone


FILE = "shop.example.com. 60 IN A {}\n"
SPARE: dict[str, tuple[Answers, str | None, bool]] = {
    "all servers answer as wanted, and the zone file agrees": (said(A), FILE.format(A), True),
    "there is no zone file": (said(A), None, True),
    "a server answers with something else": ({"1": answer(A), "2": answer(B)}, FILE.format(A), False),
    "a server gives no answer, and the others answer as wanted": (
        {"1": answer(A), "2": SILENT},
        FILE.format(A),
        True,
    ),
    "no server gives an answer": ({"1": SILENT, "2": SILENT}, FILE.format(A), False),
    "a server does not know our TXT": (said(A, owner=None), FILE.format(A), False),
    "the zone file shows a doubled record": (said(A), FILE.format(A) * 2, False),
    "the zone file shows another TTL": (said(A), FILE.format(A).replace("60", "61"), False),
    "nobody was asked": ({}, FILE.format(A), False),
}


@pytest.mark.parametrize(("answers", "file", "spared"), SPARE.values(), ids=SPARE)
def test_a_read_of_the_zone_is_spared_when(answers: Answers, file: str | None, spared: bool) -> None:
    assert agrees(wish(A), answers, file) is spared


# A zone in memory whose servers follow it, one after the other.

ADDRESSES = (A, B, C)


@dataclass
class Zone:
    records: list[DnsRecord]
    shown: dict[str, Answer] = field(default_factory=dict)
    number: int = 1000
    touched: set[str] = field(default_factory=set)
    emptied: bool = False

    def answer(self) -> Answer:
        texts = frozenset(r.data for r in self.records if r.type == "TXT" and r.name == "_hasite.shop")
        return Answer(frozenset(self.data()), texts)

    def data(self) -> set[str]:
        return {r.data for r in self.records if r.name == "shop" and r.type in ("A", "AAAA")}

    def do(self, step: Step) -> None:
        had = bool(self.data())
        match step:
            case CreateRecord():
                self.number += 1
                self.records.append(replace(step.record, id=self.number))
            case DeleteRecord() | UpdateRecord():
                self.records = [r for r in self.records if r.id != step.record.id]
                self.records += [step.record] if isinstance(step, UpdateRecord) else []
        assert isinstance(step, CreateRecord | DeleteRecord | UpdateRecord)
        self.touched.add(step.record.name)
        self.emptied |= had and not self.data()

    def follow(self, dice: random.Random) -> None:
        """One server, or both, take over what the zone holds."""
        for server in dice.choice([["ns1"], ["ns2"], ["ns1", "ns2"]]):
            self.shown[server] = self.answer()


AT_NAME = st.lists(st.tuples(st.sampled_from(ADDRESSES), st.sampled_from([60, 30])), max_size=4)
TEXTS = st.sampled_from([(), (POOL,), (POOL, POOL), (OTHER,), (OTHER, POOL), (POOL, OTHER)])
WANTED = st.lists(st.sampled_from(ADDRESSES), unique=True, min_size=1, max_size=3).map(tuple)
DISOWNED = st.sampled_from([frozenset[str](), frozenset({A}), frozenset({A, B})])
ELSEWHERE = (a(C, 51, "www"), DnsRecord("MX", "shop", "mail.", 60, 52), DnsRecord("TXT", "shop", "v=spf1", 60, 53))


def zone_of(at_name: Sequence[tuple[str, int]], texts: Sequence[Owner]) -> Zone:
    records = [a(data, 1 + n, ttl=ttl) for n, (data, ttl) in enumerate(at_name)]
    records += [txt(owner, 21 + n) for n, owner in enumerate(texts)]
    zone = Zone([SOA, NS, *ELSEWHERE, *records])
    zone.shown = {"ns1": zone.answer(), "ns2": zone.answer()}
    return zone


def work(zone: Zone, what: DnsWish, seed: int) -> DnsPlan:
    """Until it is still for a while. The answers trail behind by up to some rounds."""
    dice = random.Random(seed)
    quiet, plan = 0, DnsPlan()
    for _ in range(60):
        plan = plan_dns(what, ZoneView(ZONE, tuple(zone.records)), zone.shown)
        for step in plan.steps:
            zone.do(step)
        if dice.random() < 0.6:
            zone.follow(dice)
        quiet = 0 if plan.steps else quiet + 1
        if quiet > 15:
            return plan
    raise AssertionError(f"it never comes to rest: {short(plan.steps)}")


@settings(max_examples=150, deadline=None)
@given(at_name=AT_NAME, texts=TEXTS, wanted=WANTED, disowned=DISOWNED, seed=st.integers(0, 99))
def test_every_zone_comes_to_the_wish_or_to_a_refusal_and_stays_still(
    at_name: list[tuple[str, int]], texts: tuple[Owner, ...], wanted: tuple[str, ...], disowned: set[str], seed: int
) -> None:
    zone = zone_of(at_name, texts)
    before = list(zone.records)
    what = wish(*wanted, disowned=frozenset(disowned - set(wanted)))
    plan = work(zone, what, seed)
    ours = texts[:1] == (POOL,)
    foreign = {data for data, _ in at_name} - set(wanted)
    if plan.refusals:
        assert not ours
        kept = [r for r in before if not (r.type == "TXT" and owner_of_text(r.data) == POOL.uid)]
        assert zone.records == kept, "of what others own, not a thing changed"
    else:
        assert ours or (not texts and not foreign)
        records = [r for r in zone.records if r.name == "shop" and r.type == "A"]
        assert sorted(r.data for r in records) == sorted(wanted)
        assert {r.ttl for r in records} == {60}
        assert plan.settled
    assert zone.touched <= {"shop", "_hasite.shop"}
    assert set(ELSEWHERE) <= set(zone.records)
    if zone.emptied:
        assert {data for data, _ in at_name} <= what.disowned, "only what is not ours leaves a name empty"


@settings(max_examples=100, deadline=None)
@given(at_name=AT_NAME, texts=TEXTS, seed=st.integers(0, 99))
def test_a_name_that_is_given_up_is_left_without_anything_of_ours_and_nothing_else_is_touched(
    at_name: list[tuple[str, int]], texts: tuple[Owner, ...], seed: int
) -> None:
    zone = zone_of(at_name, texts)
    before = set(zone.records)
    plan = work(zone, wish(delete_all=True), seed)
    assert plan.settled
    assert not any(r.type == "TXT" and owner_of_text(r.data) == POOL.uid for r in zone.records)
    gone = before - set(zone.records)
    if texts[:1] != (POOL,):
        assert all(r.type == "TXT" for r in gone)
    assert all(r.name in ("shop", "_hasite.shop") for r in gone)


@settings(max_examples=150, deadline=None)
@given(wanted=WANTED, lost=st.sets(st.integers(0, 3), min_size=1), extra=st.booleans())
def test_a_short_read_deletes_nothing_and_doubles_nothing(wanted: tuple[str, ...], lost: set[int], extra: bool) -> None:
    """The servers answer with records that the list lacks."""
    unwanted = [x for x in ADDRESSES if x not in wanted][:1] if extra else []
    full = [txt(), *(a(x, n + 1) for n, x in enumerate(wanted))]
    missing = {n for n in lost if n < len(full)}
    listed = [r for n, r in enumerate(full) if n not in missing] + [a(x, 8) for x in unwanted]
    plan = plan_dns(wish(*wanted), view(*listed), said(*wanted, *unwanted))
    if missing:
        assert not plan.steps
        assert plan.waits


@settings(max_examples=100, deadline=None)
@given(at_name=AT_NAME, texts=TEXTS, wanted=WANTED)
def test_a_domain_that_does_not_exist_is_created_and_nothing_else(
    at_name: list[tuple[str, int]], texts: tuple[Owner, ...], wanted: tuple[str, ...]
) -> None:
    zone = zone_of(at_name, texts)
    plan = plan_dns(wish(*wanted), ZoneView(ZONE, None), zone.shown)
    assert [type(s) for s in plan.steps] == [CreateZone]
    assert not [s for s in plan.steps if isinstance(s, DestroyZone)]
