"""One HTTP call to the API server, with a deadline, and its failures as our errors.

Only the transport of ``kubernetes.aio`` is used (credentials, TLS, connection pool): its generated models and API
classes would cost 100 MiB of memory, and they validate nothing that the API server doesn't.
"""

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from hasite.errors import (
    Conflict,
    ForbiddenByKubernetes,
    HasiteError,
    Permanent,
    RateLimited,
    Transient,
    Unreachable,
)

TIMEOUT: Final = 10.0
"""Seconds that a call may take, to the last byte of its answer."""

CONNECTIONS: Final = 20
"""At once. asyncio keeps a buffer of 256 KiB for each TLS connection, and the library's own limit is 100."""

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Observer = Callable[[str, str], None]
"""Called after each call with a label of the endpoint and the HTTP status (or ``unreachable``)."""


@dataclass(frozen=True)
class Request:
    """One call. ``path`` is joined from segments by ``path_of``; ``label`` names the endpoint in metrics."""

    method: Method
    path: str
    label: str
    body: Mapping[str, Any] | None = None
    query: Mapping[str, str] | None = None
    content_type: str = "application/json"
    timeout: float = TIMEOUT


class NotFound(Permanent):
    """A definite 404 of the API server. Leaves ``hasite.kube`` only for a missing namespace or CRD."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="NotFound")


def path_of(*segments: str) -> str:
    """Joins path segments, each quoted: a name can't leave its place in the path."""
    return "/" + "/".join(quote(segment, safe="") for segment in segments)


class Transport:
    """Kept-open connections to one API server. Close it with ``close``."""

    def __init__(self, configuration: Configuration, observe: Observer = lambda label, status: None) -> None:
        configuration.connection_pool_maxsize = CONNECTIONS
        self._client = ApiClient(configuration)
        self._client.user_agent = "hasite-operator"
        self._observe = observe

    async def call(self, request: Request) -> dict[str, Any]:
        """The answer's JSON object. Whether a write whose answer got lost was done is not known: every write here is
        conditional or idempotent, so that it may be repeated after a look.

        Raises NotFound, Conflict, Unreachable, ForbiddenByKubernetes, Transient, Permanent.
        """
        try:
            status, headers, text = await self._send(request)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._observe(request.label, "unreachable")
            raise Unreachable(
                f"{request.label}: no answer from the API server: {error or type(error).__name__}"
            ) from error
        self._observe(request.label, str(status))
        if status >= 300:
            raise _error(status, headers, text, request.label)
        try:
            return cast("dict[str, Any]", json.loads(text))
        except ValueError as error:
            raise Unreachable(
                f"{request.label}: the answer is not JSON; something else than the API server answered"
            ) from error

    async def _send(self, request: Request) -> tuple[int, Mapping[str, str], bytes]:
        path = request.path + (f"?{urlencode(request.query)}" if request.query else "")
        async with asyncio.timeout(request.timeout):
            method, url, headers, body, _ = await self._client.param_serialize(
                request.method,
                path,
                header_params={"Accept": "application/json", "Content-Type": request.content_type},
                body=request.body,
                auth_settings=["BearerToken"],
            )
            limit = aiohttp.ClientTimeout(total=request.timeout)
            response = await self._client.call_api(method, url, headers, body, _request_timeout=limit)
            return response.status, response.headers, await response.read()

    async def close(self) -> None:
        """Ends all connections."""
        await self._client.close()


async def configuration(environ: Mapping[str, str] = os.environ) -> Configuration:
    """The cluster that KUBECONFIG names, else the one that this pod runs in, else that of ``~/.kube/config``.

    In a pod the token is read from its file again every minute, since the kubelet renews it there.
    Raises Permanent when none is configured.
    """
    result = Configuration()
    default = Path.home() / ".kube" / "config"
    try:
        if path := environ.get("KUBECONFIG"):
            await load_kube_config(config_file=path, client_configuration=result, persist_config=False)
        elif environ.get("KUBERNETES_SERVICE_HOST"):
            load_incluster_config(client_configuration=result)
        elif default.exists():
            await load_kube_config(config_file=str(default), client_configuration=result, persist_config=False)
        else:
            raise Permanent("no cluster: set KUBECONFIG, or run in a pod with a service account", reason="NoCluster")
    except (ConfigException, OSError, KeyError) as error:
        raise Permanent(f"the credentials of the cluster can't be loaded: {error}", reason="NoCluster") from error
    return result


def _error(status: int, headers: Mapping[str, str], text: bytes, label: str) -> HasiteError:
    message = f"{label}: {_message(text) or f'HTTP {status}'}"
    retry_after = _seconds(headers.get("Retry-After"))
    match status:
        case 401 | 403:
            return ForbiddenByKubernetes(message)
        case 404:
            return NotFound(message)
        case 409:
            return Conflict(message)
        case 429:
            return RateLimited(message, retry_after)
        case 400 | 405 | 406 | 413 | 415 | 422:
            return Permanent(message, reason="RefusedByApiServer")
        case _:
            return Transient(message, retry_after)


def _message(text: bytes) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text[:200].decode(errors="replace")


def _seconds(header: str | None) -> float | None:
    return float(header) if header and header.isdigit() else None
