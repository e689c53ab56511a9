"""The client and the Lease keep their promises on a real API server, with no more rights than the operator needs.

Needs no root.
"""

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from hasite.api import HASite
from hasite.api.common import API_VERSION, Resource
from hasite.errors import ForbiddenByKubernetes, HasiteError, Permanent, Unreachable
from hasite.kube.client import KubeClient
from hasite.kube.lease import Lease, LeaseTimes, unique_identity
from hasite.kube.transport import Request, Transport, configuration, path_of

from e2e.operator_cluster import NAMESPACE, OperatorCluster, operator_cluster
from tests.contract.kube_suite import Json, KubeSuite, site, until

pytestmark = pytest.mark.timeout(1800)
NUMBERS = itertools.count(1)
TIMES = LeaseTimes(duration=3.0)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorCluster]:
    with operator_cluster(tmp_path_factory.mktemp("controlplane")) as cluster:
        yield cluster


async def transport_of(kubeconfig: Path) -> Transport:
    return Transport(await configuration({**os.environ, "KUBECONFIG": str(kubeconfig)}))


class Admin:
    """The user, as a cluster admin, in a namespace of its own."""

    def __init__(self, transport: Transport, namespace: str) -> None:
        self._transport = transport
        self.namespace = namespace

    async def create(self, manifest: Json) -> Json:
        plural = {"HASite": "hasites", "Secret": "secrets"}[manifest["kind"]]
        root = ("api", "v1") if manifest["kind"] == "Secret" else ("apis", *API_VERSION.split("/"))
        path = path_of(*root, "namespaces", self.namespace, plural)
        return await self._transport.call(Request("POST", path, "create", body=manifest))

    async def edit(self, kind: type[Resource], name: str, change: Callable[[Json], None]) -> Json:
        live = await self._transport.call(Request("GET", self._path(kind, name), "get"))
        change(live)
        return await self._transport.call(Request("PUT", self._path(kind, name), "put", body=live))

    async def remove(self, kind: type[Resource], name: str) -> None:
        await self._transport.call(Request("DELETE", self._path(kind, name), "delete"))

    async def raw(self, kind: type[Resource], name: str) -> Json | None:
        return await self._transport.call(Request("GET", self._path(kind, name), "get"))

    async def events(self, name: str) -> list[Json]:
        answer = await self._transport.call(
            Request("GET", path_of("api", "v1", "namespaces", self.namespace, "events"), "list")
        )
        return [
            {key: each[key] for key in ("type", "reason", "message", "count")}
            for each in answer["items"]
            if each["involvedObject"]["name"] == name
        ]

    def _path(self, kind: type[Resource], name: str) -> str:
        return path_of("apis", *API_VERSION.split("/"), "namespaces", self.namespace, kind.PLURAL, name)


@pytest.fixture
async def user(cluster: OperatorCluster) -> AsyncIterator[Admin]:
    transport = await transport_of(cluster.plane.kubeconfig)
    namespace = {"metadata": {"name": f"test-{next(NUMBERS)}"}}
    created = await transport.call(Request("POST", path_of("api", "v1", "namespaces"), "create", body=namespace))
    yield Admin(transport, created["metadata"]["name"])
    await transport.close()


@pytest.fixture
async def transport(cluster: OperatorCluster) -> AsyncIterator[Transport]:
    transport = await transport_of(cluster.kubeconfig)
    yield transport
    await transport.close()


@pytest.fixture
async def kube(transport: Transport) -> AsyncIterator[KubeClient]:
    kube = KubeClient(transport, "operator-1")
    yield kube
    await kube.close()


class TestKubeClient(KubeSuite):
    pass


async def test_a_list_is_limited_to_the_namespaces_that_are_looked_after(transport: Transport, user: Admin) -> None:
    await user.create(site(user.namespace))
    kube = KubeClient(transport, "operator-1", namespaces=["default", user.namespace])
    assert [each.namespace for each in await kube.list(HASite)] == [user.namespace]


