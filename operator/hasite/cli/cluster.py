"""Which cluster and namespace the plugin speaks with: kubectl's own rules."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import ConfigException, list_kube_config_contexts, load_kube_config

from hasite.errors import Permanent
from hasite.kube.base import Kube
from hasite.kube.client import KubeClient
from hasite.kube.transport import Transport


def kubeconfig_path(flag: str | None) -> str:
    """The flag, else KUBECONFIG (files separated by colons), else ``~/.kube/config``."""
    return flag or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")


def current_namespace(path: str, context: str | None) -> str:
    """That of the context, else ``default``. Raises Permanent when the kubeconfig can't be read."""
    try:
        contexts, active = list_kube_config_contexts(path)
    except (ConfigException, OSError, KeyError) as error:
        raise Permanent(f"{path}: {error}", reason="NoCluster") from error
    chosen = next((c for c in contexts if c["name"] == context), active) if context else active
    return str(chosen["context"].get("namespace") or "default")


@asynccontextmanager
async def connect(path: str, context: str | None) -> AsyncIterator[Kube]:
    """The API server that the kubeconfig names. Raises Permanent when there is none."""
    settings = Configuration()
    try:
        await load_kube_config(path, context=context, client_configuration=settings, persist_config=False)
    except (ConfigException, OSError, KeyError) as error:
        raise Permanent(f"{path}: {error}", reason="NoCluster") from error
    transport = Transport(settings)
    try:
        yield KubeClient(transport, "kubectl-hasite")
    finally:
        await transport.close()
