"""Who receives from whom in a ring, given who lives; and that nothing of it reaches a database with one primary."""

from dataclasses import replace

import pytest
from hasite.guard import protocol, ring
from hasite.guard.engines.mysqlcommon_domains import lacking, size, union
from hasite.guard.engines.mysqlcommon_members import bases, first_row, server_id, writer_of
from hasite.guard.goal import goal
from hasite.guard.health import verdicts
from hasite.guard.messages import Answer, Ask, Beat, Message, Order, Release, Renew, Renewed, Yield
from hasite.guard.model import Conflict, Database, Desired, Member, Membership, Position, Settings, Timing, Vote
from hasite.guard.protocol import Guard, Observed, Received, Send, Tick
from hasite.plan.names import Owner, droplet_name, ordinal_of
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

NAMES = ("a", "b", "c", "d")
UPSTREAMS: dict[str, tuple[str, str | None, str, str, str | None]] = {
    # name, current, sound, settled, wanted
    "its predecessor": ("b", "a", "acd", "acd", "a"),
    "the first one's is the last": ("a", "d", "bcd", "bcd", "d"),
    "of two, each other": ("a", None, "b", "b", "b"),
    "the nearest before one that is dead": ("c", "b", "ad", "ad", "a"),
    "one that is back, once it is settled": ("c", "a", "abd", "abd", "b"),
    "not before": ("c", "a", "abd", "ad", "a"),
    "any at once in place of one that is lost": ("c", "a", "bd", "d", "b"),
    "any at once when there was none": ("c", None, "ab", "", "b"),
    "nobody when nobody lives": ("c", "b", "", "", None),
}


@pytest.mark.parametrize("case", UPSTREAMS)
def test_upstreams(case: str) -> None:
    name, current, sound, settled, wanted = UPSTREAMS[case]
    assert ring.upstream(name, NAMES, current, set(sound), set(settled)) == wanted


@examples(deadline=None)
@given(st.sets(st.sampled_from("abcdefgh"), min_size=2), st.data())
def test_the_live_members_are_one_ring_whatever_was_before(live: set[str], data: st.DataObject) -> None:
    names = tuple("abcdefgh")
    whom = {}
    for name in live:
        current = data.draw(st.sampled_from([None, *(n for n in names if n != name)]))
        whom[name] = ring.upstream(name, names, current, live - {name}, live - {name})
    assert all(upstream in live for upstream in whom.values())
    start = min(live)
    way, at = [start], whom[start]
    while at != start:
        assert at is not None and at not in way
        way.append(at)
        at = whom[at]
    assert set(way) == live


@examples(deadline=None)
@given(st.lists(st.sets(st.sampled_from("bcd")), min_size=1, max_size=30))
def test_one_that_comes_and_goes_moves_nobody_before_it_has_stayed(sounds: list[set[str]]) -> None:
    """Whoever is received from is left only when it is lost, or for one that is settled."""
    current: str | None = None
    for sound in sounds:
        chosen = ring.upstream("a", NAMES, current, sound, set())
        assert chosen == current or current not in sound
        current = chosen


@examples(deadline=None)
@given(st.sets(st.integers(0, 40), min_size=1, max_size=ring.INCREMENT))
def test_no_two_members_number_their_rows_alike(serials: set[int]) -> None:
    names = [f"orders-db-new-york-{serial}-4k2j9d-3e2bb83e" for serial in serials]
    given_out = ring.numbers(names)
    assert len(set(given_out.values())) == len(names)
    assert set(given_out.values()) <= set(range(1, ring.INCREMENT + 1))


def test_members_are_numbered_by_the_number_in_the_names_that_the_operator_gives_them() -> None:
    owner = Owner("3e2bb83e-fd31-4c47-b8b4-685d9efb08b8", "shop", "orders")
    names = [droplet_name(owner, "db", "new-york", "4k2j9d", serial) for serial in (0, 3)]
    assert [ordinal_of(name) for name in names] == [0, 3]
    assert sorted(ring.numbers(names).values()) == [1, 4]


def test_growing_changes_no_members_numbers() -> None:
    few, more = (
        ring.numbers([f"orders-db-x-{n}-4k2j9d-3e2bb83e" for n in serials]) for serials in ((0, 1), (0, 1, 2, 7))
    )
    assert few.items() <= more.items()


def test_members_and_their_incarnations_are_told_apart() -> None:
    settings = SETTINGS
    ids = {server_id(settings, incarnation) for incarnation in range(3)}
    assert len(ids) == 3 and {writer_of(settings, each) for each in ids} == {"a"}
    assert writer_of(settings, 7) == ""
    assert len(set(bases([f"m{n}" for n in range(500)]).values())) == 500
    assert all(0 < each < 2**24 for each in bases([f"m{n}" for n in range(500)]).values())


