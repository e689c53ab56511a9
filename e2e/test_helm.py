"""The chart, by a real Helm on a real API server: installed, upgraded and uninstalled, and what each value does.

Needs no root. There are no nodes: what the API server holds is looked at, and no pod is waited for.
"""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.chart import CHART, CRDS, HERE, NAME, ROOT, Helm, container, deployment, say, settings
from e2e.world.controlplane import ControlPlane, helm, tools

pytestmark = pytest.mark.timeout(1800)

MONITORS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "servicemonitors.monitoring.coreos.com"},
    "spec": {
        "group": "monitoring.coreos.com",
        "names": {"kind": "ServiceMonitor", "plural": "servicemonitors"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
"""Stands in for the Prometheus operator's own."""


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Helm]:
    """Helm beside a cluster without HASite."""
    plane = ControlPlane(tmp_path_factory.mktemp("controlplane"), tools(say))
    asyncio.run(plane.start())
    yield Helm(helm(say), tmp_path_factory.mktemp("helm"), plane)
    asyncio.run(plane.stop())


@pytest.fixture
def cluster(chart: Helm) -> Iterator[Helm]:
    """The same, left as it was found."""
    yield chart
    chart.uninstall()
    chart.kubectl("delete", "crd", *CRDS, "--ignore-not-found")


def manifests(chart: Helm) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(chart.kubectl("kustomize", str(ROOT / "manifests"))))


def test_helm_finds_nothing_wrong_with_the_chart(chart: Helm) -> None:
    result = chart.run("lint", "--strict", str(CHART))
    assert result.returncode == 0, result.stdout
    assert "WARNING" not in result.stdout


def test_an_installed_release_is_what_the_chart_renders(cluster: Helm) -> None:
    cluster.install()
    assert cluster.names("deployment,serviceaccount,poddisruptionbudget") >= {NAME}
    assert set(cluster.kubectl("get", "crd", "-o", "jsonpath={.items[*].metadata.name}").split()) >= CRDS
    wanted, live = deployment(cluster.rendered())["spec"], cluster.live("deployment", NAME)["spec"]
    assert live["replicas"] == 2
    assert live["template"]["metadata"] == wanted["template"]["metadata"]
    assert covers(live, wanted)


def covers(live: Any, wanted: Any) -> bool:
    """Whether the API server kept all that was sent, and added only defaults."""
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(covers(live.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(live, list) and len(live) == len(wanted) and all(map(covers, live, wanted))
    return bool(live == wanted) or (wanted == "" and live is None)


def test_a_site_can_be_made_once_the_chart_is_installed(cluster: Helm) -> None:
    cluster.install()
    site = next(
        each
        for each in yaml.safe_load_all((ROOT / "examples/site.yaml").read_text())
        if each and each["kind"] == "HASite"
    )
    site["metadata"]["namespace"] = HERE
    cluster.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(site))


def test_an_installed_release_has_the_rights_of_the_manifests(cluster: Helm) -> None:
    cluster.install()
    wanted = {each["kind"]: each["rules"] for each in manifests(cluster) if each["kind"] in ("ClusterRole", "Role")}
    assert cluster.live("clusterrole", NAME)["rules"] == wanted["ClusterRole"]
    assert cluster.live("role", f"{NAME}-leader")["rules"] == wanted["Role"]
    subject = [{"kind": "ServiceAccount", "name": NAME, "namespace": HERE}]
    assert cluster.live("clusterrolebinding", NAME)["subjects"] == subject
    assert cluster.live("rolebinding", f"{NAME}-leader")["subjects"] == subject


def test_with_watch_namespaces_the_rights_end_at_their_borders(cluster: Helm) -> None:
    cluster.kubectl("create", "namespace", "shop")
    cluster.install(values={"watchNamespaces": ["shop"]})

    def may(namespace: str) -> bool:
        asking = ["auth", "can-i", "list", "hasites.hasite.dev", f"--as=system:serviceaccount:{HERE}:{NAME}"]
        assert cluster.plane
        command = [*cluster.plane.kubectl, *asking, "-n", namespace]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() == "yes"

    assert may("shop")
    assert not may("default")
    assert not may(HERE)
    assert settings([cluster.live("deployment", NAME)])["HASITE_WATCH_NAMESPACES"] == "shop"


def test_an_upgrade_changes_what_its_values_change(cluster: Helm) -> None:
    cluster.install()
    before = cluster.live("deployment", NAME)
    cluster.install("upgrade", {"replicas": 3, "image": {"tag": "1.2.3"}})
    after = cluster.live("deployment", NAME)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"]["replicas"] == 3
    assert container([after])["image"] == "hasite-operator:1.2.3"
    before["spec"]["replicas"] = 3
    before["spec"]["template"]["spec"]["containers"][0]["image"] = "hasite-operator:1.2.3"
    assert after["spec"] == before["spec"]


def test_an_upgrade_brings_newer_crds(cluster: Helm, tmp_path: Path) -> None:
    older = tmp_path / "older"
    shutil.copytree(CHART, older)
    file = older / "files/crds/hasite.dev_hasites.yaml"
    crd = yaml.safe_load(file.read_text())
    columns = crd["spec"]["versions"][0].pop("additionalPrinterColumns")
    file.write_text(yaml.safe_dump(crd))
    cluster.install(chart=older)
    assert "Domain" not in printed(cluster)
    cluster.install("upgrade")
    assert printed(cluster) == [column["name"] for column in columns]


def printed(cluster: Helm) -> list[str]:
    version = cluster.live("crd", "hasites.hasite.dev")["spec"]["versions"][0]
    return [column["name"] for column in version.get("additionalPrinterColumns", [])]


def test_after_uninstall_the_crds_stay_and_nothing_else_does(cluster: Helm) -> None:
    cluster.install()
    cluster.uninstall()
    kinds = "deployment,poddisruptionbudget,role,rolebinding,clusterrole,clusterrolebinding"
    left = {name for name in cluster.names(kinds) if "hasite" in name}
    assert left == set()
    assert NAME not in cluster.names("serviceaccount")
    assert cluster.names("crd") >= CRDS


def test_a_release_is_installed_again_over_the_crds_that_it_left(cluster: Helm) -> None:
    cluster.install()
    uid = cluster.live("crd", "hasites.hasite.dev")["metadata"]["uid"]
    cluster.uninstall()
    cluster.install()
    assert cluster.live("crd", "hasites.hasite.dev")["metadata"]["uid"] == uid


def test_crds_that_are_not_to_be_kept_go_with_the_release(cluster: Helm) -> None:
    cluster.install(values={"crds": {"keep": False}})
    cluster.uninstall()
    cluster.kubectl("wait", "--for=delete", "--timeout=30s", "crd", *CRDS)


def test_a_service_monitor_finds_the_metrics(cluster: Helm) -> None:
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(MONITORS))
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", MONITORS["metadata"]["name"])  # type: ignore[index]
    cluster.install(values={"serviceMonitor": {"enabled": True, "interval": "7s", "labels": {"team": "web"}}})
    monitor, service = cluster.live("servicemonitor", NAME), cluster.live("service", f"{NAME}-metrics")
    pod = cluster.live("deployment", NAME)["spec"]["template"]
    assert monitor["metadata"]["labels"]["team"] == "web"
    assert monitor["spec"]["endpoints"] == [{"interval": "7s", "path": "/metrics", "port": "http"}]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert service["spec"]["ports"][0]["targetPort"] in {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
