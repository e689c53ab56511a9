"""What every ``Kube`` promises: run against the fake in memory, and in e2e/ against the real API server."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import pytest
from hasite.api import HASite, LoadBalancerPool
from hasite.api.common import API_VERSION, FINALIZER, Resource
from hasite.errors import Conflict, Permanent
from hasite.kube.base import Kube

Json = dict[str, Any]
READY = {
    "type": "Ready",
    "status": "True",
    "reason": "Serving",
    "message": "",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}


class User(Protocol):
    """A person with kubectl."""

    namespace: str

    async def create(self, manifest: Json) -> Json: ...

    async def edit(self, kind: type[Resource], name: str, change: Callable[[Json], None]) -> Json: ...

    async def remove(self, kind: type[Resource], name: str) -> None: ...

    async def raw(self, kind: type[Resource], name: str) -> Json | None: ...

    async def events(self, name: str) -> list[Json]:
        """Reason, message, type and count of each Event about the object of that name."""
        ...


def site(namespace: str, name: str = "shop") -> Json:
    return {
        "apiVersion": API_VERSION,
        "kind": "HASite",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "domain": "shop.example.com",
            "credentialsRef": {"name": "digitalocean"},
            "locations": [{"name": "new-york", "region": "nyc3"}, {"name": "amsterdam", "region": "ams3"}],
            "app": {"port": 8080, "userData": "#!/bin/sh\n"},
        },
    }


def pool(namespace: str, owner: Json) -> Json:
    reference = {
        "apiVersion": API_VERSION,
        "kind": "HASite",
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "LoadBalancerPool",
        "metadata": {"name": "shop", "namespace": namespace, "ownerReferences": [reference]},
        "spec": {
            "domain": "shop.example.com",
            "credentialsRef": {"name": "digitalocean"},
            "locations": [{"name": "new-york", "region": "nyc3"}],
            "backends": {"port": 8080},
        },
    }


def secret(namespace: str, name: str, **values: str) -> Json:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": values}


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Waits for what happens in the background. The garbage collector looks for new kinds twice a minute."""
    async with asyncio.timeout(75):
        while not await condition():  # noqa: ASYNC110 - any condition
            await asyncio.sleep(0.05)


