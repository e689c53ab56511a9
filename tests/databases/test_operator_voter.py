"""The operator's vote: an object in the API server that all operators share, however many there are by mistake."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hasite.api.databasestatus import VoteRecord
from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.databases.voter import OperatorVoter, record_of, stored_of
from hasite.errors import Unreachable
from hasite.guard.messages import Answer, Ask, Beat, Message, Release, Renew, Renewed
from hasite.guard.model import OPERATOR, Database, Member, Membership, SyncRecord, Vote
from hasite.guard.sharedvoter import Stored

from tests.fakes.kube import FakeKube
from tests.scenarios import clockwork
from tests.scenarios.clockwork import monotonic

A, B = "shop-a", "shop-b"
MEMBERSHIP = Membership(
    1, (Member(A, "new-york", "192.0.2.1"), Member(B, "amsterdam", "198.51.100.2")), (A, B, OPERATOR)
)
PATIENCE = 3.1


@dataclass
class Leader:
    """Whether a process leads, as the test says."""

    identity: str
    leads: bool = True
    term: tuple[str, int] = ("lease", 1)

    def is_leader(self) -> bool:
        return self.leads


class SlowKube(FakeKube):
    """Each call takes ``delay`` seconds; a write that is ``lost`` has come into force without an answer."""

    delay = 0.01
    lost = 0

    async def get(self, kind: Any, namespace: str, name: str) -> Any:
        await asyncio.sleep(self.delay)
        return await super().get(kind, namespace, name)

    async def write_status(self, resource: Any, status: Mapping[str, Any]) -> Any:
        await asyncio.sleep(self.delay)
        written = await super().write_status(resource, status)
        if self.lost:
            self.lost -= 1
            raise Unreachable("no answer")
        return written


@dataclass
class Scene:
    """One database, and the operators that vote in it. ``said``: what each has sent, with the time."""

    kube: SlowKube = field(default_factory=SlowKube)
    said: dict[str, list[tuple[float, Message]]] = field(default_factory=dict)
    voters: list[OperatorVoter] = field(default_factory=list)

    def __post_init__(self) -> None:
        spec = {
            "engine": "postgresql",
            "version": "17",
            "credentialsRef": {"name": "do"},
            "locations": [{"name": "new-york", "region": "nyc3"}],
        }
        metadata = {"name": "shop", "namespace": "default"}
        manifest = {"apiVersion": "hasite.dev/v1alpha1", "kind": "ReplicatedDatabase", "metadata": metadata}
        self.kube.create({**manifest, "spec": spec})
        self.store(Vote())

    @property
    def live(self) -> ReplicatedDatabase:
        return ReplicatedDatabase.model_validate(self.kube.raw(ReplicatedDatabase, "default", "shop"))

    @property
    def stored(self) -> Stored:
        stored = stored_of(self.live.status.vote)
        assert stored is not None
        return stored

    def store(self, vote: Vote | None, owner: str = "", term: int = 0) -> None:
        record = None if vote is None else record_of(Stored(vote, owner, term)).wire()
        raw = self.kube.objects["ReplicatedDatabase", "default", "shop"]
        raw["status"] = {"observedGeneration": -1} | ({"vote": record} if record else {})
        self.kube._touch(raw)

    def touch(self) -> None:
        """As a reconcile does that writes something else of the status."""
        raw = self.kube.objects["ReplicatedDatabase", "default", "shop"]
        raw["status"]["lag"] = raw["status"].get("lag", "") + "x"
        self.kube._touch(raw)

    def start(self, leader: Leader) -> OperatorVoter:
        said = self.said.setdefault(leader.identity, [])
        voter = OperatorVoter(
            self.kube, leader, self.live, lambda to, message: said.append((monotonic(), message)), monotonic
        )
        self.voters.append(voter)
        return voter

    def answers(self, identity: str, kind: type) -> list[Any]:
        return [message for _, message in self.said[identity] if isinstance(message, kind)]


def play(story: Callable[[Scene], Awaitable[None]]) -> None:
    async def work() -> None:
        scene = Scene()
        await story(scene)
        for voter in scene.voters:
            await voter.close()

    clockwork.run(work())


def ask(sender: str = A, epoch: int = 1, trial: bool = False) -> Ask:
    return Ask(sender, epoch, trial, MEMBERSHIP)


REIGN = Vote(4, A, MEMBERSHIP, SyncRecord(4, 1, frozenset({A, B}), 1))


def test_a_grant_is_in_the_object_before_it_is_answered() -> None:
    async def story(scene: Scene) -> None:
        voter = scene.start(Leader("one"))
        await asyncio.sleep(1)
        scene.kube.delay = 0.5
        voter.received(ask())
        await asyncio.sleep(0.9)
        assert scene.answers("one", Answer) == []
        await asyncio.sleep(0.5)
        (answer,) = scene.answers("one", Answer)
        assert (answer.granted, answer.vote.holder) == (True, A)
        assert scene.stored.vote == answer.vote

    play(story)


def test_a_vouch_rests_on_a_read_that_began_after_the_request() -> None:
    async def story(scene: Scene) -> None:
        scene.store(REIGN)
        voter = scene.start(Leader("one"))
        await asyncio.sleep(1)
        scene.kube.delay = 0.3
        voter.received(Renew(A, 4, 7))
        await asyncio.sleep(0.1)
        scene.store(REIGN, "two", 9)
        await asyncio.sleep(1)
        assert scene.answers("one", Renewed) == []

    play(story)


def test_of_two_operators_the_first_falls_silent_once_the_second_has_taken_over() -> None:
    async def story(scene: Scene) -> None:
        scene.store(REIGN)
        first = scene.start(Leader("one"))
        await asyncio.sleep(1)
        first.received(Renew(A, 4, 1))
        await asyncio.sleep(0.2)
        second = scene.start(Leader("two"))
        await asyncio.sleep(1)
        for voter in (first, second):
            voter.received(Renew(A, 4, 2))
        await asyncio.sleep(0.2)
        assert [m.sequence for m in scene.answers("one", Renewed)] == [1]
        assert [m.sequence for m in scene.answers("two", Renewed)] == [2]

    play(story)


def test_whoever_takes_over_grants_no_other_epoch_before_its_patience_is_over() -> None:
    async def story(scene: Scene) -> None:
        scene.store(REIGN)
        voter = scene.start(Leader("two"))
        began = monotonic()
        while not [m for m in scene.answers("two", Answer) if m.granted]:
            voter.received(ask(B, 5))
            await asyncio.sleep(0.1)
        assert monotonic() - began >= 3.0
        assert scene.stored.vote.holder == B

    play(story)


def test_a_holder_that_gave_up_is_not_waited_for() -> None:
    async def story(scene: Scene) -> None:
        scene.store(REIGN)
        voter = scene.start(Leader("one"))
        await asyncio.sleep(0.5)
        voter.received(Release(A, 4))
        voter.received(ask(B, 5))
        await asyncio.sleep(0.3)
        assert [m.granted for m in scene.answers("one", Answer)] == [True]

    play(story)


def test_an_operator_that_does_not_lead_says_nothing() -> None:
    async def story(scene: Scene) -> None:
        scene.store(REIGN)
        leader = Leader("one")
        voter = scene.start(leader)
        await asyncio.sleep(1)
        voter.received(Renew(A, 4, 1))
        leader.leads = False
        await asyncio.sleep(1)
        assert scene.said["one"] == []

    play(story)


def test_a_status_that_a_reconcile_writes_meanwhile_only_delays_the_grant() -> None:
    async def story(scene: Scene) -> None:
        voter = scene.start(Leader("one"))
        await asyncio.sleep(1)
        scene.kube.delay = 0.2
        voter.received(ask())
        await asyncio.sleep(0.3)
        scene.touch()
        await asyncio.sleep(1)
        assert [m.granted for m in scene.answers("one", Answer)] == [True]
        assert scene.live.status.lag == "x"

    play(story)


def test_after_a_write_of_unknown_outcome_the_vote_is_taken_over_anew_before_anything_is_said() -> None:
    async def story(scene: Scene) -> None:
        voter = scene.start(Leader("one"))
        await asyncio.sleep(1)
        term = scene.stored.term
        scene.kube.lost = 1
        voter.received(ask())
        await asyncio.sleep(0.1)
        assert scene.said["one"] == []
        await asyncio.sleep(1)
        assert scene.stored.term > term
        voter.received(Renew(A, 1, 3))
        await asyncio.sleep(0.1)
        assert [m.sequence for m in scene.answers("one", Renewed)] == [3]

    play(story)


def test_a_trial_is_refused_while_a_primary_says_that_it_lives() -> None:
    async def story(scene: Scene) -> None:
        scene.store(REIGN)
        voter = scene.start(Leader("one"))
        await asyncio.sleep(PATIENCE + 1)
        voter.received(Beat(A, 4, A, 2.0, "primary", Database("primary")))
        voter.received(ask(B, 5, trial=True))
        await asyncio.sleep(0.1)
        (answer,) = scene.answers("one", Answer)
        assert not answer.granted
        assert "reigns" in answer.reason

    play(story)


def test_without_a_vote_in_the_status_nothing_is_said() -> None:
    async def story(scene: Scene) -> None:
        scene.store(None)
        voter = scene.start(Leader("one"))
        voter.received(ask())
        await asyncio.sleep(5)
        assert scene.said["one"] == []
        assert scene.live.status.vote is None

    play(story)


def test_a_vote_that_cannot_be_read_is_no_vote() -> None:
    assert stored_of(VoteRecord(epoch=4, holder=A, ballot="{")) is None
    assert stored_of(VoteRecord(epoch=4, holder=A, ballot='{"epoch": "4"}')) is None


def test_a_vote_is_kept_whole() -> None:
    stored = Stored(Vote(4, A, MEMBERSHIP, REIGN.sync, MEMBERSHIP), "one", 3)
    assert stored_of(record_of(stored)) == stored
    assert stored_of(VoteRecord.model_validate(record_of(stored).wire())) == stored
