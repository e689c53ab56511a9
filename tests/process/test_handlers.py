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


@pytest.mark.parametrize(
    ("events", "fresh"),
    [
        pytest.param([event(None)], False, id="listed at the start"),
        pytest.param([event("ADDED")], False, id="new"),
        pytest.param([event("ADDED"), event("MODIFIED")], False, id="only its status or labels changed"),
        pytest.param([event("ADDED"), event("MODIFIED", generation=2)], True, id="its spec changed"),
        pytest.param([event("ADDED"), event("MODIFIED", deletionTimestamp="2026-01-01T00:00:00Z")], True, id="leaving"),
        pytest.param([event("ADDED"), event("DELETED")], True, id="gone"),
        pytest.param([event("ADDED"), event("MODIFIED", uid="u-2", generation=2)], False, id="another of the name"),
    ],
)
async def test_every_event_wakes_and_a_changed_wish_is_fresh(events: list[dict[str, Any]], fresh: bool) -> None:
    woken = Woken()
    handle = _handler(HASite, woken, _Wishes())
    for each in events:
        await handle(event=each)
    assert len(woken) == len(events)
    assert woken[-1] == ("HASite", "shop", fresh)


async def test_a_pool_wakes_the_site_that_owns_it() -> None:
    woken = Woken()
    owner = {"apiVersion": "hasite.dev/v1alpha1", "kind": "HASite", "name": "owner", "uid": "u-0"}
    other = {"apiVersion": "example.com/v1", "kind": "HASite", "name": "stranger", "uid": "u-9"}
    await _handler(LoadBalancerPool, woken, _Wishes())(event=event("MODIFIED", ownerReferences=[owner, other]))
    assert woken == [("LoadBalancerPool", "shop", False), ("HASite", "owner", False)]


def test_kopf_posts_no_events_joins_no_peers_and_asks_for_no_rights_of_the_whole_cluster() -> None:
    settings = kopf_settings()
    assert not settings.posting.enabled
    assert settings.peering.standalone
    assert settings.scanning.disabled
    assert settings.queueing.worker_limit is None
    assert settings.watching.client_timeout is not None and settings.watching.server_timeout is not None
    assert settings.watching.client_timeout > settings.watching.server_timeout
