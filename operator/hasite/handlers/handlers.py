"""The handlers: one a kind, a line or two each."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, Protocol, Self

import kopf

from hasite.api import GROUP, VERSION, HASite, LoadBalancerPool, ReplicatedDatabase
from hasite.api.common import Resource
from hasite.kube.transport import configuration

KINDS: Final[tuple[type[Resource], ...]] = (HASite, LoadBalancerPool, ReplicatedDatabase)
REMEMBERED: Final = 20_000
"""Objects of a kind whose last look is kept. One beyond it is taken for new, which costs a reconcile and no more. It
matters for objects whose end the watch missed."""


class Wake(Protocol):
    """``Loop.wake``, from any thread."""

    def __call__(self, kind: type[Resource], namespace: str, name: str, *, fresh: bool = False) -> None:
        """Have the object looked at."""
        ...


class _Change(Enum):
    """What an event tells of its object."""

    WISH = auto()
    """What it asks for is another, or it is another object, or it is gone."""
    OBJECT = auto()
    """It is seen for the first time, or something of it changed that a reconciler reads; or that can't be told."""
    STATUS = auto()
    """Nothing that its own reconciler has not written itself. Whoever owns it may read that."""


@dataclass(frozen=True)
class _Seen:
    """Labels and annotations are not here: nobody reads them."""

    uid: str
    wish: tuple[object, bool]
    rest: tuple[frozenset[str], frozenset[str]]

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> Self:
        owners = frozenset(str(owner["uid"]) for owner in metadata.get("ownerReferences") or ())
        return cls(
            uid=str(metadata["uid"]),
            wish=(metadata.get("generation"), "deletionTimestamp" in metadata),
            rest=(frozenset(metadata.get("finalizers") or ()), owners),
        )


class _Wishes:
    """How each object of one kind was seen last, to tell a changed wish from a changed status."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, str], _Seen] = OrderedDict()

    def change(self, event: str | None, metadata: Mapping[str, Any]) -> _Change:
        """``event``: None for an object in a list, which shows how things are but not what happened before."""
        key, now = (str(metadata["namespace"]), str(metadata["name"])), _Seen.of(metadata)
        before = self._seen.get(key)
        if event == "DELETED":
            # Events of two objects of one name may come in any order.
            if before is not None and before.uid == now.uid:
                del self._seen[key]
            return _Change.WISH
        self._seen[key] = now
        self._seen.move_to_end(key)
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        if before is None:
            return _Change.OBJECT
        if (before.uid, before.wish) != (now.uid, now.wish):
            return _Change.WISH
        return _Change.STATUS if event == "MODIFIED" and before == now else _Change.OBJECT


def build_registry(wake: Wake) -> kopf.OperatorRegistry:
    """A registry that holds nothing but the watch of our kinds and the login."""
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(login)
    for kind in KINDS:
        kopf.on.event(GROUP, VERSION, kind.PLURAL, registry=registry, id=kind.KIND)(_handler(kind, wake, _Wishes()))
    return registry


async def login(**_: object) -> kopf.ConnectionInfo:
    """The same cluster and credentials as everything else; kopf calls it again when they are refused."""
    cluster = await configuration()
    header = await cluster.get_api_key_with_prefix("BearerToken", alias="authorization")
    scheme, token = (header or " ").split(" ", 1)
    return kopf.ConnectionInfo(
        server=cluster.host,
        ca_path=cluster.ssl_ca_cert,
        insecure=not cluster.verify_ssl,
        certificate_path=cluster.cert_file,
        private_key_path=cluster.key_file,
        scheme=scheme or None,
        token=token.strip() or None,
    )


def _handler(kind: type[Resource], wake: Wake, wishes: _Wishes) -> Callable[..., Awaitable[None]]:
    async def on_event(event: Mapping[str, Any], **_: object) -> None:
        metadata = event["object"]["metadata"]
        change = wishes.change(event["type"], metadata)
        # Otherwise every reconcile that writes its status would be followed by another one at once.
        if change is not _Change.STATUS:
            wake(kind, metadata["namespace"], metadata["name"], fresh=change is _Change.WISH)
        for owner in metadata.get("ownerReferences") or ():
            if owner["kind"] == HASite.KIND and owner["apiVersion"].split("/")[0] == GROUP:
                wake(HASite, metadata["namespace"], owner["name"])

    return on_event
