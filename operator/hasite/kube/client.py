"""The API server itself, behind the ``Kube`` interface."""

import asyncio
import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypeVar

from pydantic import ValidationError

from hasite.api import GROUP, VERSION, HASite, LoadBalancerPool, ReplicatedDatabase
from hasite.api.common import API_VERSION, FINALIZER, Resource
from hasite.errors import Conflict, ForbiddenByKubernetes, Permanent
from hasite.kube.base import Kube
from hasite.kube.events import EventRecorder
from hasite.kube.transport import NotFound, Request, Transport, path_of

R = TypeVar("R", bound=Resource)

KINDS: Final[tuple[type[Resource], ...]] = (HASite, LoadBalancerPool, ReplicatedDatabase)
FIELD_MANAGER: Final = "hasite"
FORBIDDEN_AGAIN: Final = (0.5, 1.0, 2.0)
"""Seconds before a refused call is tried again: an API server that has just started refuses everybody for a moment,
until it knows its roles."""
PAGE: Final = 500
"""Objects in one answer to a list."""

_PLURALS: Final[Mapping[tuple[str, str], str]] = {
    ("v1", "Secret"): "secrets",
    ("v1", "ConfigMap"): "configmaps",
    **{(API_VERSION, kind.KIND): kind.PLURAL for kind in KINDS},
}


