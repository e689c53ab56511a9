"""From the published set to changes of records: ownership, make before break, and the last address.

The rules, each with what it exists for:

- Ownership is a TXT record beside the name; without ours, nothing at the name is touched (other people's records).
  Where all that is there are the wanted addresses, it was removed by mistake, and is put back.
- What the provider lists and what its servers answer must agree that something is there before it is called absent
  (a list that is short by mistake).
- Additions come first and are seen on every authoritative server that answers before a working address is removed
  (make before break).
- Nothing is changed while the zone could not be read in full.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hasite.plan.names import Owner, owner_of_text, owner_text
from hasite.plan.steps import CreateRecord, CreateZone, DeleteRecord, DestroyZone, Refusal, Step, UpdateRecord, Wait
from hasite.plan.world import Answer, DnsRecord, Unknown, ZoneView

ADDRESS_TYPES = ("A", "AAAA")


def family(address: str) -> str:
    """The record type that holds an address."""
    return "AAAA" if ":" in address else "A"


def choose_zone(domain: str, wish: str | None, zones: Sequence[str]) -> str:
    """The wish, else the longest zone of the account that the name lies in, else the name itself."""
    if wish:
        return wish
    fitting = [zone for zone in zones if domain == zone or domain.endswith("." + zone)]
    return max(fitting, key=len, default=domain)


def relative(domain: str, zone: str) -> str:
    """``shop.example.com`` within ``example.com`` → ``shop``; the zone itself → ``@``."""
    return "@" if domain == zone else domain.removesuffix("." + zone)


def owner_label(name: str) -> str:
    """Where the ownership TXT stands, relative to the zone."""
    return "_hasite" if name == "@" else f"_hasite.{name}"


def owner_domain(domain: str) -> str:
    """The same as a full name."""
    return f"_hasite.{domain}"


@dataclass(frozen=True)
class DnsWish:
    """What the zone should say. ``disowned``: addresses that must go even without a replacement."""

    domain: str
    zone: str
    owner: Owner
    addresses: tuple[str, ...]
    ttl: int
    disowned: frozenset[str] = frozenset()
    delete_all: bool = False
    patient: bool = True
    """Whether a server that gives no answer holds up the end of a removal."""
    zone_is_ours: bool = False


@dataclass(frozen=True)
class DnsPlan:
    """Steps in order. ``settled``: every authoritative server says just what is wanted.

    ``doubtful``: the zone seems to have been read short.
    """

    steps: tuple[Step, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    waits: tuple[Wait, ...] = ()
    settled: bool = False
    doubtful: bool = False


Answers = Mapping[str, Answer | Unknown]


def gone_everywhere(address: str, answers: Answers) -> bool:
    """Every authoritative server was asked, and none gives the address."""
    return bool(answers) and all(isinstance(a, Answer) and address not in a.addresses for a in answers.values())


def seen_everywhere(address: str, answers: Answers) -> bool:
    """Every authoritative server that answers gives the address, and at least one does."""
    known = [a for a in answers.values() if isinstance(a, Answer)]
    return bool(known) and all(address in a.addresses for a in known)


def agrees(wish: DnsWish, answers: Answers, zone_file: str | None) -> bool:
    """A read of the zone can be spared: the servers that answer say what is wanted, and nothing is doubled."""
    known = [answer for answer in answers.values() if isinstance(answer, Answer)]
    if not known or wish.delete_all:
        return False
    text = owner_text(wish.owner)
    if any(answer.addresses != frozenset(wish.addresses) or text not in answer.txt for answer in known):
        return False
    return zone_file is None or not _hint_of_drift(wish, zone_file)


def _hint_of_drift(wish: DnsWish, zone_file: str) -> bool:
    """The zone file is a hint: it only ever causes a fresh read."""
    name = wish.domain + "."
    rows = [line.split() for line in zone_file.splitlines()]
    rows = [row for row in rows if len(row) >= 5 and row[0] == name and row[3] in ADDRESS_TYPES]
    return sorted(row[4] for row in rows) != sorted(wish.addresses) or any(row[1] != str(wish.ttl) for row in rows)


def plan_dns(wish: DnsWish, view: ZoneView | Unknown, answers: Answers) -> DnsPlan:
    """The changes that lead from the zone to the wish."""
    if isinstance(view, Unknown):
        return DnsPlan(waits=(Wait(f"zone {wish.zone} cannot be read: {view.why}", 5.0),))
    if view.records is None:
        create = CreateZone(wish.zone, "the domain is absent at the provider")
        return DnsPlan(settled=True) if wish.delete_all else DnsPlan(steps=(create,))
    at = _At.read(wish, view.records)
    short = _short_read(at, answers, wish)
    if short:
        return DnsPlan(waits=(Wait(short, 2.0),), doubtful=True)
    if wish.delete_all:
        return _plan_removal(wish, at, view.records, answers)
    refusal = at.refusal(wish)
    return DnsPlan(_take_back(wish, at), refusals=(refusal,)) if refusal else _plan_changes(wish, at, answers)


@dataclass(frozen=True)
class _At:
    """What the zone holds at our name and at its ownership name."""

    name: str
    addresses: tuple[DnsRecord, ...]
    blockers: tuple[DnsRecord, ...]
    our_texts: tuple[DnsRecord, ...]
    other_owner: str | None
    stray: tuple[DnsRecord, ...] = field(default=())

    @property
    def owned_by_us(self) -> bool:
        return bool(self.our_texts)

    @classmethod
    def read(cls, wish: DnsWish, records: Sequence[DnsRecord]) -> "_At":
        name = relative(wish.domain, wish.zone)
        label = owner_label(name)
        texts = sorted((r for r in records if r.name == label and r.type == "TXT"), key=lambda r: r.id)
        owners = [(r, owner_of_text(r.data)) for r in texts]
        first = next((uid for _, uid in owners if uid is not None), None)
        return cls(
            name=name,
            addresses=tuple(r for r in records if r.name == name and r.type in ADDRESS_TYPES),
            blockers=tuple(r for r in records if r.name == name and r.type == "CNAME"),
            our_texts=tuple(r for r, uid in owners if uid == wish.owner.uid) if first == wish.owner.uid else (),
            other_owner=first if first not in (None, wish.owner.uid) else None,
            stray=tuple(r for r, uid in owners if uid == wish.owner.uid and first != wish.owner.uid),
        )

    def refusal(self, wish: DnsWish) -> Refusal | None:
        """The first rule that keeps us from the name."""
        if self.other_owner is not None:
            return Refusal(
                "DomainOwnedByOther",
                f"{wish.domain} belongs to the resource with UID {self.other_owner}, by its TXT record",
            )
        if self.blockers:
            return Refusal("ForeignRecords", f"{wish.domain} has a CNAME record, to {self.blockers[0].data}")
        foreign = sorted(r.data for r in self.addresses if r.data not in wish.addresses)
        if foreign and not self.owned_by_us:
            found = ", ".join(foreign)
            return Refusal(
                "ForeignRecords",
                f"{wish.domain} has records that are not ours ({found}): delete them, or choose another name",
            )
        return None


def _take_back(wish: DnsWish, at: _At) -> tuple[Step, ...]:
    """Our ownership records where another was there first."""
    return tuple(DeleteRecord(wish.zone, r, "another owned the name before us") for r in at.stray)


def _short_read(at: _At, answers: Answers, wish: DnsWish) -> str | None:
    """The provider does not list what its servers answer with: our TXT, or an address that is wanted."""
    text, listed = owner_text(wish.owner), {r.data for r in at.addresses}
    answering = sorted(s for s, a in answers.items() if isinstance(a, Answer) and text in a.txt)
    if answering and not at.owned_by_us and at.other_owner is None:
        return f"the provider lists no ownership record of {wish.domain}, but {answering[0]} still answers with ours"
    for address in wish.addresses:
        if not wish.delete_all and address not in listed and seen_everywhere(address, answers):
            return f"the provider does not list {address} for {wish.domain}, but its servers still answer with it"
    return None


def _plan_changes(wish: DnsWish, at: _At, answers: Answers) -> DnsPlan:
    steps: list[Step] = []
    waits: list[Wait] = []
    if not at.owned_by_us:
        if not wish.addresses:
            return DnsPlan()
        record = DnsRecord("TXT", owner_label(at.name), owner_text(wish.owner), max(wish.ttl, 300))
        return DnsPlan(steps=(CreateRecord(wish.zone, record, "it proves that the name is ours"),))
    steps += [DeleteRecord(wish.zone, r, "the ownership record is doubled") for r in at.our_texts[1:]]
    present: dict[str, DnsRecord] = {}
    extra: list[tuple[DnsRecord, str]] = []
    for record in sorted(at.addresses, key=lambda r: r.id):
        if record.data not in wish.addresses:
            extra.append((record, "it is not to be published"))
        elif record.data in present:
            extra.append((record, "it is doubled"))
        else:
            present[record.data] = record
    missing = [address for address in wish.addresses if address not in present]
    gone = [(r, why) for r, why in extra if r.data in wish.disowned]
    urgent = [DeleteRecord(wish.zone, r, "its address is not ours any more") for r, _ in gone]
    for address in missing:
        steps.append(
            CreateRecord(wish.zone, DnsRecord(family(address), at.name, address, wish.ttl), "it is to be published")
        )
    removals, wait = _removals(wish, [e for e in extra if e not in gone], present, answers)
    waits += wait
    for record in present.values():
        if record.ttl != wish.ttl:
            changed = DnsRecord(record.type, record.name, record.data, wish.ttl, record.id)
            steps.append(UpdateRecord(wish.zone, changed, f"its TTL is {record.ttl}"))
    ordered = (*urgent, *removals, *steps)
    settled = not ordered and agrees(wish, answers, None)
    if not ordered and not settled:
        waits.append(Wait("not every authoritative server answers with the published set yet", 0.5))
    return DnsPlan(tuple(ordered), (), tuple(waits), settled)


def _removals(
    wish: DnsWish, extra: Sequence[tuple[DnsRecord, str]], present: Mapping[str, DnsRecord], answers: Answers
) -> tuple[list[Step], list[Wait]]:
    """Deletions that leave at least one wanted address behind that visitors can already find."""
    if not extra:
        return [], []
    doubled = [DeleteRecord(wish.zone, r, why) for r, why in extra if r.data in present]
    others = [(r, why) for r, why in extra if r.data not in present]
    if not others:
        return [*doubled], []
    seen = {address for address in present if seen_everywhere(address, answers)}
    wanted = {family(address) for address in wish.addresses}
    free = [(r, why) for r, why in others if seen and (r.type not in wanted or any(family(a) == r.type for a in seen))]
    waiting = Wait("nothing is removed before a published address is seen on the authoritative servers", 0.5)
    waits = [waiting] if len(free) < len(others) else []
    return [*doubled, *(DeleteRecord(wish.zone, r, why) for r, why in free)], waits


def _plan_removal(wish: DnsWish, at: _At, records: Sequence[DnsRecord], answers: Answers) -> DnsPlan:
    """The name is given up: addresses, then, once no server gives them, the TXT, then the zone if it was ours."""
    if not at.owned_by_us:
        steps = _take_back(wish, at)
        return DnsPlan(steps=steps, settled=not steps)
    if at.addresses:
        return DnsPlan(steps=tuple(DeleteRecord(wish.zone, r, "the name is given up") for r in at.addresses))
    still = sorted(s for s, a in answers.items() if (a.addresses if isinstance(a, Answer) else wish.patient))
    if still:
        return DnsPlan(waits=(Wait(f"{', '.join(still)} may still answer with our addresses", 0.5),))
    mine = {r.id for r in at.our_texts}
    if wish.zone_is_ours and all(r.id in mine or _from_the_start(r) for r in records):
        return DnsPlan(steps=(DestroyZone(wish.zone, "we created it, and it holds nothing else"),))
    return DnsPlan(steps=tuple(DeleteRecord(wish.zone, r, "the name is given up") for r in at.our_texts))


def _from_the_start(record: DnsRecord) -> bool:
    """What every zone holds. An NS record further down is somebody's delegation."""
    return record.name == "@" and record.type in ("SOA", "NS")
