"""The cluster that the local world works with: one of its own, or one that a person has already."""

import asyncio
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import yaml

from e2e.controlplane.credentials import write_private
from e2e.controlplane.toolchain import Progress
from e2e.controlplane.tools import tools
from e2e.world.controlplane import ControlPlane

USE_KUBECONFIG = "HASITE_WORLD_USE_KUBECONFIG"
"""Set to 1: take the cluster that KUBECONFIG names. Never by default: it may be somebody's production."""

SERVICE_ACCOUNT_TOKEN_LIFETIME = "24h"


class NotOurs(Exception):
    """Asked of a cluster that the local world didn't start, and may not disturb."""


class Cluster(Protocol):
    """What the local world needs of a cluster."""

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig of a cluster admin."""

    @property
    def kubectl(self) -> tuple[str, ...]:
        """The start of a kubectl command line for that admin."""

    async def start(self, detach: bool = False) -> None:
        """Returns when the API answers."""

    async def stop(self) -> None:
        """Ends what `start` began."""

    async def restart_apiserver(self, down_for: float = 0) -> None:
        """Takes the API away for a while. Raises NotOurs."""


class ExistingCluster:
    """A cluster that somebody else runs: it is used, never started, stopped or restarted."""

    def __init__(self, kubeconfig: Path, kubectl: Sequence[str]) -> None:
        self.kubeconfig = kubeconfig
        self.kubectl = (*kubectl, f"--kubeconfig={kubeconfig}")

    async def start(self, detach: bool = False) -> None:
        """Raises KubectlError when the API doesn't answer."""
        await run_kubectl(self, "get", "--raw", "/readyz")

    async def stop(self) -> None:
        """Leaves the cluster running."""

    async def restart_apiserver(self, down_for: float = 0) -> None:
        """Raises NotOurs, always."""
        raise NotOurs("the API server of an existing cluster is not restarted")


class KubectlError(Exception):
    """kubectl failed; the message is what it wrote to stderr."""


def cluster(directory: Path, progress: Progress, port: int = 0, use_kubeconfig: bool | None = None) -> Cluster:
    """The cluster that KUBECONFIG names if that is wished for explicitly, else a control plane in `directory`.

    May build the control plane's programs first, which blocks for minutes. Raises BuildError and FileNotFoundError.
    """
    if use_kubeconfig is None:
        use_kubeconfig = os.environ.get(USE_KUBECONFIG) == "1"
    if not use_kubeconfig:
        return ControlPlane(directory, tools(progress), port)
    path = Path(os.environ.get("KUBECONFIG", ""))
    if not path.is_file():
        raise FileNotFoundError(f"{USE_KUBECONFIG} is set, but KUBECONFIG names no file: {str(path)!r}")
    on_path = shutil.which("kubectl")
    return ExistingCluster(path, (on_path,) if on_path else tools(progress).kubectl)


async def run_kubectl(cluster: Cluster, *arguments: str, stdin: str = "") -> str:
    """Runs kubectl as the cluster's admin and returns what it printed. Raises KubectlError."""
    process = await asyncio.create_subprocess_exec(
        *cluster.kubectl,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate(stdin.encode())
    if process.returncode != 0:
        raise KubectlError(f"kubectl {' '.join(arguments)}: {errors.decode().strip()}")
    return output.decode()


async def service_account_kubeconfig(cluster: Cluster, namespace: str, name: str, path: Path) -> Path:
    """Writes a kubeconfig with the rights of a service account, as a Pod of it would have them.

    Its token ends after 24 hours. Raises KubectlError, for example when there is no such service account.
    """
    lifetime = f"--duration={SERVICE_ACCOUNT_TOKEN_LIFETIME}"
    token = await run_kubectl(cluster, "create", "token", name, "--namespace", namespace, lifetime)
    view = await run_kubectl(cluster, "config", "view", "--raw", "--minify", "--flatten", "--output", "json")
    config = json.loads(view)
    context = config["contexts"][0]
    context["context"].update(user=name, namespace=namespace)
    config["users"] = [{"name": name, "user": {"token": token.strip()}}]
    write_private(path, yaml.safe_dump(config, sort_keys=False))
    return path
