"""The operator's process beside a real API server: what wakes it, what it leaves alone, how it leads and how it ends.

Needs no root. The reconcilers are probes; what HASite itself does is proved elsewhere.
"""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from e2e.operator_cluster import NAMESPACE, ROOT, SITES, OperatorCluster, operator_cluster
from tests.contract.kube_suite import pool, site

pytestmark = pytest.mark.timeout(1800)
LEASE = 3
"""Seconds."""


@dataclass
class Operator:
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def page(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def reconciled(self, of: str) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line["message"] == "reconciled" and line["of"] == of]

    def leads(self) -> bool:
        return "hasite_leader 1.0" in self.page("/metrics")[1]

    def ready(self) -> bool:
        return self.page("/readyz")[0] == 200

    def resident_mib(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        assert found
        return int(found[1]) / 1024


def until(condition: Callable[[], object], seconds: float = 30) -> float:
    """How long it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "it did not happen"
        time.sleep(0.02)
    return time.monotonic() - started


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorCluster]:
    with operator_cluster(tmp_path_factory.mktemp("controlplane")) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def no_sites(cluster: OperatorCluster) -> Iterator[None]:
    yield
    cluster.kubectl("delete", "hasites,loadbalancerpools", "--all", "-n", SITES)


@contextmanager
def operator(cluster: OperatorCluster, directory: Path, name: str = "one", lease: float = LEASE) -> Iterator[Operator]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    log = directory / f"{name}.log"
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'operator'}",
        "KUBECONFIG": str(cluster.kubeconfig),
        "HASITE_NAMESPACE": NAMESPACE,
        "HASITE_IDENTITY": name,
        "HASITE_LISTEN": f"127.0.0.1:{port}",
        "HASITE_LEASE_DURATION": str(lease),
    }
    with log.open("wb") as output:
        command = [sys.executable, "-m", "e2e.operator_probe"]
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield Operator(process, port, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(8)
        finally:
            process.kill()
            process.wait()


@contextmanager
def leader(cluster: OperatorCluster, directory: Path, name: str = "one", lease: float = LEASE) -> Iterator[Operator]:
    with operator(cluster, directory, name, lease) as started:
        until(lambda: started.leads() and started.ready())
        yield started


def create(cluster: OperatorCluster, name: str = "shop") -> dict[str, Any]:
    cluster.apply(site(SITES, name))
    return get(cluster, "hasites", name)


def get(cluster: OperatorCluster, kind: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        cluster.kubectl("get", kind, name, "-n", SITES, "-o", "json", "--show-managed-fields")
    )
    return found


def test_a_new_object_is_reconciled_at_once(cluster: OperatorCluster, tmp_path: Path) -> None:
    with leader(cluster, tmp_path) as one:
        create(cluster)
        until(lambda: one.reconciled("HASite/shop"), 3)
        until(lambda: get(cluster, "hasites", "shop")["status"]["observedGeneration"] == 1, 3)


def test_objects_that_were_there_before_are_reconciled(cluster: OperatorCluster, tmp_path: Path) -> None:
    create(cluster)
    with leader(cluster, tmp_path) as one:
        until(lambda: one.reconciled("HASite/shop"), 5)


def test_a_changed_spec_is_reconciled(cluster: OperatorCluster, tmp_path: Path) -> None:
    create(cluster)
    with leader(cluster, tmp_path) as one:
        until(lambda: one.reconciled("HASite/shop"))
        patch = '{"spec": {"app": {"replicasPerLocation": 3}}}'
        cluster.kubectl("patch", "hasites", "shop", "-n", SITES, "--type=merge", "-p", patch)
        until(lambda: one.reconciled("HASite/shop")[-1]["generation"] == 2, 3)


def test_a_status_that_the_operator_wrote_itself_does_not_wake_it(cluster: OperatorCluster, tmp_path: Path) -> None:
    create(cluster)
    with leader(cluster, tmp_path) as one:
        until(lambda: get(cluster, "hasites", "shop")["status"]["observedGeneration"] == 1)
        # Events of one kind come in their order: after this one's, the status has been heard of.
        create(cluster, "blog")
        until(lambda: get(cluster, "hasites", "blog")["status"]["observedGeneration"] == 1)
        create(cluster, "news")
        until(lambda: one.reconciled("HASite/news"), 3)
        assert [len(one.reconciled(f"HASite/{name}")) for name in ("shop", "blog")] == [1, 1]


def test_a_pool_whose_status_changed_wakes_the_site_that_owns_it_and_not_itself(
    cluster: OperatorCluster, tmp_path: Path
) -> None:
    owner = create(cluster)
    with leader(cluster, tmp_path) as one:
        cluster.apply(pool(SITES, owner))
        until(lambda: get(cluster, "loadbalancerpools", "shop").get("status", {}).get("observedGeneration") == 1)
        until(lambda: len(one.reconciled("HASite/shop")) >= 2, 3)
        before = len(one.reconciled("HASite/shop"))
        patch = '{"status": {"published": "192.0.2.1"}}'
        flags = ("--subresource=status", "--type=merge", "-p", patch)
        cluster.kubectl("patch", "loadbalancerpool", "shop", "-n", SITES, *flags)
        until(lambda: len(one.reconciled("HASite/shop")) > before, 3)
        assert len(one.reconciled("LoadBalancerPool/shop")) == 1


def test_a_pool_that_changed_wakes_the_site_that_owns_it(cluster: OperatorCluster, tmp_path: Path) -> None:
    owner = create(cluster)
    with leader(cluster, tmp_path) as one:
        until(lambda: get(cluster, "hasites", "shop")["status"]["observedGeneration"] == 1)
        cluster.apply(pool(SITES, owner))
        until(lambda: one.reconciled("LoadBalancerPool/shop"), 3)
        before = len(one.reconciled("HASite/shop"))
        patch = '{"spec": {"backends": {"port": 9090}}}'
        cluster.kubectl("patch", "loadbalancerpool", "shop", "-n", SITES, "--type=merge", "-p", patch)
        until(lambda: len(one.reconciled("HASite/shop")) > before, 3)


def test_a_deleted_object_is_forgotten_with_its_metrics(cluster: OperatorCluster, tmp_path: Path) -> None:
    create(cluster)
    with leader(cluster, tmp_path) as one:
        until(lambda: 'name="shop"' in one.page("/metrics")[1])
        cluster.kubectl("delete", "hasites", "shop", "-n", SITES)
        until(lambda: [line for line in one.lines() if line["message"] == "forgotten"], 3)
        until(lambda: 'name="shop"' not in one.page("/metrics")[1], 3)


def test_watching_writes_nothing_to_the_users_object(cluster: OperatorCluster, tmp_path: Path) -> None:
    create(cluster)
    with leader(cluster, tmp_path):
        until(lambda: get(cluster, "hasites", "shop")["status"]["observedGeneration"] == 1)
        events = until_events(cluster)
    metadata = get(cluster, "hasites", "shop")["metadata"]
    # kubectl apply's own is the only one.
    assert set(metadata.get("annotations", {})) == {"kubectl.kubernetes.io/last-applied-configuration"}
    assert "finalizers" not in metadata
    assert {each["source"]["component"] for each in events} == {"hasite-operator"}
    managers = {each["manager"] for each in metadata["managedFields"] if each.get("subresource") != "status"}
    assert managers == {"kubectl-client-side-apply"}


def until_events(cluster: OperatorCluster) -> list[dict[str, Any]]:
    def events() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(cluster.kubectl("get", "events", "-n", SITES, "-o", "json"))["items"]
        return found

    until(events)
    return events()


def test_what_runs_is_alive_ready_and_measured(cluster: OperatorCluster, tmp_path: Path) -> None:
    create(cluster)
    with leader(cluster, tmp_path) as one:
        until(lambda: one.reconciled("HASite/shop"))
        assert one.page("/healthz")[0] == 200
        assert one.page("/readyz") == (200, "watch: ok\nlease: ok\n")
        until(lambda: 'hasite_reconcile_total{kind="HASite",result="ok"}' in one.page("/metrics")[1])
        text = one.page("/metrics")[1]
        assert 'hasite_api_calls_total{endpoint="get HASite",provider="kubernetes",status="200"}' in text


def test_a_standby_is_ready_reconciles_nothing_and_takes_over_when_the_leader_is_told_to_end(
    cluster: OperatorCluster, tmp_path: Path
) -> None:
    create(cluster)
    with leader(cluster, tmp_path) as one, operator(cluster, tmp_path, "two") as two:
        until(two.ready)
        assert not two.leads()
        assert two.reconciled("HASite/shop") == []
        one.process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        until(lambda: two.reconciled("HASite/shop"), 4)
        took = time.monotonic() - started
        assert one.process.wait(5) == 0
        assert took < 2, f"{took:.1f} s"


def test_a_leader_that_stood_still_ends_at_once_when_it_goes_on(cluster: OperatorCluster, tmp_path: Path) -> None:
    create(cluster)
    with leader(cluster, tmp_path) as one, operator(cluster, tmp_path, "two") as two:
        until(two.ready)
        until(lambda: one.reconciled("HASite/shop"))
        one.process.send_signal(signal.SIGSTOP)
        until(lambda: two.reconciled("HASite/shop"), LEASE + 5)
        before = len(one.reconciled("HASite/shop"))
        patch = '{"spec": {"app": {"replicasPerLocation": 4}}}'
        cluster.kubectl("patch", "hasites", "shop", "-n", SITES, "--type=merge", "-p", patch)
        one.process.send_signal(signal.SIGCONT)
        assert one.process.wait(5) == 1
        assert len(one.reconciled("HASite/shop")) == before


def test_two_operators_of_one_name_are_still_two(cluster: OperatorCluster, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    with leader(cluster, tmp_path) as one, operator(cluster, tmp_path / "second") as twin:
        until(twin.ready)
        assert one.leads() and not twin.leads()


def test_an_api_server_that_restarts_is_waited_for(cluster: OperatorCluster, tmp_path: Path) -> None:
    create(cluster)
    with leader(cluster, tmp_path, lease=60) as one:
        until(lambda: one.reconciled("HASite/shop"))
        pid = cluster.plane.status()["kube-apiserver"]
        asyncio.run(cluster.plane.restart_apiserver(down_for=15))
        assert cluster.plane.status()["kube-apiserver"] != pid
        create(cluster, "blog")
        until(lambda: one.reconciled("HASite/blog"), 30)
        assert one.process.poll() is None
        assert one.leads()


def test_a_setting_that_cannot_be_used_ends_the_process_with_its_name(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; from hasite.main import main; sys.exit(main(['run', '--listen=x']))"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "operator")}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "HASITE_LISTEN: 'x' is not ADDRESS:PORT" in run.stderr


def test_without_the_libraries_of_providers_it_stays_under_its_share_of_memory(
    cluster: OperatorCluster, tmp_path: Path
) -> None:
    create(cluster)
    with leader(cluster, tmp_path) as one:
        until(lambda: one.reconciled("HASite/shop"))
        print(f"resident: {one.resident_mib():.0f} MiB")
        assert one.resident_mib() < 100
