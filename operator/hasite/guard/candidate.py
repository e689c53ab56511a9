"""From a silent primary to a new reign: a trial that changes nothing, then the question in earnest."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from math import inf
from zlib import crc32

from hasite.guard import ballot as ballots
from hasite.guard import election, records, ring
from hasite.guard.election import Facts, Verdict
from hasite.guard.messages import Answer, Ask, Order, Release, Yield
from hasite.guard.model import OPERATOR, Database, Position, SyncRecord
from hasite.guard.state import Campaign, Guard, Reign, Turn, learn

RANK_DELAY = 0.2
"""Seconds by which each better placed member goes first, so that two rarely ask at once."""

ORDER_SECONDS = 30.0
"""For how long an order to promote counts. Longer than the operator waits before it gives it again."""


def alive(guard: Guard, asker: str, now: float) -> str:
    """Who sees a primary live: its own word not long ago, or this member's stream from it. Empty: nobody here."""
    horizon = now - guard.settings.timing.ttl / 2
    for name, heard in guard.heard.items():
        beat = heard.beat
        if name != asker and heard.at > horizon and beat.lease_left > 0 and beat.database.state == "primary":
            return f"{name} reigns and said so {now - heard.at:.1f} s ago"
    if guard.reign is not None and guard.reign.throned:
        return f"{guard.name} reigns"
    if guard.settings.ring:
        return ""  # a stream says nothing about who leads
    upstream = guard.database.upstream
    if guard.database.streaming and upstream and upstream != asker and not denies(guard, upstream, now):
        return f"{guard.name} receives from {upstream}"
    return ""


def denies(guard: Guard, name: str, now: float) -> bool:
    """Whether this peer said not long ago that it does not reign: its server may be a standby that others receive."""
    heard = guard.heard.get(name)
    return heard is not None and heard.at > now - guard.settings.timing.ttl / 2 and heard.beat.lease_left <= 0


def is_frozen(guard: Guard) -> bool:
    """Whether the position of its data is final: nothing received, and all that was received applied.

    In a ring nothing is frozen, and any member that takes writes will do."""
    database = guard.database
    if guard.settings.ring:
        return ring.can_lead(database) or ring.may_found(guard)
    proved = guard.desired.role == "frozen" and guard.reached == guard.desired
    return proved and database.state == "standby" and database.drained and database.position is not None


def told(guard: Guard) -> Database:
    """This member's database, as it answers a candidate."""
    return ring.told(guard) if guard.settings.ring else guard.database


def bootstraps(guard: Guard) -> bool:
    """Whether it may make the database that nobody has yet."""
    return guard.settings.bootstrap == guard.name and guard.database.state == "absent"


def consider(turn: Turn) -> None:
    """Begins a trial when the primary seems gone and this member could follow it."""
    guard = turn.guard
    if turn.now < guard.next_try or guard.reign or guard.campaign or guard.ended or guard.owed or guard.leaving:
        return
    member = guard.member
    if member is None or member.witness:
        return
    able = is_frozen(guard) if guard.settings.ring else guard.database.state == "standby"
    if not bootstraps(guard) and (guard.database.position is None or not able):
        return
    begin(turn)


def begin(turn: Turn) -> None:
    """Asks everybody whether it would be granted the next epoch, itself first."""
    guard, now = turn.guard, turn.now
    ask = Ask(guard.name, max(guard.highest, guard.ballot.vote.epoch) + 1, True, *guard.known)
    reason = ballots.trial_objection(guard.ballot, ask, guard.settings.timing, now, alive(guard, guard.name, now))
    if reason:
        if not ballots.has_waited(guard.ballot, guard.settings.timing, now):
            turn.put(refusal="")
        turn.put(next_try=now + 0.05 if now < guard.urged else now + guard.settings.timing.renew / 5)
        return
    if now >= guard.urged and not guard.attempts:
        delay = place(guard, now) * RANK_DELAY
        if delay:
            turn.put(next_try=now + delay, attempts=1)
            return
    own = Answer(guard.name, ask.epoch, True, True, guard.ballot.vote, told(guard).position, "", guard.database.state)
    chosen = now < guard.urged
    campaign = Campaign(ask.epoch, True, now, now, *guard.known, {guard.name: own}, valid_order(guard, now), chosen)
    turn.put(campaign=campaign)
    turn.broadcast(ask)