def test_positions_of_several_domains() -> None:
    assert union("1-1-5,2-2-7", "2-9-8") == "1-1-5,2-9-8"
    assert union("", None) == ""
    assert lacking("1-1-5,2-2-7", "1-1-5,2-2-3") == "2:4-7"
    assert lacking("1-1-5", "1-1-6,3-3-1") == ""
    assert size("1-1-5,2-2-7") == 12


def test_the_first_row_of_a_transaction_is_told_in_one_line() -> None:
    lines = [
        "#241124 server id 5",
        "### INSERT INTO `shop`.`t`",
        "### SET",
        "###   @1=5 /* INT meta=0 nullable=0 is_null=0 */",
        "###   @2='it' /* VARSTRING */",
        "### INSERT INTO `shop`.`t`",
        "### SET",
    ]
    assert first_row(lines) == "INSERT INTO `shop`.`t` SET @1=5 @2='it'"


# --- the guard of a member

MEMBERS = tuple(Member(name, name, name) for name in "abc")
TRIO = Membership(1, MEMBERS, ("a", "b", "c"))
SETTINGS = Settings("shop", "a", "mariadb", "10.11", "PrimaryPrimary", "asynchronous", False, 5.0, TRIO)
TTL = Timing().ttl
WRITABLE = Database("primary", Position(3, 0), True, read_only=False)
CLASH = Conflict(1062, "Duplicate entry '5' for key 'PRIMARY'", "1-1-9", "b", "INSERT")


def beat(sender: str, database: Database = WRITABLE, lease: float = 0.0) -> Beat:
    return Beat(sender, 3, "c", lease, "ring", database)


def member(database: Database = WRITABLE, now: float = 0.0) -> Guard:
    guard = protocol.start(SETTINGS, Vote(3, "c", TRIO), now)
    return protocol.step(guard, Observed(database, None), now)[0]


def hear(guard: Guard, now: float, *beats: Beat) -> Guard:
    for each in beats:
        guard, _ = protocol.step(guard, Received(each), now)
    return guard


def leading() -> tuple[Guard, float]:
    """a holds the lease, with the vouches of b and c."""
    guard, now = member(), 0.0
    for _ in range(200):
        now += 0.05
        events: list[Message | None] = [beat("c"), beat("b"), None]
        while events:
            event = events.pop(0)
            guard, out = protocol.step(guard, Received(event) if event else Tick(), now)
            events += [answer for each in out if isinstance(each, Send) and (answer := answer_of(each))]
        if guard.reign is not None and guard.reign.primary_seen:
            return guard, now
    raise AssertionError("it does not lead")


def answer_of(sent: Send) -> Answer | Renewed | None:
    message = sent.message
    if sent.to != "operator" and isinstance(message, Ask):
        vote = Vote(message.epoch, message.sender, message.membership)
        return Answer(sent.to, message.epoch, message.trial, True, vote, Position(3, 0), "", "primary", 9.0)
    if sent.to != "operator" and isinstance(message, Renew):
        return Renewed(sent.to, message.epoch, message.sequence, message.sync)
    return None


def test_it_receives_from_the_nearest_that_is_heard_and_keeps_its_upstream_while_that_is_only_quiet() -> None:
    guard = hear(member(), 0.1, beat("c"), beat("b"))
    assert guard.desired.upstream == "c"
    guard = hear(guard, TTL, beat("b"))
    assert guard.desired.upstream == "c"
    guard = hear(guard, TTL + 0.2, beat("b"))
    assert guard.desired.upstream == "b"


def test_one_that_has_a_conflict_is_passed_by_while_there_is_another() -> None:
    guard = hear(member(), 0.1, beat("c"), beat("b"))
    guard = hear(guard, 0.2, beat("c", replace(WRITABLE, conflict=CLASH)))
    assert guard.desired.upstream == "b"
    alone = hear(member(), 0.1, beat("c", replace(WRITABLE, conflict=CLASH)))
    assert alone.desired.upstream == "c"


def test_with_a_conflict_of_its_own_it_keeps_what_it_has_received() -> None:
    guard = hear(member(), 0.1, beat("c"), beat("b"))
    guard, _ = protocol.step(guard, Observed(replace(WRITABLE, conflict=CLASH, upstream="c"), None), 0.2)
    guard = hear(guard, 2 * TTL, beat("b"))
    assert guard.desired.upstream == "c"


def test_a_server_whose_guard_is_silent_is_received_from_while_it_sends() -> None:
    guard = hear(member(), 0.1, beat("c"), beat("b"))
    receiving = replace(WRITABLE, upstream="c", streaming=True)
    guard, _ = protocol.step(guard, Observed(receiving, None), 0.2)
    guard = hear(guard, 3 * TTL, beat("b"))
    assert guard.desired.upstream == "c"


def test_it_goes_on_alone_only_after_the_leases_time() -> None:
    guard = member()
    assert guard.desired == Desired("ring")
    guard, _ = protocol.step(guard, Tick(), TTL + 0.1)
    assert guard.desired == Desired("ring", alone=True)


