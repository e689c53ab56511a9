"""The protocol with one rule broken at a time. Each must be caught by the simulation, or the rule would be superfluous.

A mutation replaces named functions for a while. ``caught.json`` has a seed for each that finds it, and that
the protocol as it is passes. ``python -m tests.sim.mutations [NAME ...]`` looks for such seeds anew.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hasite.guard import ballot, candidate, election, goal, holder, protocol, records, sharedvoter, silence
from hasite.guard.messages import Release, Renew
from hasite.guard.model import Desired, Vote
from hasite.guard.state import Send, Store

from tests.sim import hush
from tests.sim import world as worlds
from tests.sim.scenario import Kind, Scenario, Shape
from tests.sim.world import Violation, World

Patch = tuple[Any, str, Any]
CAUGHT = Path(__file__).with_name("caught.json")
"""By mutation, a seed that catches it."""


@dataclass(frozen=True)
class Mutation:
    """``rule``: what is broken. ``shape``: where the rule matters, if not anywhere;
    ``focus``: the faults that it is against."""

    name: str
    rule: str
    patches: Callable[[], list[Patch]]
    shape: Shape | None = None
    focus: tuple[str, ...] = ()
    kind: Kind = "faults"


# --- the broken rules


def never_waits() -> list[Patch]:
    return [(ballot, "has_waited", lambda *_: True)]


def wall_clock() -> list[Patch]:
    return [(worlds.Node, "clock", lambda node, now: node.offset + node.rate * now + node.wall)]


def reachable_majority() -> list[Patch]:
    def has_majority(membership: Any, names: Any) -> bool:
        return bool(set(membership.voters) & set(names))

    def lease_base(reign: Any, membership: Any) -> float:
        return float(max(reign.vouched.get(voter, -inf) for voter in membership.voters))

    return [(election, "has_majority", has_majority), (holder, "lease_base", lease_base)]


def epoch_not_stored() -> list[Patch]:
    return [(worlds.Node, "store", lambda node, vote: None)]


def stored_after_answer() -> list[Patch]:
    def carry_out(node: Any, outputs: Any) -> None:
        ordered = tuple(sorted(outputs, key=lambda output: isinstance(output, Store)))
        original(node, ordered)

    original = worlds.Node.carry_out
    return [(worlds.Node, "carry_out", carry_out)]


def veto_ignored() -> list[Patch]:
    def trial_objection(mind: Any, ask: Any, timing: Any, now: float, alive: str) -> str:
        vote = mind.vote
        return "" if ask.epoch > vote.epoch else "old"

    return [(ballot, "trial_objection", trial_objection), (candidate, "alive", lambda *_: "")]


def lease_from_answer() -> list[Patch]:
    return [(holder, "sent_at", lambda reign, sequence, now: now)]


def any_sequence_counts() -> list[Patch]:
    return [(holder, "sent_at", lambda reign, sequence, now: reign.sent[-1][1] if reign.sent else now)]


def patience_forgotten() -> list[Patch]:
    original = protocol.start

    def start(settings: Any, vote: Vote, now: float) -> Any:
        guard = original(settings, vote, now)
        return replace(guard, ballot=replace(guard.ballot, quiet_from=-inf))

    return [(protocol, "start", start)]


def not_the_newest() -> list[Patch]:
    return [(election, "compare", lambda me, positions, facts: election.WIN)]


def eligible_ignored() -> list[Patch]:
    return [(election, "pool_of", lambda settings, record: None), (election, "too_far_behind", lambda facts: "")]


def too_few_heard() -> list[Patch]:
    return [(election, "needed_of", lambda pool, record: 1)]


def not_frozen() -> list[Patch]:
    original = goal.goal

    def unfrozen(guard: Any) -> Desired:
        desired = original(guard)
        if desired.role == "frozen" and guard.database.upstream:
            return Desired("standby", 0, guard.database.upstream)
        return desired

    def is_frozen(guard: Any) -> bool:
        return guard.database.state == "standby" and guard.database.position is not None

    return [(protocol, "goal", unfrozen), (holder, "goal", unfrozen), (candidate, "is_frozen", is_frozen)]


def degrades_before_recorded() -> list[Patch]:
    def waits(settings: Any, reign: Any, allies: Any) -> Any:
        change = reign.proposal
        return original(settings, replace(reign, record=change) if change else reign, allies)

    original = records.waits
    return [(records, "waits", waits)]


def eligible_before_waited_for() -> list[Patch]:
    return [(holder, "server_waits", lambda turn: True), (records, "caught_up", lambda *_: True)]


def new_majority_only() -> list[Patch]:
    def raise_needs(reign: Any, up: Any) -> Any:
        return (up.membership,)

    original = election.has_majorities

    def has_majorities(memberships: Any, names: Any) -> bool:
        return original(tuple(memberships)[:1], names)

    return [(holder, "raise_needs", raise_needs), (election, "has_majorities", has_majorities)]


def old_holder_resumes() -> list[Patch]:
    def expire(turn: Any) -> None:
        reign = turn.guard.reign
        if reign is not None and reign.throned and turn.now >= reign.deadline:
            turn.put_reign(deadline=turn.now + 0.5)

    return [(holder, "expire", expire)]


def no_fuse() -> list[Patch]:
    return [(World, "fuse", lambda world, node: None)]


def released_too_soon() -> list[Patch]:
    return [(holder, "is_stopped", lambda turn: True), (holder, "has_everything", lambda turn, target: True)]


def new_owner_is_free() -> list[Patch]:
    def written(turn: Any, outcome: Any) -> None:
        original(turn, outcome)
        if turn.voter.owned and turn.voter.ballot.quiet_from == turn.now and not turn.voter.writing:
            turn.put(ballot=replace(turn.voter.ballot, quiet_from=-inf))

    original = sharedvoter.written
    return [(sharedvoter, "written", written)]


def vouches_from_memory() -> list[Patch]:
    original = sharedvoter.step_shared

    def step_shared(voter: Any, event: Any, now: float) -> Any:
        after, outputs = original(voter, event, now)
        message = getattr(event, "message", None)
        if voter.owned and isinstance(message, Renew):
            mind, answer = ballot.vouch(after.ballot, "operator", message, now)
            if answer is not None and mind.vote == after.ballot.vote:
                outputs = (*outputs, Send(message.sender, answer))
                after = replace(after, ballot=mind)
        return after, outputs

    from tests.sim import operators

    return [(operators, "step_shared", step_shared)]


def unclear_is_done() -> list[Patch]:
    original = sharedvoter.written

    def written(turn: Any, outcome: Any) -> None:
        original(turn, "done" if outcome == "unclear" else outcome)

    return [(sharedvoter, "written", written)]


def copy_from_anybody() -> list[Patch]:
    def upstream_of(guard: Any, primary: str) -> str:
        for name, heard in sorted(guard.heard.items()):
            if guard.database.state == "absent" and heard.beat.database.streaming:
                return str(name)
        return primary

    return [(goal, "upstream_of", upstream_of)]


def record_not_at_majority() -> list[Patch]:
    def is_stored(reign: Any, record: Any, electorates: Any) -> bool:
        return True

    return [(records, "is_stored", is_stored)]


def lag_ignored() -> list[Patch]:
    return [(election, "too_far_behind", lambda facts: "")]


def left_behind() -> list[Patch]:
    return [(candidate, "behind", lambda guard, campaign: guard.lag)]


def anybody_answers() -> list[Patch]:
    return [(silence, "is_over_all", lambda turn, intent: True)]


def orders_stay() -> list[Patch]:
    return [(candidate, "ORDER_SECONDS", inf)]


def ghost_release() -> list[Patch]:
    def release(mind: Any, message: Release) -> Any:
        return replace(mind, released=mind.vote.epoch)

    return [(ballot, "release", release)]


def stale_look() -> list[Patch]:
    return [(hush, "unseen", lambda last: replace(last, streaming=False))]


SYNC3 = Shape("1+1+1", "synchronous", False, "postgresql", 1)
PAIR = Shape("1+1", "synchronous", False, "postgresql", 1)
DEGRADED = Shape("1+1", "synchronous", True, "postgresql", 1)
ASYNC = Shape("1+1", "asynchronous", False, "postgresql", 1)
TWO = Shape("1+1", "asynchronous", True, "postgresql", 2)
SYNC_TWO = Shape("1+1", "synchronous", True, "postgresql", 2)
FOUR = Shape("2+2", "synchronous", False, "postgresql", 1)
WITNESS = Shape("1+1+witness", "synchronous", True, "postgresql", 1)
SEMI_SYNC3 = Shape("1+1+1", "synchronous", False, "mariadb", 1)
SYNC3_DEGRADED = Shape("1+1+1", "synchronous", True, "postgresql", 1)

DISK = ("crash_in_store", "crash_in_store", "crash_node", "crash_primary", "cut_pair", "cut_site")
STORES = ("lose_a_record",)
DELAYS = ("slow_link", "slow_link", "cut_one_way", "cut_pair", "cut_site")
RESTARTS = ("restart_guard", "cut_one_way", "cut_site", "cut_pair", "restart_guard")
LAGS = ("lag", "lag", "crash_primary", "lie_in_wait", "cut_pair", "cut_site", "crash_site")
JOINS = ("lag", "lag", "crash_follower", "kill_at_turn", "kill_at_turn")
SUDDEN = ("die_by_halves",)
COPIES = ("lose_disk", "lose_disk", "lag", "lag", "crash_primary", "crash_server")
UNCLEAR = ("mute_object", "mute_object", "crash_operator", "cut_site", "crash_primary", "cut_pair")
PAUSES = ("pause_primary_guard", "cut_site", "crash_server")
OPERATORS = ("cut_site", "crash_operator", "pause_operator", "lose_object", "lose_object", "cut_pair", "cut_one_way")
MEMBERS = ("change_membership", "change_membership", "cut_site", "cut_site", "lie_in_wait")
HANDOVERS = ("switch_over", "switch_over", "crash_server", "lie_in_wait", "pause_primary_guard")

MUTATIONS = (
    Mutation("no wait before granting", "a voter's patience", never_waits, focus=RESTARTS),
    Mutation("wall clock", "time is measured on a monotonic clock", wall_clock, focus=("jump_clock", *RESTARTS)),
    Mutation("majority of the reachable", "of all voters", reachable_majority, focus=RESTARTS),
    Mutation("epoch not stored", "a vote survives a restart", epoch_not_stored, focus=DISK),
    Mutation(
        "stored after the answer",
        "a vote is on disk before it is answered",
        stored_after_answer,
        shape=WITNESS,
        focus=STORES,
    ),
    Mutation("veto ignored", "nobody asks while somebody sees the primary live", veto_ignored, shape=PAIR, kind="deaf"),
    Mutation(
        "lease from the answer", "a lease runs from when it was asked for", lease_from_answer, shape=PAIR, focus=DELAYS
    ),
    Mutation(
        "any sequence counts", "an answer counts for its own request", any_sequence_counts, shape=PAIR, focus=DELAYS
    ),
    Mutation("patience forgotten", "a restarted voter waits", patience_forgotten, shape=PAIR, focus=RESTARTS),
    Mutation("not the newest", "the greatest position reigns", not_the_newest, shape=SYNC3, focus=LAGS),
    Mutation("eligible ignored", "only who has all writes reigns", eligible_ignored, shape=DEGRADED, focus=LAGS),
    Mutation("too few heard", "enough of the eligible are heard", too_few_heard, shape=FOUR, focus=LAGS),
    Mutation("not frozen", "positions of frozen receivers are compared", not_frozen, shape=SYNC3, focus=SUDDEN),
    Mutation("stale look", "what is not seen is not told", stale_look, shape=SYNC3, focus=("die_unheard",)),
    Mutation("degrades first", "recorded, then done", degrades_before_recorded, shape=DEGRADED, focus=LAGS),
    Mutation("eligible first", "done, then recorded", eligible_before_waited_for, shape=DEGRADED, focus=JOINS),
    Mutation("new majority only", "both, while the membership changes", new_majority_only, shape=PAIR, focus=MEMBERS),
    Mutation("old holder resumes", "a lease that ran out is over", old_holder_resumes, focus=RESTARTS),
    Mutation("no fuse", "a guard that hangs is fenced all the same", no_fuse, focus=PAUSES),
    Mutation("released too soon", "an epoch is given up by a stopped server", released_too_soon, focus=HANDOVERS),
    Mutation("new owner is free", "an operator that takes over waits", new_owner_is_free, shape=TWO, focus=OPERATORS),
    Mutation("vouches from memory", "an operator reads first", vouches_from_memory, shape=TWO, focus=OPERATORS),
    Mutation("unclear is done", "an unclear write is found out about", unclear_is_done, shape=SYNC_TWO, focus=UNCLEAR),
    Mutation(
        "copy from anybody", "an eligible member copies from the primary", copy_from_anybody, shape=SYNC3, focus=COPIES
    ),
    Mutation(
        "record not at a majority", "before it is relied on", record_not_at_majority, shape=SYNC3_DEGRADED, focus=LAGS
    ),
    Mutation("lag ignored", "no more is lost than allowed", lag_ignored, shape=ASYNC, focus=LAGS),
    Mutation("lag of the stream only", "the time without it counts", left_behind, shape=ASYNC, focus=("leave_behind",)),
    Mutation(
        "anybody answers",
        "a record waits until others are silent",
        anybody_answers,
        shape=SEMI_SYNC3,
        focus=("answer_out_of_turn",),
    ),
    Mutation(
        "orders stay",
        "an order to promote that nothing came of is void after a while",
        orders_stay,
        shape=ASYNC,
        focus=("order_in_vain",),
    ),
    Mutation("anybody releases", "only the holder gives its epoch up", ghost_release, focus=HANDOVERS),
)


@contextmanager
def broken(rule: Callable[[], list[Patch]]) -> Iterator[None]:
    """The protocol with the rule broken."""
    with ExitStack() as stack:
        for target, name, value in rule():
            stack.enter_context(patch.object(target, name, value))
        yield


def caught(mutation: Mutation, seed: int) -> str:
    """The violation that this seed finds; empty: none."""
    with broken(mutation.patches):
        return outcome(mutation, seed)


def outcome(mutation: Mutation, seed: int) -> str:
    """The violation of this run, without seed and time."""
    try:
        Scenario(seed, shape=mutation.shape, focus=mutation.focus, kind=mutation.kind, busy=60.0).run()
    except Violation as violation:
        return str(violation).split(": ", 1)[1]
    return ""


def hunt(mutation: Mutation, seeds: range) -> int | None:
    """The first seed that catches it and that the rule in force passes."""
    for seed in seeds:
        violation = caught(mutation, seed)
        if violation and not outcome(mutation, seed):
            print(f"{mutation.name}: seed {seed}: {violation[:120]}", flush=True)
            return seed
    print(f"{mutation.name}: NOT CAUGHT in {len(seeds)} seeds", flush=True)
    return None


def main() -> None:
    """Looks for seeds and writes them down."""
    names = sys.argv[1:]
    found = {m.name: hunt(m, range(1, 400)) for m in MUTATIONS if not names or m.name in names}
    known = json.loads(CAUGHT.read_text()) if CAUGHT.exists() else {}
    known.update({name: seed for name, seed in found.items() if seed is not None})
    CAUGHT.write_text(json.dumps(known, indent=2) + "\n")


if __name__ == "__main__":
    main()