def place(guard: Guard, now: float) -> int:
    """How many members that were heard lately have better claims: by data, preferred location, or else name."""
    positions = {guard.name: guard.database.position or Position(0, 0)}
    record = guard.ballot.vote.sync
    for name, heard in guard.heard.items():
        position = heard.beat.database.position
        eligible = record is None or not record.eligible or name in record.eligible
        if position and eligible and heard.at > now - guard.settings.timing.ttl and name != guard.ballot.vote.holder:
            positions[name] = position
    facts = Facts(guard.settings, guard.known[0], None, positions)
    claims = {name: election.claim(name, position, facts) for name, position in positions.items()}
    mine = claims[guard.name]
    return sum(claim > mine or (claim == mine and name < guard.name) for name, claim in claims.items())


def valid_order(guard: Guard, now: float) -> Order | None:
    """The order to promote this member, as long as no later reign is known than the one that it was given in, and not
    for long: while a person still means it, the operator repeats it."""
    order = guard.order
    if order is None or order.kind != "promote" or order.member != guard.name or order.epoch < guard.reigned:
        return None
    if now >= guard.ordered_at + ORDER_SECONDS:
        return None
    return order


def on_answer(turn: Turn, answer: Answer) -> None:
    """Notes an answer to the campaign under way; an objection ends a trial."""
    campaign = turn.guard.campaign
    learn(turn, answer.vote)
    if campaign is None or answer.epoch != campaign.epoch or answer.trial != campaign.trial:
        return
    campaign = replace(campaign, answers={**campaign.answers, answer.sender: answer})
    if not answer.granted and campaign.trial:
        give_up(turn, refused(turn.guard, campaign, turn.now), turn.guard.settings.timing.renew / 2)
        return
    vouched = max(campaign.vouched, turn.now - answer.quiet) if answer.granted else campaign.vouched
    turn.put(campaign=replace(campaign, vouched=vouched))


def give_up(turn: Turn, reason: str, delay: float) -> None:
    """Ends the campaign; ``delay`` until the next, a little more after each one, and never the same for two members."""
    guard = turn.guard
    again = min(guard.attempts, 4)
    part = crc32(f"{guard.name} {guard.highest} {guard.attempts}".encode()) % 1000 / 1000
    if reason != guard.refusal:
        turn.note(f"does not take over: {reason}")
    wait = min(delay, 0.05) if turn.now < guard.urged else delay * (1 + again / 2 * part)
    turn.put(campaign=None, refusal=reason, attempts=guard.attempts + 1, next_try=turn.now + wait)


def proceed(turn: Turn) -> None:
    """What follows from the answers so far and from the time that has passed."""
    guard = turn.guard
    campaign = guard.campaign
    if campaign is None:
        return
    timing = guard.settings.timing
    if not campaign.trial:
        campaign = with_own_position(guard, campaign)
        turn.put(campaign=campaign)
    granted = {name for name, answer in campaign.answers.items() if answer.granted}
    majority = election.has_majorities((campaign.membership, campaign.previous), granted)
    if majority and settled(guard, campaign, turn.now):
        decide(turn, campaign)
        return
    limit = 2 * timing.renew if campaign.trial else timing.ttl
    if turn.now >= campaign.began + limit or is_hopeless(guard, campaign, turn.now):
        give_back(turn, campaign)
        give_up(turn, missing(campaign), timing.renew)
    elif turn.now >= campaign.sent + timing.renew / 2:
        turn.put(campaign=replace(campaign, sent=turn.now))
        ask = Ask(guard.name, campaign.epoch, campaign.trial, campaign.membership, campaign.previous)
        for peer in sorted(guard.peers_wanted()):
            answer = campaign.answers.get(peer)
            if answer is None or (
                answer.granted and not campaign.trial and answer.position is None and peer != OPERATOR
            ):
                turn.send(peer, ask)


