"""A real control plane with the project's CRDs, and the operator's own user with just the rights that it needs."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from e2e.world.controlplane import OPERATOR, ControlPlane, tools

ROOT: Final = Path(__file__).resolve().parent.parent
NAMESPACE: Final = "hasite-system"
"""Of the operator and its Lease."""
SITES: Final = "sites"
"""Of the custom resources."""

RIGHTS: Final[tuple[Mapping[str, list[str]], ...]] = (
    {
        "apiGroups": ["hasite.dev"],
        "resources": ["hasites", "loadbalancerpools", "replicateddatabases"],
        "verbs": ["get", "list", "watch", "patch"],
    },
    {
        "apiGroups": ["hasite.dev"],
        "resources": ["hasites/status", "loadbalancerpools/status", "replicateddatabases/status"],
        "verbs": ["update"],
    },
    {"apiGroups": ["hasite.dev"], "resources": ["hasites", "loadbalancerpools"], "verbs": ["create", "delete"]},
    # An owner reference with blockOwnerDeletion needs it where OwnerReferencesPermissionEnforcement is on.
    {"apiGroups": ["hasite.dev"], "resources": ["hasites/finalizers"], "verbs": ["update"]},
    {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "create", "patch"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
)
LEASE_RIGHTS: Final[tuple[Mapping[str, list[str]], ...]] = (
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]},
)


class OperatorCluster:
    """What a test needs of it."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.kubeconfig = plane.kubeconfig_for(OPERATOR)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Its output; fails the test with its error."""
        command = [*self.plane.kubectl, *arguments]
        run = subprocess.run(command, capture_output=True, text=True, check=False, input=stdin)
        assert run.returncode == 0, run.stderr
        return run.stdout

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        """As a cluster admin."""
        self.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}))


@contextmanager
def operator_cluster(directory: Path) -> Iterator[OperatorCluster]:
    """Started; ended when the block is left."""
    plane = ControlPlane(directory, tools(lambda message: print(message, file=sys.stderr)))
    asyncio.run(plane.start())
    try:
        cluster = OperatorCluster(plane)
        cluster.kubectl("apply", "-f", str(ROOT / "crds"))
        cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(ROOT / "crds"))
        cluster.apply(*(_namespace(name) for name in (NAMESPACE, SITES)))
        cluster.apply(*_bound("ClusterRole", RIGHTS, None), *_bound("Role", LEASE_RIGHTS, NAMESPACE))
        yield cluster
    finally:
        asyncio.run(plane.stop())


def _namespace(name: str) -> Mapping[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _bound(
    role: str, rules: tuple[Mapping[str, list[str]], ...], namespace: str | None
) -> tuple[Mapping[str, Any], ...]:
    api, metadata = "rbac.authorization.k8s.io", {"name": OPERATOR, **({"namespace": namespace} if namespace else {})}
    subject = {"kind": "User", "name": OPERATOR, "apiGroup": api}
    reference = {"kind": role, "name": OPERATOR, "apiGroup": api}
    return (
        {"apiVersion": f"{api}/v1", "kind": role, "metadata": metadata, "rules": list(rules)},
        {
            "apiVersion": f"{api}/v1",
            "kind": f"{role}Binding",
            "metadata": metadata,
            "subjects": [subject],
            "roleRef": reference,
        },
    )
