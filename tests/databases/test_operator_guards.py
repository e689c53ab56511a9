"""The operator between two real guards, over real TLS: it hears them, votes, and passes orders on."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import serialization
from hasite.api.databasestatus import VoteRecord
from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.databases import certificates
from hasite.databases.guards import GuardLines
from hasite.databases.voter import OperatorVoter
from hasite.guard.messages import Beat, Order
from hasite.guard.model import OPERATOR, Membership, Settings
from hasite.plan.world import Unknown
from hasite.reconcilers.narrator import Narrator

from tests.fakes.kube import FakeKube
from tests.guard import groups, pki
from tests.guard.toy import cluster as toy
from tests.guard.toy.cluster import Cluster, Node
from tests.guard.waiting import until

pytestmark = [
    pytest.mark.skipif(not groups.possible(), reason="no control group can be made here"),
    pytest.mark.timeout(120),
]


class Two(Cluster):
    """Two locations, so that the operator has the third vote."""

    def settings(self, name: str) -> Settings:
        settings = super().settings(name)
        return replace(settings, membership=replace(settings.membership, voters=("a", "b", OPERATOR)))

    @property
    def membership(self) -> Membership:
        return self.settings("a").membership


@dataclass
class Leader:
    identity: str = "one"
    leads: bool = True
    term: tuple[str, int] = ("lease", 1)

    def is_leader(self) -> bool:
        return self.leads


@dataclass
class Scene:
    """``woken``: how often something was heard that a plan may rest on."""

    cluster: Two
    authority: certificates.Authority
    kube: FakeKube = field(default_factory=FakeKube)
    woken: int = 0
    leader: Leader = field(default_factory=Leader)
    narrator: Narrator = field(init=False)

    def __post_init__(self) -> None:
        spec = {
            "engine": "postgresql",
            "version": "17",
            "credentialsRef": {"name": "do"},
            "locations": [{"name": "a", "region": "nyc3"}, {"name": "b", "region": "ams3"}],
        }
        metadata = {"name": "shop", "namespace": "default"}
        manifest = {"apiVersion": "hasite.dev/v1alpha1", "kind": "ReplicatedDatabase", "metadata": metadata}
        self.kube.create({**manifest, "spec": spec})
        raw = self.kube.objects["ReplicatedDatabase", "default", "shop"]
        raw["status"] = {"observedGeneration": 1, "vote": VoteRecord().wire()}
        self.narrator = Narrator(time.time, self._wake)
        self.lines = GuardLines(
            self._wake,
            lambda database, send: OperatorVoter(self.kube, self.leader, database, send),
            listener=self.narrator,
            address_of=lambda member: ("127.0.0.1", self.cluster.nodes[member.name].ports["guard"]),
        )

    def _wake(self, namespace: str, name: str) -> None:
        self.woken += 1

    @property
    def live(self) -> ReplicatedDatabase:
        return ReplicatedDatabase.model_validate(self.kube.raw(ReplicatedDatabase, "default", "shop"))

    async def follow(self) -> None:
        members = self.cluster.membership.members
        self.narrator.follow(self.live, members)
        await self.lines.follow(self.live, self.authority, members)

    def beat(self, name: str) -> Beat | None:
        beat = self.lines.beats(self.live.uid, [name])[name]
        return None if isinstance(beat, Unknown) else beat

    async def rest(self, seconds: float = 1.5) -> None:
        """Until nothing has been heard for so long that a plan may rest on, though beats come all the while."""
        async with asyncio.timeout(15):
            while True:
                woken = self.woken
                await asyncio.sleep(seconds)
                if woken == self.woken:
                    return

    async def settled(self) -> Node:
        """Until a primary is followed by the other member."""
        await until(self.cluster.settled, 30)
        primary = self.cluster.primary()
        assert primary is not None
        return primary


def pem(authority: pki.Authority) -> certificates.Authority:
    key = authority.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificates.Authority(authority.certificate.public_bytes(serialization.Encoding.PEM), key)


@pytest_asyncio.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    authority = pki.Authority()
    cluster = Two(tmp_path, ("a", "b"))
    with mock.patch.object(toy, "Authority", lambda: authority), cluster:
        made = Scene(cluster, pem(authority))
        await made.follow()
        await made.settled()
        yield made
        await made.lines.close()


async def test_the_operator_hears_who_reigns_and_is_woken_when_that_changes(scene: Scene) -> None:
    await until(lambda: (b := scene.beat("a")) is not None and b.lease_left > 0)
    await scene.rest()
    woken = scene.woken
    scene.cluster.crash("a")
    await until(lambda: scene.beat("a") is None, 10)
    assert scene.woken > woken


async def test_with_the_operators_vote_the_only_member_left_takes_over(scene: Scene) -> None:
    scene.cluster.crash("a")
    await until(lambda: (p := scene.cluster.primary()) is not None and p.name == "b", 10)
    vote = scene.live.status.vote
    assert vote is not None
    assert (vote.holder, vote.epoch > 1, vote.owner) == ("b", True, "one")


async def test_without_the_operators_vote_it_does_not(scene: Scene) -> None:
    await scene.lines.close()
    scene.cluster.crash("a")
    with pytest.raises(TimeoutError):
        await until(lambda: scene.cluster.primary("a"), 8)


async def test_with_the_operators_vote_a_primary_that_lost_its_standby_keeps_its_lease(scene: Scene) -> None:
    scene.cluster.crash("b")
    await asyncio.sleep(5)
    beat = scene.beat("a")
    assert beat is not None
    assert beat.lease_left > 0


async def test_an_order_moves_the_primary(scene: Scene) -> None:
    await until(lambda: (b := scene.beat("a")) is not None and b.lease_left > 0 and b.reign > 0)
    beat = scene.beat("a")
    assert beat is not None
    scene.lines.order(scene.live.uid, Order(OPERATOR, "switchover", "b", beat.epoch))
    await until(lambda: (p := scene.cluster.primary()) is not None and p.name == "b", 15)
    told = scene.lines.ordered(scene.live.uid)
    assert told is not None
    assert told[0].member == "b"


async def test_whoever_listens_hears_every_beat_and_what_the_operators_vote_says(scene: Scene) -> None:
    narrator, uid = scene.narrator, scene.live.uid
    await until(lambda: narrator.figures(uid).ready == 2, 10)
    before = narrator.figures(uid)
    assert (before.primary, before.heard, before.lease_left > 0) == ("a", 2, True)
    scene.cluster.crash("a")
    await until(lambda: narrator.figures(uid).primary == "b", 12)
    after = narrator.figures(uid)
    assert (after.failovers, after.epoch > before.epoch, after.votes["vote", "granted"]) == (
        1,
        True,
        1 + before.votes.get(("vote", "granted"), 0),
    )
    assert after.failover_seconds is not None
    assert 2 < after.failover_seconds < 8
    reasons = [happening.reason for happening in narrator.tell(uid)]
    assert reasons[-1] == "Promoted"
    assert narrator.tell(uid) == ()


async def test_an_operator_of_another_authority_is_not_listened_to(scene: Scene) -> None:
    stranger = Scene(scene.cluster, certificates.new_authority("another", 1_790_000_000.0))
    await stranger.follow()
    await asyncio.sleep(2)
    assert stranger.beat("a") is None
    await stranger.lines.close()
