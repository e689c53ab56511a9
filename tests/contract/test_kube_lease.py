"""The rules of the Lease, with a clock that only the test moves."""

import copy
from dataclasses import dataclass, field
from typing import Any

import pytest
from hasite.errors import Conflict, Unreachable
from hasite.kube.lease import Lease, LeaseTimes
from hasite.kube.transport import NotFound, Request, Transport

Json = dict[str, Any]
TIMES = LeaseTimes(duration=15)


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class ApiServer:
    """One Lease, changed by compare-and-swap."""

    lease: Json | None = None
    version: int = 0

    def holder(self) -> str | None:
        return None if self.lease is None else self.lease["spec"]["holderIdentity"]

    def call(self, request: Request) -> Json:
        match request.method:
            case "GET" if self.lease is None:
                raise NotFound("no lease")
            case "POST" if self.lease is not None:
                raise Conflict("exists")
            case "POST":
                self._store(request)
            case "PUT" if self.lease is None:
                raise NotFound("no lease")
            case "PUT":
                assert request.body is not None and self.lease is not None
                if request.body["metadata"].get("resourceVersion") != self.lease["metadata"]["resourceVersion"]:
                    raise Conflict("changed")
                self._store(request)
        return copy.deepcopy(self.lease or {})

    def _store(self, request: Request) -> None:
        self.version += 1
        uid = self.lease["metadata"]["uid"] if self.lease else f"made-at-{self.version}"
        self.lease = copy.deepcopy(dict(request.body or {}))
        self.lease["metadata"]["uid"] = uid
        self.lease["metadata"]["resourceVersion"] = str(self.version)


@dataclass
class Line(Transport):
    """One candidate's way to the API server. Cut: nothing arrives. Deaf: what is asked is done, the answer is lost."""

    server: ApiServer
    state: str = "up"
    calls: list[str] = field(default_factory=list)

    async def call(self, request: Request) -> Json:
        self.calls.append(request.method)
        if self.state == "cut":
            raise Unreachable("no answer")
        answer = self.server.call(request)
        if self.state == "deaf":
            raise Unreachable("no answer")
        return answer


class Candidate:
    def __init__(self, server: ApiServer, clock: Clock, name: str) -> None:
        self.line = Line(server)
        self.lease = Lease(self.line, ("hasite-system", "hasite-operator"), name, TIMES, clock)

    async def attempt(self) -> bool:
        return await self.lease._attempt()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server() -> ApiServer:
    return ApiServer()


@pytest.fixture
def one(server: ApiServer, clock: Clock) -> Candidate:
    return Candidate(server, clock, "one")


@pytest.fixture
def two(server: ApiServer, clock: Clock) -> Candidate:
    return Candidate(server, clock, "two")


async def test_the_first_candidate_makes_the_lease(one: Candidate, server: ApiServer) -> None:
    assert not one.lease.is_leader()
    assert await one.attempt()
    assert one.lease.is_leader()
    assert server.holder() == "one"


async def test_leadership_ends_by_the_clock_alone(one: Candidate, clock: Clock) -> None:
    await one.attempt()
    clock.now += TIMES.renew_deadline - 0.1
    assert one.lease.is_leader()
    clock.now += 0.1
    assert not one.lease.is_leader()


async def test_a_follower_waits_for_the_whole_lease_by_its_own_clock(
    one: Candidate, two: Candidate, clock: Clock
) -> None:
    await one.attempt()
    assert not await two.attempt()
    clock.now += TIMES.duration - 0.1
    assert not await two.attempt()
    clock.now += 0.1
    assert await two.attempt()


async def test_a_follower_that_comes_late_waits_from_its_own_first_look(
    one: Candidate, two: Candidate, clock: Clock
) -> None:
    await one.attempt()
    clock.now += 3600
    assert not await two.attempt()
    clock.now += TIMES.duration
    assert await two.attempt()


async def test_each_renewal_that_is_seen_makes_the_follower_wait_anew(
    one: Candidate, two: Candidate, clock: Clock
) -> None:
    await one.attempt()
    for _ in range(5):
        clock.now += TIMES.renew_deadline - 1
        assert await one.attempt()
        assert not await two.attempt()
    assert one.lease.is_leader()


