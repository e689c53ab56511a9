"""The interface to the Kubernetes API server: few verbs, each with the conditions under which it may act."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar

from hasite.api.common import Resource

R = TypeVar("R", bound=Resource)


class Kube(Protocol):
    """Errors: ``Conflict`` (409), ``Unreachable``, ``ForbiddenByKubernetes``, ``Transient``, ``Permanent``.

    The reason of the last is ``InvalidObject`` for an object that the API server holds and our model refuses.

    None only for a definite 404.
    """

    async def get(self, kind: type[R], namespace: str, name: str) -> R | None:
        """The live object, never from a cache."""
        ...

    async def list(self, kind: type[R]) -> Sequence[R]:
        """All of them or an error, never a part."""
        ...

    async def write_status(self, resource: R, status: Mapping[str, Any]) -> R:
        """Replaces the status, only if the object's UID and resourceVersion are still those of ``resource``."""
        ...

    async def set_finalizer(self, resource: R, present: bool) -> R:
        """Adds or removes ours, under the same condition."""
        ...

    async def patch_spec(self, resource: R, changes: Mapping[str, Any]) -> R:
        """Merges into the spec, under the same condition. For what a person orders; the operator never does it."""
        ...

    async def apply(self, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
        """Server-side apply as field manager ``hasite``, forced. The manifest carries its owner reference."""
        ...

    async def delete(self, kind: type[Resource], namespace: str, name: str, uid: str) -> None:
        """With the UID as precondition. Gone already is a success."""
        ...

    async def secret(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        """The decoded data of the Secret, read by its name."""
        ...

    async def create_secret(self, manifest: Mapping[str, Any]) -> Mapping[str, bytes]:
        """Creates it, or returns the data of the one that is already there."""
        ...

    async def event(self, resource: Resource, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """A Kubernetes Event; the same object, reason and message within ten minutes count up. Never raises."""
        ...


class Leadership(Protocol):
    """Whether this process may act."""

    identity: str
    term: tuple[str, int]
    """What is won with the leadership: the UID of the Lease, and a number that grows whenever that Lease changes hands.
    It stays what it was when the leadership is lost."""

    def is_leader(self) -> bool:
        """True only while the last renewal is younger than the renew deadline, by a monotonic clock."""
        ...