async def test_a_list_goes_on_over_all_pages(kube: KubeClient, user: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hasite.kube.client.PAGE", 2)
    for number in range(5):
        await user.create(site(user.namespace, f"site-{number}"))
    assert len([each for each in await kube.list(HASite) if each.namespace == user.namespace]) == 5


async def test_whether_a_kind_can_be_listed_is_a_matter_of_the_crd_and_the_rights(kube: KubeClient) -> None:
    class Unknown(HASite):
        PLURAL = "unknowns"

    await kube.listable(HASite)
    with pytest.raises(HasiteError):
        await kube.listable(Unknown)


async def test_what_the_operator_has_no_right_to_is_forbidden_by_kubernetes(transport: Transport) -> None:
    with pytest.raises(ForbiddenByKubernetes, match="cannot list resource"):
        await transport.call(Request("GET", path_of("api", "v1", "secrets"), "list Secret"))


async def test_a_manifest_that_the_schema_refuses_is_permanent_in_its_own_words(kube: KubeClient, user: Admin) -> None:
    manifest = site(user.namespace)
    manifest["spec"]["app"]["port"] = 70000
    with pytest.raises(Permanent, match=r"spec\.app\.port"):
        await kube.apply(manifest)


async def test_an_event_never_raises_and_waits_for_nobody(user: Admin, cluster: OperatorCluster) -> None:
    await user.create(site(user.namespace))
    transport = await transport_of(cluster.kubeconfig)
    kube = KubeClient(transport, "operator-1")
    found = await kube.get(HASite, user.namespace, "shop")
    assert found is not None
    await transport.close()
    unreachable = await configuration({**os.environ, "KUBECONFIG": str(cluster.kubeconfig)})
    unreachable.host = "https://127.0.0.1:1"
    kube = KubeClient(Transport(unreachable), "operator-1")
    started = time.monotonic()
    await kube.event(found, "Normal", "Published", "192.0.2.1")
    assert time.monotonic() - started < 0.1
    await kube.close()


async def test_an_api_server_that_is_away_is_unreachable(cluster: OperatorCluster) -> None:
    away = await configuration({**os.environ, "KUBECONFIG": str(cluster.kubeconfig)})
    away.host = "https://127.0.0.1:1"
    transport = Transport(away)
    with pytest.raises(Unreachable):
        await transport.call(Request("GET", "/version", "get version"))
    await transport.close()


class Candidates:
    """Operators that compete for one lease of the test's own."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig
        self._name = f"lease-{next(NUMBERS)}"
        self._open: list[tuple[Transport, asyncio.Task[None]]] = []

    async def join(self) -> tuple[Lease, asyncio.Task[None]]:
        transport = await transport_of(self._kubeconfig)
        lease = Lease(transport, (NAMESPACE, self._name), unique_identity("operator"), TIMES)
        task = asyncio.create_task(lease.run())
        self._open.append((transport, task))
        return lease, task

    def cut_off(self, number: int) -> None:
        """The candidate's calls go to a port where nobody answers."""
        self._open[number][0]._client.configuration.host = "https://127.0.0.1:1"

    async def close(self) -> None:
        for transport, task in self._open:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await transport.close()


@pytest.fixture
async def candidates(cluster: OperatorCluster) -> AsyncIterator[Candidates]:
    candidates = Candidates(cluster.kubeconfig)
    yield candidates
    await candidates.close()


async def test_one_of_two_candidates_leads(candidates: Candidates) -> None:
    first, _ = await candidates.join()
    await asyncio.wait_for(first.acquired(), 5)
    second, _ = await candidates.join()

    async def second_looked() -> bool:
        return second.in_touch()

    await until(second_looked)
    assert (first.is_leader(), second.is_leader()) == (True, False)


async def test_a_lease_that_is_given_back_is_taken_over_within_a_second(candidates: Candidates) -> None:
    first, task = await candidates.join()
    await asyncio.wait_for(first.acquired(), 5)
    second, _ = await candidates.join()
    task.cancel()
    await first.release()
    assert not first.is_leader()
    started = time.monotonic()
    await asyncio.wait_for(second.acquired(), 5)
    assert time.monotonic() - started < 1.5


async def test_a_leader_that_is_cut_off_stops_before_the_standby_starts(candidates: Candidates) -> None:
    first, ended = await candidates.join()
    await asyncio.wait_for(first.acquired(), 5)
    second, _ = await candidates.join()
    candidates.cut_off(0)
    started = time.monotonic()
    await asyncio.wait_for(ended, TIMES.duration)
    stopped = time.monotonic() - started
    assert not first.is_leader() and not second.is_leader()
    assert stopped <= TIMES.renew_deadline + 0.2
    await asyncio.wait_for(second.acquired(), 10)
    assert time.monotonic() - started >= TIMES.duration - TIMES.retry


async def test_a_deleted_lease_is_made_again_by_its_holder(candidates: Candidates, cluster: OperatorCluster) -> None:
    first, task = await candidates.join()
    await asyncio.wait_for(first.acquired(), 5)
    second, _ = await candidates.join()

    async def second_looked() -> bool:
        return second.in_touch()

    await until(second_looked)
    cluster.kubectl("delete", "lease", "-n", NAMESPACE, candidates._name)

    async def there_again() -> bool:
        return bool(cluster.kubectl("get", "lease", "-n", NAMESPACE, "--ignore-not-found", candidates._name))

    await until(there_again)
    assert (first.is_leader(), second.is_leader(), task.done()) == (True, False, False)


async def test_a_lease_taken_by_somebody_else_ends_the_leadership(
    candidates: Candidates, cluster: OperatorCluster
) -> None:
    first, ended = await candidates.join()
    await asyncio.wait_for(first.acquired(), 5)
    patch = '{"spec": {"holderIdentity": "somebody-else"}}'
    cluster.kubectl("patch", "lease", "-n", NAMESPACE, candidates._name, "--type=merge", "-p", patch)
    await asyncio.wait_for(ended, TIMES.renew_deadline)
    assert not first.is_leader()