async def test_the_leader_has_stopped_when_the_follower_starts(one: Candidate, two: Candidate, clock: Clock) -> None:
    await one.attempt()
    await two.attempt()
    one.line.state = "cut"
    while not two.lease.is_leader():
        clock.now += 0.25
        await one.attempt()
        await two.attempt()
        assert not (one.lease.is_leader() and two.lease.is_leader())


async def test_a_renewal_whose_answer_got_lost_does_not_end_the_leadership(
    one: Candidate, server: ApiServer, clock: Clock
) -> None:
    await one.attempt()
    one.line.state = "deaf"
    clock.now += 1
    assert not await one.attempt()
    one.line.state = "up"
    assert not await one.attempt()  # the conflict with its own write: it looks again
    assert await one.attempt()
    assert one.lease.is_leader()


async def test_whoever_sees_another_holder_leads_no_more(one: Candidate, server: ApiServer) -> None:
    await one.attempt()
    assert server.lease is not None
    server.lease["spec"]["holderIdentity"] = "two"
    server.lease["metadata"]["resourceVersion"] = "99"
    assert not await one.attempt()
    assert not one.lease.is_leader()


async def test_a_deleted_lease_is_no_reason_for_a_follower_to_start(
    one: Candidate, two: Candidate, server: ApiServer, clock: Clock
) -> None:
    await one.attempt()
    await two.attempt()
    server.lease = None
    assert not await two.attempt()
    assert not await one.attempt()
    assert await one.attempt()
    assert server.holder() == "one"


async def test_a_deleted_lease_of_a_dead_leader_is_made_again_after_its_time(
    one: Candidate, two: Candidate, server: ApiServer, clock: Clock
) -> None:
    await one.attempt()
    await two.attempt()
    server.lease = None
    clock.now += TIMES.duration
    assert await two.attempt()
    assert server.holder() == "two"


async def test_a_lease_that_is_given_back_is_free_at_once(one: Candidate, two: Candidate, server: ApiServer) -> None:
    await one.attempt()
    await two.attempt()
    await one.lease.release()
    assert not one.lease.is_leader()
    assert await two.attempt()


async def test_the_term_grows_whenever_the_lease_changes_hands_and_only_then(
    one: Candidate, two: Candidate, server: ApiServer, clock: Clock
) -> None:
    await one.attempt()
    assert one.lease.term == ("made-at-1", 0)
    await one.attempt()
    await two.attempt()
    assert one.lease.term == ("made-at-1", 0)
    clock.now += TIMES.duration
    await two.attempt()
    assert two.lease.term == ("made-at-1", 1)
    assert server.lease is not None
    assert server.lease["spec"]["leaseTransitions"] == 1
    await one.attempt()
    await two.lease.release()
    three = Candidate(server, clock, "three")
    await three.attempt()
    assert three.lease.term == ("made-at-1", 2)


async def test_a_leader_that_lost_the_lease_keeps_the_term_that_it_had(
    one: Candidate, two: Candidate, clock: Clock
) -> None:
    await one.attempt()
    await two.attempt()
    clock.now += TIMES.duration
    await two.attempt()
    await one.attempt()
    assert not one.lease.is_leader()
    assert one.lease.term == ("made-at-1", 0)


async def test_a_takeover_whose_answer_got_lost_counts_once(one: Candidate, two: Candidate, clock: Clock) -> None:
    await one.attempt()
    await two.attempt()
    clock.now += TIMES.duration
    two.line.state = "deaf"
    await two.attempt()
    two.line.state = "up"
    while not await two.attempt():
        clock.now += 1
    assert two.lease.term == ("made-at-1", 1)


async def test_a_lease_that_is_made_again_begins_a_line_of_terms_of_its_own(one: Candidate, server: ApiServer) -> None:
    await one.attempt()
    server.lease = None
    await one.attempt()
    await one.attempt()
    assert one.lease.term == ("made-at-2", 0)


async def test_only_its_holder_gives_a_lease_back(one: Candidate, two: Candidate, server: ApiServer) -> None:
    await one.attempt()
    await two.attempt()
    await two.lease.release()
    assert server.holder() == "one"


async def test_a_candidate_is_in_touch_while_it_can_read_the_lease(
    one: Candidate, two: Candidate, clock: Clock
) -> None:
    assert not two.lease.in_touch()
    await one.attempt()
    await two.attempt()
    assert two.lease.in_touch()
    two.line.state = "cut"
    clock.now += TIMES.duration
    await two.attempt()
    assert not two.lease.in_touch()