def asks(settings: Settings, database: Database) -> bool:
    guard = protocol.start(settings, Vote(1, "a", TRIO), 0.0)
    _, out = protocol.step(guard, Observed(database, None), 2 * TTL)
    return any(isinstance(each, Send) and isinstance(each.message, Ask) for each in out)


def test_a_database_that_was_made_and_not_founded_is_founded_by_who_made_it() -> None:
    unfounded, first = Database("standby", Position(0, 0), True), replace(SETTINGS, bootstrap="a")
    assert asks(first, unfounded)
    assert not asks(SETTINGS, unfounded)
    assert not asks(first, replace(unfounded, position=Position(1, 0))), "it catches up first"


def test_the_loss_of_the_lease_stops_nothing() -> None:
    guard, now = leading()
    assert guard.desired.role == "ring" and guard.desired.epoch > 0
    guard, _ = protocol.step(guard, Tick(), now + 2 * TTL)
    assert guard.reign is None and not guard.ended
    assert guard.desired.role == "ring" and guard.desired.epoch == 0


def test_a_look_that_saw_nothing_costs_nobody_the_lead() -> None:
    guard, now = leading()
    guard, _ = protocol.step(guard, Observed(replace(WRITABLE, position=None), None), now)
    assert guard.reign is not None
    guard, _ = protocol.step(guard, Observed(Database("stopped"), None), now)
    assert guard.reign is None


def test_a_leader_with_a_conflict_hands_over_to_one_that_has_none() -> None:
    guard, now = leading()
    guard, out = protocol.step(guard, Observed(replace(WRITABLE, conflict=CLASH), None), now)
    said = [o for o in out if isinstance(o, Send)]
    assert any(isinstance(o.message, Yield) and o.to == "c" for o in said)
    assert any(isinstance(o.message, Release) for o in said)


def test_a_leader_with_a_conflict_goes_on_when_all_have_one() -> None:
    guard, now = leading()
    sick = replace(WRITABLE, conflict=CLASH)
    guard = hear(guard, now, beat("b", sick), beat("c", sick))
    guard, _ = protocol.step(guard, Observed(sick, None), now)
    assert guard.reign is not None


def test_a_switchover_is_refused_while_the_target_has_a_conflict() -> None:
    guard, now = leading()
    guard = hear(guard, now, beat("b", replace(WRITABLE, conflict=CLASH, streaming=True)))
    assert guard.reign is not None
    order = Order("operator", "switchover", "b", guard.reign.epoch)
    refused, _ = protocol.step(guard, Received(order), now)
    assert "conflict" in refused.refusal and refused.reign is not None
    guard = hear(guard, now, beat("b", replace(WRITABLE, streaming=True)))
    assert guard.reign is not None
    guard, out = protocol.step(replace(guard, refusal=""), Received(order), now)
    assert guard.reign is None and any(isinstance(o, Send) and isinstance(o.message, Yield) for o in out)


PAGES: dict[str, tuple[Beat, bool, bool, bool]] = {
    # the beat, local, /primary, /replica
    "who leads": (beat("a", lease=1.0), False, True, False),
    "another": (beat("a", replace(WRITABLE, streaming=True)), False, False, True),
    "another that does not receive": (beat("a"), False, False, False),
    "local: any": (beat("a"), True, True, False),
    "local: none that has a conflict": (beat("a", replace(WRITABLE, conflict=CLASH)), True, False, False),
    "local: but for the one that leads": (beat("a", replace(WRITABLE, conflict=CLASH), 1.0), True, True, False),
    "none that refuses writes": (beat("a", Database("standby", Position(3, 0)), 1.0), True, False, False),
}


@pytest.mark.parametrize("case", PAGES)
def test_pages(case: str) -> None:
    said, local, primary, replica = PAGES[case]
    found = verdicts(said, local)
    assert (found["/primary"], found["/replica"]) == (primary, replica)


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"])
def test_with_one_primary_no_state_of_a_guard_leads_to_a_ring(engine: str) -> None:
    """The safety of the one must not rest on the other: every state that a ring can be in has another goal there."""
    single = replace(SETTINGS, topology="PrimaryReplica", engine=engine)  # type: ignore[arg-type]
    guard, now = leading()
    for state in (guard, member(), hear(member(), 0.1, beat("c"), beat("b")), replace(guard, reign=None, ended=True)):
        other = replace(state, settings=single)
        assert goal(other).role != "ring"
        for event in (Tick(), Observed(WRITABLE, None), Received(beat("b", lease=2.0))):
            after, _ = protocol.step(other, event, now + 0.1)
            assert after.desired.role != "ring"
            assert after.around == other.around
    lost, _ = protocol.step(replace(guard, settings=single), Tick(), now + 2 * TTL)
    assert lost.ended and lost.desired.role == "stopped"
    hearing, _ = protocol.step(replace(member(), settings=single), Received(beat("c", lease=2.0)), 0.1)
    assert hearing.followed is None, "a ring's leader is no primary to follow"
