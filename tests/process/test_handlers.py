"""Which events wake what."""

from typing import Any

import pytest
from hasite.api import HASite, LoadBalancerPool
from hasite.api.common import Resource
from hasite.handlers.handlers import _handler, _Wishes
from hasite.handlers.watcher import kopf_settings


class Woken(list[tuple[str, str, bool]]):
    def __call__(self, kind: type[Resource], namespace: str, name: str, *, fresh: bool = False) -> None:
        self.append((kind.KIND, name, fresh))


def event(kind: str | None, generation: int = 1, **metadata: Any) -> dict[str, Any]:
    body = {"namespace": "default", "name": "shop", "uid": "u-1", "generation": generation, **metadata}
    return {"type": kind, "object": {"metadata": body}}


LEAVING = "2026-01-01T00:00:00Z"
OWNER = {"apiVersion": "hasite.dev/v1alpha1", "kind": "HASite", "name": "owner", "uid": "u-0"}


@pytest.mark.parametrize(
    ("events", "woken"),
    [
        pytest.param([event(None)], "ordinary", id="listed at the start"),
        pytest.param([event("ADDED")], "ordinary", id="new"),
        pytest.param([event("MODIFIED")], "ordinary", id="seen for the first time"),
        pytest.param([event("ADDED"), event("MODIFIED")], "not", id="only its status changed"),
        pytest.param([event("ADDED"), event("MODIFIED"), event("MODIFIED")], "not", id="its status again"),
        pytest.param([event("ADDED"), event("MODIFIED", annotations={"a": "b"})], "not", id="only an annotation"),
        pytest.param([event("ADDED"), event("MODIFIED", finalizers=["f"])], "ordinary", id="its finalizers"),
        pytest.param([event("ADDED"), event("MODIFIED", ownerReferences=[OWNER])], "ordinary", id="its owner"),
        pytest.param([event("ADDED"), event(None)], "ordinary", id="listed again: it may have changed unseen"),
        pytest.param([event("ADDED"), event(None, generation=2)], "fresh", id="its spec changed unseen"),
        pytest.param([event("ADDED"), event("MODIFIED", generation=2)], "fresh", id="its spec changed"),
        pytest.param([event("ADDED"), event("MODIFIED", deletionTimestamp=LEAVING)], "fresh", id="leaving"),
        pytest.param([event("ADDED"), event("DELETED")], "fresh", id="gone"),
        pytest.param([event("ADDED"), event("DELETED"), event("ADDED")], "ordinary", id="back again"),
        pytest.param([event("ADDED"), event("MODIFIED", uid="u-2")], "fresh", id="another of the name"),
    ],
)
async def test_a_changed_wish_is_fresh_and_a_changed_status_does_not_wake_its_object(
    events: list[dict[str, Any]], woken: str
) -> None:
    calls = Woken()
    handle = _handler(HASite, calls, _Wishes())
    for each in events:
        calls.clear()
        await handle(event=each)
    itself = [call for call in calls if call[1] == "shop"]
    assert itself == ([] if woken == "not" else [("HASite", "shop", woken == "fresh")])


async def test_the_end_of_an_object_does_not_hide_its_successor() -> None:
    woken = Woken()
    handle = _handler(HASite, woken, _Wishes())
    await handle(event=event("ADDED", uid="u-2"))
    await handle(event=event("DELETED", uid="u-1"))
    woken.clear()
    await handle(event=event("MODIFIED", uid="u-2"))
    assert woken == []


async def test_an_object_that_is_gone_is_not_remembered() -> None:
    wishes = _Wishes()
    for kind in ("ADDED", "MODIFIED", "DELETED"):
        await _handler(HASite, Woken(), wishes)(event=event(kind))
    assert not wishes._seen


async def test_no_more_objects_are_remembered_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hasite.handlers.handlers.REMEMBERED", 3)
    wishes, woken = _Wishes(), Woken()
    handle = _handler(HASite, woken, wishes)
    for number in (1, 2, 3, 1, 4):
        await handle(event=event("ADDED", name=f"site-{number}"))
    assert [name for _, name in wishes._seen] == ["site-3", "site-1", "site-4"]


async def test_a_pool_wakes_the_site_that_owns_it_also_by_its_status() -> None:
    woken = Woken()
    other = {"apiVersion": "example.com/v1", "kind": "HASite", "name": "stranger", "uid": "u-9"}
    handle = _handler(LoadBalancerPool, woken, _Wishes())
    for kind in ("ADDED", "MODIFIED"):
        await handle(event=event(kind, ownerReferences=[OWNER, other]))
    assert woken == [("LoadBalancerPool", "shop", False), ("HASite", "owner", False), ("HASite", "owner", False)]


def test_kopf_posts_no_events_joins_no_peers_and_asks_for_no_rights_of_the_whole_cluster() -> None:
    settings = kopf_settings()
    assert not settings.posting.enabled
    assert settings.peering.standalone
    assert settings.scanning.disabled
    assert settings.queueing.worker_limit is None
    assert settings.watching.client_timeout is not None and settings.watching.server_timeout is not None
    assert settings.watching.client_timeout > settings.watching.server_timeout
