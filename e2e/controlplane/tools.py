"""Finds the programs of a control plane: those under KUBEBUILDER_ASSETS, else the one built from Go modules."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from e2e.controlplane.build import build
from e2e.controlplane.toolchain import Progress

Argv = tuple[str, ...]
"""The start of a command line, to which flags are added."""


@dataclass(frozen=True)
class Tools:
    """The programs of a control plane. Without a controller manager nothing collects garbage, ends namespaces or
    makes service accounts."""

    apiserver: Argv
    etcd: Argv
    controller_manager: Argv | None
    kubectl: Argv


def tools(progress: Progress) -> Tools:
    """Finds the programs, or builds them; blocks for minutes when nothing is cached.

    Raises BuildError, and FileNotFoundError when KUBEBUILDER_ASSETS lacks a program that is needed.
    """
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        return tools_in(Path(assets))
    program = build(progress)
    return Tools(
        apiserver=(str(program), "kube-apiserver"),
        etcd=(str(program), "etcd"),
        controller_manager=(str(program), "kube-controller-manager"),
        kubectl=(str(program.with_name("kubectl")),),
    )


def helm(progress: Progress) -> Argv:
    """Helm: the one on PATH where KUBEBUILDER_ASSETS says that nothing should be built, else a part of what is built.

    Raises BuildError.
    """
    if os.environ.get("KUBEBUILDER_ASSETS") and (found := shutil.which("helm")):
        return (found,)
    return (str(build(progress)), "helm")


def tools_in(assets: Path) -> Tools:
    """The programs in a directory laid out as setup-envtest does it; kube-controller-manager may be missing."""
    for name in ("etcd", "kube-apiserver", "kubectl"):
        if not os.access(assets / name, os.X_OK):
            raise FileNotFoundError(f"KUBEBUILDER_ASSETS is {assets}, which has no program {name}")
    manager = assets / "kube-controller-manager"
    return Tools(
        apiserver=(str(assets / "kube-apiserver"),),
        etcd=(str(assets / "etcd"),),
        controller_manager=(str(manager),) if os.access(manager, os.X_OK) else None,
        kubectl=(str(assets / "kubectl"),),
    )
