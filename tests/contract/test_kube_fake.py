"""The fake API server keeps what ``Kube`` promises, so the fast tests may trust it; and the faults it can inject."""

from collections.abc import Callable

import pytest
from hasite.api import HASite
from hasite.api.common import Resource
from hasite.errors import Unreachable

from tests.contract.kube_suite import Json, KubeSuite, site
from tests.fakes.kube import FakeKube


class FakeUser:
    namespace = "default"

    def __init__(self, kube: FakeKube) -> None:
        self._kube = kube

    async def create(self, manifest: Json) -> Json:
        return self._kube.create(manifest)

    async def edit(self, kind: type[Resource], name: str, change: Callable[[Json], None]) -> Json:
        return self._kube.edit(kind, self.namespace, name, change)

    async def remove(self, kind: type[Resource], name: str) -> None:
        self._kube.remove(kind, self.namespace, name)

    async def raw(self, kind: type[Resource], name: str) -> Json | None:
        return self._kube.raw(kind, self.namespace, name)

    async def events(self, name: str) -> list[Json]:
        about = [each for each in self._kube.events if each.about.endswith(f"/{name}")]
        return [
            {"type": each.kind, "reason": each.reason, "message": each.message, "count": about.count(each)}
            for each in dict.fromkeys(about)
        ]


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def user(kube: FakeKube) -> FakeUser:
    return FakeUser(kube)


class TestFakeKube(KubeSuite):
    pass


class Killed(Exception):
    pass


async def test_the_operator_can_be_killed_before_and_after_a_write() -> None:
    kube = FakeKube()
    kube.create(site("default"))
    found = await kube.get(HASite, "default", "shop")
    assert found is not None
    for moment, published in [("before", ""), ("after", "192.0.2.1")]:

        def kill(effect: str, moment: str = moment) -> None:
            if effect == f"{moment} write_status HASite/default/shop":
                raise Killed

        kube.on_write = kill
        with pytest.raises(Killed):
            await kube.write_status(found, {"observedGeneration": 1, "published": "192.0.2.1"})
        live = await kube.get(HASite, "default", "shop")
        assert live is not None and live.status.published == published


async def test_a_frozen_list_is_stale_while_a_read_is_live() -> None:
    kube = FakeKube()
    kube.create(site("default"))
    kube.freeze()
    kube.remove(HASite, "default", "shop")
    assert len(await kube.list(HASite)) == 1
    assert await kube.get(HASite, "default", "shop") is None
    kube.thaw()
    assert await kube.list(HASite) == []


async def test_the_next_call_can_be_made_to_fail() -> None:
    kube = FakeKube(fail_next=[Unreachable("no answer")])
    with pytest.raises(Unreachable):
        await kube.get(HASite, "default", "shop")
    assert await kube.get(HASite, "default", "shop") is None


async def test_the_watch_hears_of_every_change() -> None:
    heard: list[str] = []
    kube = FakeKube(on_change=lambda kind, namespace, name: heard.append(f"{kind.KIND}/{namespace}/{name}"))
    kube.create(site("default"))
    found = await kube.get(HASite, "default", "shop")
    assert found is not None
    await kube.write_status(found, {"observedGeneration": 1})
    kube.remove(HASite, "default", "shop")
    assert heard == ["HASite/default/shop"] * 3