class KubeClient(Kube):
    """The interface's promises, kept by the API server's own preconditions. Belongs to one event loop."""

    def __init__(
        self,
        transport: Transport,
        identity: str,
        namespaces: Sequence[str] = (),
        *,
        event_dropped: Callable[[], None] = lambda: None,
    ) -> None:
        """``namespaces`` limits ``list``; none means all of them. ``event_dropped``: see ``EventRecorder``."""
        self._transport = transport
        self._namespaces = tuple(namespaces)
        self._recorder = EventRecorder(transport, identity, dropped=event_dropped)

    async def get(self, kind: type[R], namespace: str, name: str) -> R | None:
        """The live object."""
        try:
            return _parse(kind, await self._call("GET", kind, (namespace, name)))
        except NotFound:
            return None

    async def list(self, kind: type[R]) -> Sequence[R]:
        """All objects of the kind in the namespaces that are looked after, read from the quorum; all or an error."""
        found: list[R] = []
        for namespace in self._namespaces or (None,):
            found.extend(await self._list(kind, namespace))
        return found

    async def listable(self, kind: type[Resource]) -> None:
        """Raises unless the kind is installed and may be listed wherever it is looked after; judges no object."""
        for namespace in self._namespaces or (None,):
            path = _path(API_VERSION, kind.PLURAL, namespace)
            await self._send(Request("GET", path, f"list {kind.KIND}", query={"limit": "1"}))

    async def write_status(self, resource: R, status: Mapping[str, Any]) -> R:
        """A PUT on ``/status``. Raises Conflict also when the object is gone."""
        body = {**_identified(resource), "status": dict(status)}
        path = (resource.namespace, resource.name, "status")
        try:
            return _parse(type(resource), await self._call("PUT", type(resource), path, body=body))
        except NotFound as error:
            raise Conflict(str(error)) from error

    async def set_finalizer(self, resource: R, present: bool) -> R:
        """A merge patch that carries the resourceVersion, which no other object has ever had."""
        others = [each for each in resource.finalizers if each != FINALIZER]
        wanted = [*others, FINALIZER] if present else others
        return await self._merge(resource, {"metadata": {"finalizers": wanted}})

    async def patch_spec(self, resource: R, changes: Mapping[str, Any]) -> R:
        """A merge patch too: null takes a field away."""
        return await self._merge(resource, {"metadata": {}, "spec": dict(changes)})

    async def _merge(self, resource: R, body: dict[str, Any]) -> R:
        body["metadata"] |= {"resourceVersion": resource.metadata.get("resourceVersion"), "uid": resource.uid}
        path, kind = (resource.namespace, resource.name), type(resource)
        try:
            answer = await self._call("PATCH", kind, path, body=body, content_type="application/merge-patch+json")
        except NotFound as error:
            raise Conflict(str(error)) from error
        return _parse(kind, answer)

    async def apply(self, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
        """Creates what is absent. Fields that only others have set stay theirs."""
        metadata = manifest["metadata"]
        return await self._send(
            Request(
                "PATCH",
                _path(manifest["apiVersion"], _plural(manifest), metadata["namespace"], metadata["name"]),
                f"apply {manifest['kind']}",
                body=manifest,
                query={"fieldManager": FIELD_MANAGER, "force": "true"},
                content_type="application/apply-patch+yaml",
            )
        )

    async def delete(self, kind: type[Resource], namespace: str, name: str, uid: str) -> None:
        """Dependents are collected in the background. An object of the name with another UID is left alone."""
        body = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            await self._call("DELETE", kind, (namespace, name), body=body)
        except NotFound:
            return
        except Conflict:
            live = await self.get(kind, namespace, name)
            if live is not None and live.uid == uid:
                raise

    async def secret(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        """Read by name: no right to list Secrets is needed."""
        try:
            answer = await self._send(Request("GET", _path("v1", "secrets", namespace, name), "get Secret"))
        except NotFound:
            return None
        return _secret_data(answer)

    async def create_secret(self, manifest: Mapping[str, Any]) -> Mapping[str, bytes]:
        """Raises Conflict when it vanished between the two looks."""
        namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
        request = Request("POST", _path("v1", "secrets", namespace), "create Secret", body=manifest)
        try:
            return _secret_data(await self._send(request))
        except Conflict:
            existing = await self.secret(namespace, name)
            if existing is None:
                raise
            return existing

    async def event(self, resource: Resource, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Returns at once: the Event is sent in the background, so that a failover never waits for it."""
        self._recorder.record(resource, kind, reason, message)

    async def close(self) -> None:
        """Sends the Events that wait, for a second at most. The transport stays open."""
        await self._recorder.close()

    async def _list(self, kind: type[R], namespace: str | None) -> Sequence[R]:
        items: list[R] = []
        query = {"limit": str(PAGE)}
        while True:
            answer = await self._send(
                Request("GET", _path(API_VERSION, kind.PLURAL, namespace), f"list {kind.KIND}", query=query)
            )
            # The items of a list carry neither apiVersion nor kind for some resources.
            items.extend(
                _parse(kind, {"apiVersion": API_VERSION, "kind": kind.KIND} | item) for item in answer["items"]
            )
            if not (token := answer["metadata"].get("continue")):
                return items
            query = {"limit": str(PAGE), "continue": token}

    async def _call(
        self,
        method: Literal["GET", "PUT", "PATCH", "DELETE"],
        kind: type[Resource],
        path: tuple[str, ...],
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        label = f"{method.lower()} {'/'.join((kind.KIND, *path[2:]))}"
        request = Request(method, _path(API_VERSION, kind.PLURAL, *path), label, body=body, content_type=content_type)
        return await self._send(request)

    async def _send(self, request: Request) -> dict[str, Any]:
        for pause in FORBIDDEN_AGAIN:
            try:
                return await self._transport.call(request)
            except ForbiddenByKubernetes:
                await asyncio.sleep(pause)
        return await self._transport.call(request)


def _path(api_version: str, plural: str, namespace: str | None, *rest: str) -> str:
    root = ("api", api_version) if "/" not in api_version else ("apis", *api_version.split("/"))
    scope = ("namespaces", namespace) if namespace is not None else ()
    return path_of(*root, *scope, plural, *rest)


def _plural(manifest: Mapping[str, Any]) -> str:
    key = (str(manifest["apiVersion"]), str(manifest["kind"]))
    if key not in _PLURALS:
        raise Permanent(f"{key[1]} of {key[0]} is no kind that HASite applies", reason="UnknownKind")
    return _PLURALS[key]


def _identified(resource: Resource) -> dict[str, Any]:
    metadata = {key: resource.metadata[key] for key in ("name", "namespace", "uid", "resourceVersion")}
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": resource.KIND, "metadata": metadata}


def _parse(kind: type[R], answer: Mapping[str, Any]) -> R:
    try:
        return kind.model_validate(answer)
    except ValidationError as error:
        where = f"{kind.KIND} {answer.get('metadata', {}).get('namespace')}/{answer.get('metadata', {}).get('name')}"
        problem = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in problem["loc"]) or "the object"
        raise Permanent(f"{where}: {field}: {problem['msg']}", reason="InvalidObject") from error


def _secret_data(answer: Mapping[str, Any]) -> Mapping[str, bytes]:
    return {key: base64.b64decode(value) for key, value in (answer.get("data") or {}).items()}
