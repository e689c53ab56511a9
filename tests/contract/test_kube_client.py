"""What the client makes of the API server's answers. Its promises as a ``Kube`` are proved on a real API server."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from hasite import main
from hasite.api import HASite, LoadBalancerPool
from hasite.errors import ForbiddenByKubernetes, Permanent, Transient, Unauthorized
from hasite.kube.client import KubeClient
from hasite.kube.transport import Transport
from kubernetes.aio.client.configuration import Configuration

from tests.contract.kube_suite import Json, site

SITES = "/apis/hasite.dev/v1alpha1/namespaces/default/hasites"


class ApiServer:
    """Answers what it was told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Json]] = {}
        self.asked: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path_qs)
        status, body = self.answers.get(request.path, (404, {"message": "not found"}))
        return web.Response(status=status, text=json.dumps(body), content_type="application/json")


@pytest.fixture
def server() -> ApiServer:
    return ApiServer()


@pytest.fixture
async def transport(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Transport]:
    monkeypatch.setattr("hasite.kube.client.FORBIDDEN_AGAIN", (0.001, 0.001))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    settings = Configuration()
    settings.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    transport = Transport(settings)
    yield transport
    await transport.close()
    await runner.cleanup()


def invalid() -> Json:
    """An object of an older CRD, say: the API server holds it, the model refuses it."""
    manifest = site("default")
    manifest["spec"]["app"]["port"] = "eighty"
    return manifest


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_of_the_api_servers_is_none_of_a_providers_and_may_pass(
    transport: Transport, server: ApiServer, status: int
) -> None:
    server.answers[f"{SITES}/shop"] = (status, {"message": "hasites is forbidden"})
    with pytest.raises(ForbiddenByKubernetes, match="get HASite: hasites is forbidden") as raised:
        await KubeClient(transport, "one").get(HASite, "default", "shop")
    assert isinstance(raised.value, Transient)
    assert not isinstance(raised.value, Unauthorized)
    assert len(server.asked) == 3


async def test_an_object_that_the_model_refuses_is_permanent_in_words(transport: Transport, server: ApiServer) -> None:
    server.answers[f"{SITES}/shop"] = (200, invalid())
    with pytest.raises(Permanent, match=r"HASite default/shop: spec\.app\.port: ") as raised:
        await KubeClient(transport, "one").get(HASite, "default", "shop")
    assert raised.value.reason == "InvalidObject"


async def test_whether_a_kind_can_be_listed_is_asked_for_in_each_namespace_with_one_object_at_most(
    transport: Transport, server: ApiServer
) -> None:
    for namespace in ("shop", "blog"):
        server.answers[f"/apis/hasite.dev/v1alpha1/namespaces/{namespace}/hasites"] = (200, {"items": []})
    await KubeClient(transport, "one", ["shop", "blog"]).listable(HASite)
    assert server.asked == [
        "/apis/hasite.dev/v1alpha1/namespaces/shop/hasites?limit=1",
        "/apis/hasite.dev/v1alpha1/namespaces/blog/hasites?limit=1",
    ]


async def test_a_kind_that_is_not_installed_cannot_be_listed(transport: Transport) -> None:
    with pytest.raises(Permanent, match="list LoadBalancerPool: not found"):
        await KubeClient(transport, "one").listable(LoadBalancerPool)


async def test_one_object_that_the_model_refuses_does_not_keep_the_watch_from_starting(
    transport: Transport, server: ApiServer
) -> None:
    for plural in ("hasites", "loadbalancerpools", "replicateddatabases"):
        server.answers[f"/apis/hasite.dev/v1alpha1/{plural}"] = (200, {"metadata": {}, "items": [invalid()]})

    class Parts:
        kube = KubeClient(transport, "one")
        started = False

        @property
        def watcher(self) -> Any:
            return self

        def start(self) -> None:
            self.started = True

    parts: Any = Parts()
    async with asyncio.timeout(1):
        await main._watch_when_known(parts)
    assert parts.started