def is_hopeless(guard: Guard, campaign: Campaign, now: float) -> bool:
    """Whether even the grants of all who may still answer would be no majority: two candidates parted the voters."""
    horizon = now - guard.settings.timing.ttl / 2
    possible = {name for name, answer in campaign.answers.items() if answer.granted}
    possible |= {name for name, heard in guard.heard.items() if heard.at > horizon and name not in campaign.answers}
    possible |= {OPERATOR} - set(campaign.answers)
    return not campaign.trial and not election.has_majorities((campaign.membership, campaign.previous), possible)


def settled(guard: Guard, campaign: Campaign, now: float) -> bool:
    """Whether it is time to judge: everybody who is alive has answered, or has had the time to."""
    if not campaign.trial and not bootstraps(guard) and not is_frozen(guard):
        return False
    if now >= campaign.began + guard.settings.timing.renew / 2:
        return True
    horizon = now - guard.settings.timing.ttl / 2
    near = (name for name, heard in guard.heard.items() if heard.at > horizon)
    return all(name in campaign.answers for name in near)


def with_own_position(guard: Guard, campaign: Campaign) -> Campaign:
    """The candidate is a voter as well: its own data is frozen before it counts."""
    own = campaign.answers[guard.name]
    if own.position is not None or not is_frozen(guard):
        return campaign
    own = replace(own, position=told(guard).position, state="standby")
    return replace(campaign, answers={**campaign.answers, guard.name: own})


def voters_of(campaign: Campaign) -> set[str]:
    """Whose grants can count."""
    return {v for ms in (campaign.membership, campaign.previous) if ms for v in ms.voters}


def words(campaign: Campaign, silent: Collection[str]) -> str:
    """Which voters did not grant, and why."""
    said = [f"{n}: {a.reason}" for n, a in sorted(campaign.answers.items()) if not a.granted]
    return "; ".join(said + ([f"no answer from {', '.join(sorted(silent))}"] if silent else []))


def refused(guard: Guard, campaign: Campaign, now: float) -> str:
    """In words: who refused, and who has not even been heard lately. The others may have answered a moment later."""
    horizon = now - guard.settings.timing.ttl
    there = {name for name, heard in guard.heard.items() if heard.at > horizon}
    return words(campaign, voters_of(campaign) - set(campaign.answers) - there - {OPERATOR})


def missing(campaign: Campaign) -> str:
    """In words: which voters did not grant in time."""
    return words(campaign, voters_of(campaign) - set(campaign.answers)) or "the data was not frozen in time"


def decide(turn: Turn, campaign: Campaign) -> None:
    """A majority has granted. The data decides whether to ask in earnest, after a trial; and after that, to reign."""
    guard = turn.guard
    record = newest_record(campaign.answers)
    verdict = judge(guard, campaign, record)
    match verdict.kind:
        case "win" if campaign.trial:
            ask_in_earnest(turn, campaign)
        case "win":
            win(turn, campaign, record)
        case "yield":
            turn.note(f"yields to {verdict.better}, whose data is newer")
            give_back(turn, campaign)
            turn.send(verdict.better, Yield(guard.name, turn.guard.highest))
            give_up(turn, f"{verdict.better} has newer data", guard.settings.timing.ttl / 2)
        case "refuse":
            give_back(turn, campaign)
            give_up(turn, verdict.reason, guard.settings.timing.renew)


def give_back(turn: Turn, campaign: Campaign) -> None:
    """What it was granted and will not use it releases, so that the next candidate need not wait."""
    if not campaign.trial:
        message = Release(turn.guard.name, campaign.epoch)
        turn.put(ballot=ballots.release(turn.guard.ballot, message))
        turn.broadcast(message)


def newest_record(answers: Mapping[str, Answer]) -> SyncRecord | None:
    """Of all who granted: a record in force is at a majority, so one of them has it."""
    record: SyncRecord | None = None
    for answer in answers.values():
        if answer.granted:
            record = ballots.newer(record, answer.vote.sync)
    return record


