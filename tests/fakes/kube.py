"""An API server in memory, for tests. It passes the contract suite that the real one passes.

A test acts as the user with ``create``, ``edit``, ``remove``; it injects faults with ``fail_next`` and ``freeze``; and
it kills the operator before or after any write by raising from ``on_write``.
"""

import base64
import copy
import itertools
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from hasite.api import HASite, LoadBalancerPool, ReplicatedDatabase
from hasite.api.common import API_VERSION, FINALIZER, Resource
from hasite.errors import Conflict, Permanent
from hasite.kube.base import Kube

R = TypeVar("R", bound=Resource)
Key = tuple[str, str, str]
"""Kind, namespace, name."""
Json = dict[str, Any]

KINDS: Mapping[str, type[Resource]] = {kind.KIND: kind for kind in (HASite, LoadBalancerPool, ReplicatedDatabase)}


@dataclass(frozen=True)
class Event:
    about: str
    kind: str
    reason: str
    message: str


@dataclass
class FakeKube(Kube):
    """``on_write`` is called with ``before VERB KIND/NAMESPACE/NAME`` and ``after …`` around each write of the
    operator. ``on_change`` is the watch: called with kind, namespace, name after each change, whoever made it."""

    on_write: Callable[[str], None] = lambda _: None
    on_change: Callable[[type[Resource], str, str], None] = lambda kind, namespace, name: None
    objects: dict[Key, Json] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)
    fail_next: list[Exception] = field(default_factory=list)
    """Each call of the operator raises the first of these instead, and takes it off the list."""

    def __post_init__(self) -> None:
        self._versions = itertools.count(1)
        self._frozen: dict[Key, Json] | None = None
        self._applied_owners: set[Key] = set()

    # The operator's side.

    async def get(self, kind: type[R], namespace: str, name: str) -> R | None:
        self._maybe_fail()
        found = self.objects.get((kind.KIND, namespace, name))
        return None if found is None else kind.model_validate(copy.deepcopy(found))

    async def list(self, kind: type[R]) -> Sequence[R]:
        self._maybe_fail()
        objects = self.objects if self._frozen is None else self._frozen
        return [
            kind.model_validate(copy.deepcopy(each)) for (of, *_), each in sorted(objects.items()) if of == kind.KIND
        ]

    async def write_status(self, resource: R, status: Mapping[str, Any]) -> R:
        def write() -> Json:
            live = self._unchanged(resource)
            if live.get("status") != (wanted := _plain(status)):
                live["status"] = wanted
                self._touch(live)
            return live

        return type(resource).model_validate(self._write("write_status", _key(resource), write))

    async def set_finalizer(self, resource: R, present: bool) -> R:
        def write() -> Json:
            live = self._unchanged(resource)
            others = [each for each in resource.finalizers if each != FINALIZER]
            live["metadata"]["finalizers"] = [*others, FINALIZER] if present else others
            self._touch(live)
            self._maybe_collect(_key(resource))
            return live

        return type(resource).model_validate(self._write("set_finalizer", _key(resource), write))

    async def patch_spec(self, resource: R, changes: Mapping[str, Any]) -> R:
        def write() -> Json:
            changed = copy.deepcopy(self._unchanged(resource))
            changed["spec"] = _merged(changed["spec"], _plain(changes))
            self._replace(_key(resource), changed)
            return self.objects[_key(resource)]

        return type(resource).model_validate(self._write("patch_spec", _key(resource), write))

    async def apply(self, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
        wanted = _plain(manifest)
        key = (wanted["kind"], wanted["metadata"]["namespace"], wanted["metadata"]["name"])
        if key[0] not in (*KINDS, "Secret", "ConfigMap"):
            raise Permanent(f"{key[0]} is no kind that HASite applies", reason="UnknownKind")

        def write() -> Json:
            if "ownerReferences" in wanted["metadata"]:
                self._applied_owners.add(key)
            if key not in self.objects:
                return self._insert(wanted)
            live = self.objects[key]
            merged = {**live, **{name: part for name, part in wanted.items() if name not in ("metadata", "status")}}
            merged["metadata"] = {**live["metadata"], **wanted["metadata"]}
            if key in self._applied_owners and "ownerReferences" not in wanted["metadata"]:
                merged["metadata"].pop("ownerReferences", None)  # what it has set and sets no more is taken away
            self._replace(key, merged)
            return self.objects[key]

        return self._write("apply", key, write)

    async def delete(self, kind: type[Resource], namespace: str, name: str, uid: str) -> None:
        key = (kind.KIND, namespace, name)

        def write() -> Json:
            live = self.objects.get(key)
            if live is not None and live["metadata"]["uid"] == uid:
                self._mark_deleted(key)
            return live or {}

        self._write("delete", key, write)

    async def secret(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        self._maybe_fail()
        found = self.objects.get(("Secret", namespace, name))
        return None if found is None else _secret_data(found)

    async def create_secret(self, manifest: Mapping[str, Any]) -> Mapping[str, bytes]:
        wanted = _plain(manifest)
        key = ("Secret", wanted["metadata"]["namespace"], wanted["metadata"]["name"])
        return _secret_data(self._write("create_secret", key, lambda: self.objects.get(key) or self._insert(wanted)))

    async def event(self, resource: Resource, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        self.events.append(Event(f"{resource.KIND}/{resource.name}", kind, reason, message))

    # The user's side, and the world's.

    def create(self, manifest: Mapping[str, Any] | Resource) -> Json:
        """As ``kubectl create``. Defaults of the schema are filled in."""
        wanted = manifest.wire() if isinstance(manifest, Resource) else _plain(manifest)
        created = self._insert(wanted)
        self._tell(wanted["kind"], wanted["metadata"]["namespace"], wanted["metadata"]["name"])
        return copy.deepcopy(created)

    def edit(self, kind: type[Resource], namespace: str, name: str, change: Callable[[Json], None]) -> Json:
        """As ``kubectl edit``: ``change`` gets the object and changes it in place."""
        key = (kind.KIND, namespace, name)
        changed = copy.deepcopy(self.objects[key])
        change(changed)
        self._replace(key, changed)
        self._tell(*key)
        return copy.deepcopy(self.objects.get(key, changed))

    def remove(self, kind: type[Resource], namespace: str, name: str) -> None:
        """As ``kubectl delete --wait=false``."""
        key = (kind.KIND, namespace, name)
        self._mark_deleted(key)
        self._tell(*key)

    def put_secret(self, namespace: str, name: str, data: Mapping[str, str]) -> None:
        """Creates or replaces a Secret."""
        self.objects.pop(("Secret", namespace, name), None)
        metadata = {"namespace": namespace, "name": name}
        self._insert({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": dict(data)})

    def raw(self, kind: type[Resource], namespace: str, name: str) -> Json | None:
        """The object as it is stored."""
        return copy.deepcopy(self.objects.get((kind.KIND, namespace, name)))

    def freeze(self) -> None:
        """From now on ``list`` answers with what is there at this moment: a stale cache."""
        self._frozen = copy.deepcopy(self.objects)

    def thaw(self) -> None:
        """Ends ``freeze``."""
        self._frozen = None

    # Inside.

    def _write(self, verb: str, key: Key, write: Callable[[], Json]) -> Json:
        self._maybe_fail()
        effect = f"{verb} {'/'.join(key)}"
        self.on_write(f"before {effect}")
        result = copy.deepcopy(write())
        self.writes.append(effect)
        self._tell(*key)
        self.on_write(f"after {effect}")
        return result

    def _maybe_fail(self) -> None:
        if self.fail_next:
            raise self.fail_next.pop(0)

    def _tell(self, kind: str, namespace: str, name: str) -> None:
        if kind in KINDS:
            self.on_change(KINDS[kind], namespace, name)

    def _unchanged(self, resource: Resource) -> Json:
        live = self.objects.get(_key(resource))
        seen = (resource.uid, resource.metadata["resourceVersion"])
        if live is None or (live["metadata"]["uid"], live["metadata"]["resourceVersion"]) != seen:
            raise Conflict(f"{resource.KIND} {resource.name}: the object has been modified")
        return live

    def _insert(self, wanted: Json) -> Json:
        key = (wanted["kind"], wanted["metadata"]["namespace"], wanted["metadata"]["name"])
        if key in self.objects:
            raise Conflict(f"{'/'.join(key)} already exists")
        created = _with_defaults(wanted)
        created.pop("status", None) if key[0] in KINDS else None
        created["metadata"] |= {"uid": str(uuid.uuid4()), "generation": 1, "creationTimestamp": _now()}
        for managed in ("deletionTimestamp", "resourceVersion"):
            created["metadata"].pop(managed, None)
        if key[0] in KINDS:
            created["status"] = {"observedGeneration": -1}
        self._touch(created)
        self.objects[key] = created
        return created

    def _replace(self, key: Key, changed: Json) -> None:
        """A write to the main resource: the status stays, a changed spec counts the generation up."""
        live = self.objects[key]
        changed = _with_defaults(changed)
        kept = ("uid", "generation", "creationTimestamp", "deletionTimestamp", "resourceVersion")
        changed["metadata"] |= {name: live["metadata"][name] for name in kept if name in live["metadata"]}
        if "status" in live:
            changed["status"] = live["status"]
        if changed == live:
            return
        if changed.get("spec") != live.get("spec"):
            changed["metadata"]["generation"] += 1
        self._touch(changed)
        self.objects[key] = changed
        self._maybe_collect(key)

    def _touch(self, live: Json) -> None:
        live["metadata"]["resourceVersion"] = str(next(self._versions))

    def _mark_deleted(self, key: Key) -> None:
        live = self.objects[key]
        if "deletionTimestamp" not in live["metadata"]:
            live["metadata"]["deletionTimestamp"] = _now()
            live["metadata"]["generation"] += 1
            self._touch(live)
        self._maybe_collect(key)

    def _maybe_collect(self, key: Key) -> None:
        """Takes away an object that is deleted and held by no finalizer, and then what it owned."""
        metadata = self.objects[key]["metadata"]
        if "deletionTimestamp" not in metadata or metadata.get("finalizers"):
            return
        del self.objects[key]
        owned = [
            other
            for other, each in self.objects.items()
            if any(owner["uid"] == metadata["uid"] for owner in each["metadata"].get("ownerReferences", ()))
        ]
        for other in owned:
            self._mark_deleted(other)
            self._tell(*other)


def _merged(value: Json, patch: Json) -> Json:
    """RFC 7396."""
    kept = {key: each for key, each in value.items() if patch.get(key, ...) is not None}
    for key, each in patch.items():
        if isinstance(each, dict):
            kept[key] = _merged(kept.get(key) or {}, each)
        elif each is not None:
            kept[key] = each
    return kept


def _with_defaults(wanted: Json) -> Json:
    kind = KINDS.get(wanted["kind"])
    if kind is None:
        return copy.deepcopy(wanted)
    if wanted.get("apiVersion") != API_VERSION:
        raise Permanent(f"no such kind: {wanted.get('apiVersion')} {wanted['kind']}")
    return {**kind.model_validate({**wanted, "status": {}}).wire(), "metadata": copy.deepcopy(wanted["metadata"])}


def _key(resource: Resource) -> Key:
    return (resource.KIND, resource.namespace, resource.name)


def _plain(value: Mapping[str, Any]) -> Json:
    return copy.deepcopy(dict(value))


def _secret_data(secret: Json) -> Mapping[str, bytes]:
    plain = {key: str(value).encode() for key, value in secret.get("stringData", {}).items()}
    return {key: base64.b64decode(value) for key, value in secret.get("data", {}).items()} | plain


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
