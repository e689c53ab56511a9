"""What comes first for a database: connections to its guards and the vote, whatever else is in disorder."""

import asyncio
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hasite.api.databasestatus import VoteRecord
from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.databases.certificates import Authority, new_authority
from hasite.databases.guards import Paths
from hasite.databases.secrets import OWNER, authority_of
from hasite.errors import Permanent, Transient, Unauthorized
from hasite.guard.messages import Beat, Order
from hasite.guard.model import Member
from hasite.plan.world import Unknown
from hasite.reconcilers.database import DatabaseReconciler
from hasite.reconcilers.loop import Outcome

from tests.fakes.kube import FakeKube
from tests.plan.database_build import AMSTERDAM, NEW_YORK, NOW, beat, machine, member, reigning

A, B = member(NEW_YORK, 0), member(AMSTERDAM, 1)
CA = new_authority("HASite default/shop", NOW)
OTHER_CA = new_authority("HASite default/shop", NOW)


class Guards:
    """``Guards``, of which B alone is heard, or both."""

    def __init__(self, heard: Sequence[str] = (A.name, B.name), in_use: Authority | None = None) -> None:
        self.heard, self.in_use = heard, in_use
        self.followed: list[Authority] = []
        self.orders: list[Order] = []
        self.dropped: list[str] = []

    async def follow(self, database: ReplicatedDatabase, authority: Authority, members: Sequence[Member]) -> None:
        self.followed.append(authority)

    def beats(self, uid: str, names: Sequence[str]) -> Mapping[str, Beat | Unknown]:
        following = {"streaming": A.name in self.heard}
        says = {A.name: beat(A.name, A.name), B.name: beat(B.name, A.name, seen=following)}
        return {name: says[name] if name in self.heard else Unknown("silent") for name in names}

    def order(self, uid: str, order: Order) -> None:
        self.orders.append(order)

    def ordered(self, uid: str) -> None:
        return None

    def paths(self, uid: str) -> Paths:
        return Paths("ca", "certificate", "key")

    def authority(self, uid: str) -> Authority | None:
        return self.in_use

    async def drop(self, uid: str) -> None:
        self.dropped.append(uid)


class Cloud:
    """One that turns everybody away."""

    async def droplets(self, max_age: float) -> None:
        raise Unauthorized("the provider refuses the token")

    firewalls = droplets


async def nothing(*_: object) -> None:
    """All is well."""


class Scene:
    """One database that reigns, and what is in disorder about it."""

    def __init__(self, of: ReplicatedDatabase, guards: Guards | None = None, **secrets: Mapping[str, Any]) -> None:
        self.kube, self.guards = FakeKube(), guards or Guards()
        self.kube.create(of)
        self.kube.objects[of.KIND, "default", "shop"]["metadata"]["uid"] = of.uid
        self.kube.objects[of.KIND, "default", "shop"]["status"] = of.status.wire()
        authority = {"ca.crt": CA.certificate.decode(), "ca.key": CA.key.decode()}
        for name, data in ({"shop-ca": authority, "digitalocean": {"token": "t"}} | secrets).items():
            if data:
                self.kube.put_secret("default", name.replace("_", "-"), data)
        services = SimpleNamespace(
            kube=self.kube,
            leadership=SimpleNamespace(identity="x", is_leader=lambda: True),
            watch=SimpleNamespace(follow=lambda *_: None, machine=lambda _: machine(), look_again=lambda _: None),
            wakes=SimpleNamespace(wake=lambda *_: None, urgent=lambda *_: False),
            metrics=SimpleNamespace(database=lambda *_: None, forget=lambda *_: None),
            tokens={},
            looked_up={},
            clock=lambda: NOW,
            account=lambda _: SimpleNamespace(cloud=Cloud()),
            operator_cidrs=(),
            machines=SimpleNamespace(session=self.session),
        )
        self.reconciler = DatabaseReconciler(
            cast(Any, services), cast(Any, self.guards), cast(Any, SimpleNamespace(observe=None, declare=nothing))
        )

    async def session(self, target: object) -> None:
        raise Transient("no answer")

    def reconcile(self) -> Outcome:
        return asyncio.run(self.reconciler.reconcile("default", "shop"))

    def status(self) -> Any:
        raw = self.kube.raw(ReplicatedDatabase, "default", "shop")
        return ReplicatedDatabase.model_validate(raw).status

    def ready(self) -> tuple[str, str]:
        return next((c.status, c.reason) for c in self.status().conditions if c.type == "Ready")


PROMOTE = {"location": AMSTERDAM, "epoch": 3, "acceptDataLoss": True}
USERS: dict[str, Any] = {"users": [{"name": "shop", "passwordRef": {"name": "mine"}}]}