class KubeSuite:
    """Subclasses give the fixtures ``kube`` and ``user``."""

    async def existing(self, kube: Kube, user: User, name: str = "shop") -> HASite:
        await user.create(site(user.namespace, name))
        found = await kube.get(HASite, user.namespace, name)
        assert found is not None
        return found

    async def test_an_object_that_is_not_there_is_none(self, kube: Kube, user: User) -> None:
        assert await kube.get(HASite, user.namespace, "nobody") is None

    async def test_an_object_is_read_with_its_defaults(self, kube: Kube, user: User) -> None:
        found = await self.existing(kube, user)
        assert found.spec.app.replicas_per_location == 1
        assert found.status.observed_generation == -1
        assert (found.name, found.namespace, found.generation) == ("shop", user.namespace, 1)

    async def test_a_list_holds_every_object_of_the_kind(self, kube: Kube, user: User) -> None:
        await user.create(site(user.namespace, "shop"))
        await user.create(site(user.namespace, "blog"))
        assert {each.name for each in await kube.list(HASite) if each.namespace == user.namespace} == {"blog", "shop"}

    async def test_a_patch_of_a_spec_leaves_the_rest_of_it_and_null_takes_away(self, kube: Kube, user: User) -> None:
        found = await self.existing(kube, user)
        patched = await kube.patch_spec(found, {"app": {"drain": "3s"}})
        assert (patched.spec.app.drain, patched.spec.app.port) == ("3s", found.spec.app.port)
        assert (patched.spec.domain, patched.generation) == (found.spec.domain, found.generation + 1)
        assert (await kube.patch_spec(patched, {"app": {"drain": None}})).spec.app.drain == found.spec.app.drain

    async def test_a_spec_is_not_patched_over_a_change_that_was_not_seen(self, kube: Kube, user: User) -> None:
        seen = await self.existing(kube, user)
        await kube.patch_spec(seen, {"managementPolicy": "Observe"})
        with pytest.raises(Conflict):
            await kube.patch_spec(seen, {"managementPolicy": "Manage"})

    async def test_a_status_is_replaced_as_a_whole(self, kube: Kube, user: User) -> None:
        found = await self.existing(kube, user)
        found = await kube.write_status(found, {"observedGeneration": 1, "published": "192.0.2.1"})
        found = await kube.write_status(found, {"observedGeneration": 1, "conditions": [READY]})
        assert found.status.published == ""
        assert [each.type for each in found.status.conditions] == ["Ready"]

    async def test_a_status_write_leaves_the_spec_and_the_generation(self, kube: Kube, user: User) -> None:
        found = await self.existing(kube, user)
        written = await kube.write_status(found, {"observedGeneration": 1})
        assert written.spec == found.spec
        assert written.generation == found.generation

    async def test_a_status_is_not_written_over_a_change_that_was_not_seen(self, kube: Kube, user: User) -> None:
        seen = await self.existing(kube, user)
        await kube.write_status(seen, {"observedGeneration": 1, "published": "192.0.2.1"})
        with pytest.raises(Conflict):
            await kube.write_status(seen, {"observedGeneration": 1, "published": "192.0.2.2"})
        live = await kube.get(HASite, user.namespace, "shop")
        assert live is not None and live.status.published == "192.0.2.1"

    async def test_the_status_of_another_object_of_the_same_name_is_not_written(self, kube: Kube, user: User) -> None:
        seen = await self.existing(kube, user)
        await user.remove(HASite, "shop")
        await self.existing(kube, user)
        with pytest.raises(Conflict):
            await kube.write_status(seen, {"observedGeneration": 1})

    async def test_the_status_of_an_object_that_is_gone_is_a_conflict(self, kube: Kube, user: User) -> None:
        seen = await self.existing(kube, user)
        await user.remove(HASite, "shop")
        with pytest.raises(Conflict):
            await kube.write_status(seen, {"observedGeneration": 1})

    async def test_the_generation_counts_changes_of_the_spec(self, kube: Kube, user: User) -> None:
        seen = await self.existing(kube, user)
        await user.edit(HASite, "shop", lambda each: each["spec"]["app"].update(replicasPerLocation=3))
        live = await kube.get(HASite, user.namespace, "shop")
        assert live is not None
        assert (live.generation, live.spec.app.replicas_per_location) == (seen.generation + 1, 3)

    async def test_an_object_with_our_finalizer_stays_until_it_is_taken_off(self, kube: Kube, user: User) -> None:
        held = await kube.set_finalizer(await self.existing(kube, user), present=True)
        assert held.finalizers == (FINALIZER,)
        await user.remove(HASite, "shop")
        leaving = await kube.get(HASite, user.namespace, "shop")
        assert leaving is not None and leaving.deleting
        await kube.set_finalizer(leaving, present=False)
        assert await kube.get(HASite, user.namespace, "shop") is None

    async def test_the_finalizers_of_others_are_left_alone(self, kube: Kube, user: User) -> None:
        await self.existing(kube, user)
        await user.edit(HASite, "shop", lambda each: each["metadata"].update(finalizers=["example.com/other"]))
        found = await kube.get(HASite, user.namespace, "shop")
        assert found is not None
        found = await kube.set_finalizer(found, present=True)
        assert set(found.finalizers) == {"example.com/other", FINALIZER}
        found = await kube.set_finalizer(found, present=False)
        assert found.finalizers == ("example.com/other",)
        await user.edit(HASite, "shop", lambda each: each["metadata"].update(finalizers=[]))

    async def test_a_finalizer_is_not_set_over_a_change_that_was_not_seen(self, kube: Kube, user: User) -> None:
        seen = await self.existing(kube, user)
        await user.edit(HASite, "shop", lambda each: each["metadata"].update(labels={"team": "web"}))
        with pytest.raises(Conflict):
            await kube.set_finalizer(seen, present=True)

    async def test_the_finalizer_of_another_object_of_the_same_name_is_not_touched(
        self, kube: Kube, user: User
    ) -> None:
        seen = await self.existing(kube, user)
        await user.remove(HASite, "shop")
        await self.existing(kube, user)
        with pytest.raises(Conflict):
            await kube.set_finalizer(seen, present=True)

    async def test_apply_creates_what_is_absent(self, kube: Kube, user: User) -> None:
        owner = await user.create(site(user.namespace))
        applied = await kube.apply(pool(user.namespace, owner))
        assert applied["metadata"]["uid"]
        assert await kube.get(LoadBalancerPool, user.namespace, "shop") is not None

    async def test_applying_the_same_over_and_over_changes_nothing(self, kube: Kube, user: User) -> None:
        manifest = pool(user.namespace, await user.create(site(user.namespace)))
        await kube.apply(manifest)
        # The API server stores the status's default only now.
        second, third = await kube.apply(manifest), await kube.apply(manifest)
        assert second["metadata"]["resourceVersion"] == third["metadata"]["resourceVersion"]
        assert third["metadata"]["generation"] == 1

    async def test_apply_overrides_what_somebody_else_changed(self, kube: Kube, user: User) -> None:
        manifest = pool(user.namespace, await user.create(site(user.namespace)))
        await kube.apply(manifest)
        await user.edit(LoadBalancerPool, "shop", lambda each: each["spec"]["backends"].update(port=9999))
        await kube.apply(manifest)
        live = await kube.get(LoadBalancerPool, user.namespace, "shop")
        assert live is not None and live.spec.backends.port == 8080

    async def test_apply_leaves_the_status(self, kube: Kube, user: User) -> None:
        manifest = pool(user.namespace, await user.create(site(user.namespace)))
        await kube.apply(manifest)
        found = await kube.get(LoadBalancerPool, user.namespace, "shop")
        assert found is not None
        await kube.write_status(found, {"observedGeneration": 1, "published": "192.0.2.1"})
        manifest["spec"]["backends"]["port"] = 8081
        await kube.apply(manifest)
        live = await kube.get(LoadBalancerPool, user.namespace, "shop")
        assert live is not None and (live.status.published, live.generation) == ("192.0.2.1", 2)

    async def test_apply_takes_away_the_owner_that_it_set_and_sets_no_more(self, kube: Kube, user: User) -> None:
        owner = (await user.create(site(user.namespace)))["metadata"]
        reference = {"apiVersion": API_VERSION, "kind": "HASite", "name": owner["name"], "uid": owner["uid"]}
        free = {**secret(user.namespace, "kept"), "data": {"word": "eA=="}}
        free.pop("stringData", None)
        await kube.create_secret(free)
        bound = await kube.apply({**free, "metadata": {**free["metadata"], "ownerReferences": [reference]}})
        assert [each["uid"] for each in bound["metadata"]["ownerReferences"]] == [owner["uid"]]
        assert not (await kube.apply(free))["metadata"].get("ownerReferences")
        assert await kube.secret(user.namespace, "kept") == {"word": b"x"}

    async def test_apply_refuses_a_kind_that_the_api_server_does_not_have(self, kube: Kube, user: User) -> None:
        metadata = {"name": "x", "namespace": user.namespace}
        with pytest.raises(Permanent):
            await kube.apply({"apiVersion": "example.com/v1", "kind": "Nothing", "metadata": metadata})

    async def test_delete_takes_the_object_with_that_uid(self, kube: Kube, user: User) -> None:
        found = await self.existing(kube, user)
        await kube.delete(HASite, user.namespace, "shop", found.uid)
        assert await kube.get(HASite, user.namespace, "shop") is None

    async def test_delete_of_what_is_gone_is_a_success(self, kube: Kube, user: User) -> None:
        await kube.delete(HASite, user.namespace, "nobody", "0f5f4636-0000-4000-8000-000000000000")

    async def test_delete_leaves_another_object_of_the_same_name(self, kube: Kube, user: User) -> None:
        old = await self.existing(kube, user)
        await user.remove(HASite, "shop")
        new = await self.existing(kube, user)
        await kube.delete(HASite, user.namespace, "shop", old.uid)
        live = await kube.get(HASite, user.namespace, "shop")
        assert live is not None and live.uid == new.uid

    async def test_what_an_object_owns_goes_with_it(self, kube: Kube, user: User) -> None:
        owner = await user.create(site(user.namespace))
        await kube.apply(pool(user.namespace, owner))
        await kube.delete(HASite, user.namespace, "shop", owner["metadata"]["uid"])

        async def gone() -> bool:
            return await kube.get(LoadBalancerPool, user.namespace, "shop") is None

        await until(gone)

    async def test_a_secret_is_read_by_name_and_decoded(self, kube: Kube, user: User) -> None:
        await user.create(secret(user.namespace, "digitalocean", token="not-a-token"))
        assert await kube.secret(user.namespace, "digitalocean") == {"token": b"not-a-token"}

    async def test_a_secret_that_is_not_there_is_none(self, kube: Kube, user: User) -> None:
        assert await kube.secret(user.namespace, "nobody") is None

    async def test_a_secret_is_created_once_and_then_keeps_its_first_data(self, kube: Kube, user: User) -> None:
        first = await kube.create_secret(secret(user.namespace, "ssh", key="first"))
        second = await kube.create_secret(secret(user.namespace, "ssh", key="second"))
        assert first == second == {"key": b"first"}

    async def test_an_event_is_seen_by_the_user(self, kube: Kube, user: User) -> None:
        found = await self.existing(kube, user)
        await kube.event(found, "Warning", "LocationDown", "new-york does not answer")

        async def seen() -> bool:
            return await user.events("shop") == [
                {"type": "Warning", "reason": "LocationDown", "message": "new-york does not answer", "count": 1}
            ]

        await until(seen)

    async def test_the_same_event_counts_up(self, kube: Kube, user: User) -> None:
        found = await self.existing(kube, user)
        for _ in range(3):
            await kube.event(found, "Normal", "Published", "192.0.2.1")

        async def counted() -> bool:
            return [each["count"] for each in await user.events("shop")] == [3]

        await until(counted)
