"""The handlers: one a kind, a line or two each."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

import kopf

from hasite.api import GROUP, VERSION, HASite, LoadBalancerPool, ReplicatedDatabase
from hasite.api.common import Resource
from hasite.kube.transport import configuration

KINDS: Final[tuple[type[Resource], ...]] = (HASite, LoadBalancerPool, ReplicatedDatabase)


class Wake(Protocol):
    """``Loop.wake``, from any thread."""

    def __call__(self, kind: type[Resource], namespace: str, name: str, *, fresh: bool = False) -> None:
        """Have the object looked at."""
        ...


class _Wishes:
    """Which generation of each object was seen last, to tell a changed wish from a changed status."""

    def __init__(self) -> None:
        self._seen: dict[str, object] = {}

    def changed(self, event: str | None, metadata: Mapping[str, Any]) -> bool:
        uid = str(metadata["uid"])
        wish = (metadata.get("generation"), "deletionTimestamp" in metadata)
        if event == "DELETED":
            self._seen.pop(uid, None)
            return True
        before = self._seen.get(uid)
        self._seen[uid] = wish
        return before is not None and before != wish


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
        wake(kind, metadata["namespace"], metadata["name"], fresh=wishes.changed(event["type"], metadata))
        for owner in metadata.get("ownerReferences", ()):
            if owner["kind"] == HASite.KIND and owner["apiVersion"].split("/")[0] == GROUP:
                wake(HASite, metadata["namespace"], owner["name"])

    return on_event