@pytest.mark.parametrize(
    ("why", "spec", "secrets", "reason"),
    [
        ("the provider's Secret is gone", {}, {"digitalocean": {}}, "CredentialsMissing"),
        ("the provider refuses the token", {}, {}, "Unauthorized"),
        ("a parameter is refused", {"parameters": {"listen_addresses": "x"}}, {}, "InvalidParameters"),
        ("the version is not to be had", {"version": "16"}, {}, "VersionNotAvailable"),
    ],
)
def test_an_order_is_passed_on_and_the_report_goes_on_although(why: str, spec: Any, secrets: Any, reason: str) -> None:
    scene = Scene(reigning(promote=PROMOTE, **spec), Guards(heard=[B.name]), **secrets)
    outcome = scene.reconcile()
    assert scene.guards.followed == [CA]
    assert [(o.kind, o.member) for o in scene.guards.orders] == [("promote", B.name)], why
    assert scene.ready()[1] in (reason, "Unauthorized")
    assert scene.status().primary == ""
    assert (outcome.failed, outcome.again_in <= 10.0) == (False, True)


@pytest.mark.parametrize("password", [None, b"\xff\xfe"])
def test_the_vote_does_not_wait_for_a_users_password(password: bytes | None) -> None:
    scene = Scene(reigning(**USERS))
    if password is not None:
        scene.kube.put_secret("default", "mine", {})
        scene.kube.objects["Secret", "default", "mine"]["data"] = {"password": "//4="}
    scene.reconcile()
    assert scene.guards.followed == [CA]
    assert scene.ready()[0] == "False"


def test_sites_that_cannot_be_listed_leave_the_firewall_as_it_is_and_stop_nothing_else() -> None:
    scene = Scene(reigning(promote=PROMOTE), Guards(heard=[B.name]))

    async def unreadable(*_: object) -> None:
        raise Permanent("HASite default/other does not parse", "Unparsable")

    scene.kube.list = unreadable  # type: ignore[assignment]
    scene.reconcile()
    assert [o.kind for o in scene.guards.orders] == ["promote"]


# The authority.


def test_a_secret_that_is_gone_is_written_again_from_the_one_in_use() -> None:
    scene = Scene(reigning(), Guards(in_use=CA), shop_ca={})
    scene.kube.objects.pop(("Secret", "default", "shop-ca"), None)
    scene.reconcile()
    assert scene.guards.followed == [CA]
    assert asyncio.run(authority_of(scene.kube, reigning(), NOW, make=False)) == CA


def test_a_living_database_never_gets_a_second_authority() -> None:
    scene = Scene(reigning())
    del scene.kube.objects["Secret", "default", "shop-ca"]
    scene.reconcile()
    assert scene.guards.followed == []
    assert scene.ready()[0] == "False"
    assert any("AuthorityLost" in (c.reason, c.message) or "is gone" in c.message for c in scene.status().conditions)
    assert ("Secret", "default", "shop-ca") not in scene.kube.objects


def test_a_new_database_does_not_begin_over_the_secrets_of_an_earlier_one() -> None:
    scene = Scene(reigning(status={"membership": None, "made": False, "bootstrap": "", "droplets": ()}))
    scene.kube.objects["Secret", "default", "shop-ca"]["stringData"][OWNER] = "an-earlier-uid"
    scene.reconcile()
    assert scene.ready() == ("False", "EarlierDatabase")
    assert scene.guards.followed == []
    assert scene.status().droplets == ()


def test_a_secret_whose_halves_do_not_belong_together_does_not_end_the_connections() -> None:
    scene = Scene(reigning(), Guards(in_use=CA))
    scene.kube.objects["Secret", "default", "shop-ca"]["stringData"]["ca.key"] = OTHER_CA.key.decode()
    scene.reconcile()
    assert scene.guards.followed == [CA]
    assert scene.ready() == ("False", "AuthorityUnusable")


def test_a_vote_that_cannot_be_read_is_said_to_be() -> None:
    scene = Scene(reigning(status={"vote": VoteRecord(epoch=3, ballot="{")}))
    scene.reconcile()
    assert scene.ready() == ("False", "VoteUnreadable")


def owned(scene: Scene, name: str) -> bool:
    return "ownerReferences" in scene.kube.objects["Secret", "default", name]["metadata"]


@pytest.mark.parametrize(("policy", "bound"), [("Retain", False), ("Delete", True)])
def test_the_authority_goes_with_the_database_only_if_the_data_do(policy: str, bound: bool) -> None:
    scene = Scene(reigning(deletionPolicy=policy))
    scene.reconcile()
    assert owned(scene, "shop-ca") is bound


def test_data_that_are_retained_after_all_keep_their_authority() -> None:
    scene = Scene(reigning(deletionPolicy="Delete"))
    scene.reconcile()
    scene.kube.edit(ReplicatedDatabase, "default", "shop", lambda o: o["spec"].update(deletionPolicy="Retain"))
    scene.kube.remove(ReplicatedDatabase, "default", "shop")
    scene.reconcile()
    assert ("ReplicatedDatabase", "default", "shop") not in scene.kube.objects
    assert not owned(scene, "shop-ca")


def test_the_connections_of_a_database_end_when_another_has_its_name() -> None:
    scene = Scene(reigning())
    scene.reconcile()
    scene.kube.objects["ReplicatedDatabase", "default", "shop"]["metadata"]["uid"] = "another"
    scene.reconcile()
    assert scene.guards.dropped == [reigning().uid]


# Deliveries.


def test_a_delivery_that_is_refused_is_no_reason_to_leave_everything_alone() -> None:
    scene = Scene(reigning())
    outcome = scene.reconcile()
    assert not outcome.failed
    assert scene.reconciler._failed.keys() == {B.name}
