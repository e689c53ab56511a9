"""The manifests on a real API server: they are taken, and give the operator the rights it needs and no more.

Needs no root.
"""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.world.controlplane import ControlPlane, tools

pytestmark = pytest.mark.timeout(1800)

ROOT = Path(__file__).resolve().parent.parent
OPERATOR = "system:serviceaccount:hasite-system:hasite-operator"
HERE, ELSEWHERE = "hasite-system", "shop"

MAY = [
    *[
        (verb, f"{kind}.hasite.dev", ELSEWHERE)
        for kind in ("hasites", "loadbalancerpools", "replicateddatabases")
        for verb in ("get", "list", "watch", "patch")
    ],
    *[("update", f"{kind}.hasite.dev/status", ELSEWHERE) for kind in ("hasites", "loadbalancerpools")],
    ("update", "hasites.hasite.dev/finalizers", ELSEWHERE),
    ("create", "loadbalancerpools.hasite.dev", ELSEWHERE),
    ("delete", "loadbalancerpools.hasite.dev", ELSEWHERE),
    ("get", "secrets", ELSEWHERE),
    ("create", "secrets", ELSEWHERE),
    ("create", "events", ELSEWHERE),
    ("patch", "events", ELSEWHERE),
    *[(verb, "leases.coordination.k8s.io", HERE) for verb in ("get", "create", "update")],
]
MAY_NOT = [
    ("delete", "hasites.hasite.dev", ELSEWHERE),
    ("create", "hasites.hasite.dev", ELSEWHERE),
    ("delete", "replicateddatabases.hasite.dev", ELSEWHERE),
    ("list", "secrets", ELSEWHERE),
    ("watch", "secrets", ELSEWHERE),
    ("update", "secrets", ELSEWHERE),
    ("delete", "secrets", ELSEWHERE),
    ("get", "leases.coordination.k8s.io", ELSEWHERE),
    ("delete", "leases.coordination.k8s.io", HERE),
    ("get", "pods", HERE),
    ("get", "configmaps", HERE),
    ("create", "clusterroles.rbac.authorization.k8s.io", HERE),
    ("update", "customresourcedefinitions.apiextensions.k8s.io", HERE),
]

Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    plane = ControlPlane(
        tmp_path_factory.mktemp("controlplane"), tools(lambda message: print(message, file=sys.stderr))
    )
    asyncio.run(plane.start())

    def run(*arguments: str, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([*plane.kubectl, *arguments], input=stdin, capture_output=True, text=True, check=False)

    yield run
    asyncio.run(plane.stop())


@pytest.fixture(scope="module")
def installed(kubectl: Kubectl) -> Kubectl:
    for _ in range(2):
        result = kubectl("apply", "--server-side", "--validate=strict", "-k", str(ROOT / "manifests"))
        assert result.returncode == 0, result.stderr
    return kubectl


def test_the_manifests_are_taken_as_they_are(installed: Kubectl) -> None:
    shown = installed("get", "deployment,serviceaccount,pdb", "-n", HERE, "-o", "name").stdout
    assert {"deployment.apps/hasite-operator", "serviceaccount/hasite-operator"} <= set(shown.split())


@pytest.mark.parametrize(("verb", "resource", "namespace"), MAY)
def test_the_operator_may(installed: Kubectl, verb: str, resource: str, namespace: str) -> None:
    assert allowed(installed, verb, resource, namespace)


@pytest.mark.parametrize(("verb", "resource", "namespace"), MAY_NOT)
def test_the_operator_may_not(installed: Kubectl, verb: str, resource: str, namespace: str) -> None:
    assert not allowed(installed, verb, resource, namespace)


def allowed(kubectl: Kubectl, verb: str, resource: str, namespace: str) -> bool:
    resource, _, subresource = resource.partition("/")
    flags = [f"--subresource={subresource}"] if subresource else []
    answer = kubectl("auth", "can-i", verb, resource, *flags, "-n", namespace, f"--as={OPERATOR}")
    assert answer.stdout.strip() in ("yes", "no"), answer.stderr
    return str(answer.stdout).strip() == "yes"