def behind(guard: Guard, campaign: Campaign) -> float | None:
    """Seconds of acknowledged writes that this member may not have; None: unknown.

    What it was behind by when its stream was last live, and the time for which the primary may have gone on without it:
    as long as any of a majority vouched, for every lease rests on one of those who have granted. What was left of the
    last lease is not counted.
    """
    if guard.lag is None:
        return None
    vouched = max(campaign.vouched, guard.ballot.quiet_from)
    return guard.lag + max(0.0, vouched - guard.streamed_at)


def judge(guard: Guard, campaign: Campaign, record: SyncRecord | None) -> Verdict:
    """The rules of data; for the first epoch of all, that nobody can have any."""
    trial = campaign.trial
    positions = {
        name: answer.position
        for name, answer in campaign.answers.items()
        if answer.position
        and (answer.granted or trial)  # who refuses has frozen nothing
        and (answer.state == "standby" or not trial or guard.settings.ring)
    }
    members = election.data_members(campaign.membership, campaign.previous)
    if bootstraps(guard):
        absent = {name for name, answer in campaign.answers.items() if answer.state == "absent"}
        if campaign.epoch == 1 or members <= absent:
            return election.WIN
        return Verdict("refuse", reason="somebody may have data already: it does not begin with an empty database")
    silent = members - set(positions) - {n for n, a in campaign.answers.items() if a.state == "absent"}
    forced = campaign.order is not None and campaign.order.accept_data_loss
    lag = behind(guard, campaign)
    facts = Facts(guard.settings, campaign.membership, record, positions, frozenset(silent), lag, forced)
    if campaign.chosen:
        facts = replace(facts, settings=replace(guard.settings, preferred_location=None))
    if guard.settings.ring:
        return election.compare(guard.name, positions, facts)
    return election.judge(facts)


def ask_in_earnest(turn: Turn, trial: Campaign) -> None:
    """Votes for itself, durably, freezes its own data, and asks everybody. It is a voter like any other: since the
    trial began it may have vouched for the primary."""
    guard, now = turn.guard, turn.now
    ask = Ask(guard.name, max(guard.highest, guard.ballot.vote.epoch) + 1, False, *guard.known)
    reason = ballots.objection(guard.ballot, ask, guard.settings.timing, now)
    if reason:
        give_up(turn, reason, guard.settings.timing.renew)
        return
    turn.vote(ballots.grant(guard.ballot, ask, now))
    own = Answer(guard.name, ask.epoch, False, True, turn.guard.ballot.vote, None, "", guard.database.state)
    campaign = Campaign(ask.epoch, False, now, now, *guard.known, {guard.name: own}, trial.order, trial.chosen)
    turn.put(campaign=campaign, followed=None, owed=None)
    turn.note(f"asks for epoch {ask.epoch}")
    turn.broadcast(ask)


def last_heard(guard: Guard, campaign: Campaign) -> dict[str, tuple[bool, float]]:
    """Nobody follows yet. Who has been silent for long when a reign begins need not be waited for once more."""
    members = election.data_members(campaign.membership, campaign.previous) - {guard.name}
    return {name: (False, guard.heard[name].at if name in guard.heard else -inf) for name in members}


def win(turn: Turn, campaign: Campaign, found: SyncRecord | None) -> None:
    """Holder from now on; primary once a majority has vouched and stored its record."""
    guard, now = turn.guard, turn.now
    forced = campaign.order is not None and campaign.order.accept_data_loss
    record = records.first_record(guard.settings, found, campaign.epoch, forced)
    granted = frozenset(name for name, answer in campaign.answers.items() if answer.granted)
    reign = Reign(campaign.epoch, campaign.epoch, campaign.membership, campaign.previous, now, record, joined=granted)
    reign = replace(reign, create=bootstraps(guard), seen=last_heard(guard, campaign))
    turn.note(f"elected in epoch {campaign.epoch}")
    turn.put(campaign=None, reign=reign, refusal="", attempts=0, urged=-1.0, lag=None)
