"""A real control plane on loopback: etcd, kube-apiserver with RBAC, and the controllers that a custom resource needs.

For a person: `python -m e2e.world.controlplane build|up|down|status --dir DIRECTORY`.
"""

import argparse
import asyncio
import signal
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import aiohttp

from e2e.controlplane.build import build
from e2e.controlplane.credentials import HOST, Settings, token_file, write_kubeconfig, write_private, write_signing_key
from e2e.controlplane.toolchain import BuildError
from e2e.controlplane.tools import Tools, helm, tools
from e2e.world.processes import Processes

__all__ = ["ADMIN", "OPERATOR", "BuildError", "ControlPlane", "StartError", "Tools", "build", "helm", "tools"]

ADMIN = "admin"
OPERATOR = "hasite-operator"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager")
"""In the order of their start."""

CONTROLLERS = (
    "garbage-collector-controller",
    "namespace-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
)
START_TIMEOUT = 60.0
"""Seconds for each program to become ready."""
POLL = 0.05

Probe = Callable[[aiohttp.ClientSession], Awaitable[bool]]


class StartError(Exception):
    """A program of the control plane did not become ready; the message ends with the last lines of its log."""


class ControlPlane:
    """One control plane in one directory, which holds its data, certificates, logs and kubeconfigs.

    Started again in the same directory it has the same objects, port and tokens. What an earlier run in it left
    running is ended first. Every listening socket is on 127.0.0.1.
    """

    def __init__(
        self, directory: Path, tools: Tools, port: int = 0, users: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """`port` 0 takes a free one. `users` (name → groups) get a token each besides the cluster's admin and
        `hasite-operator`: kube-apiserver reads tokens only when it starts."""
        self._directory = directory.absolute()
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._tools = tools
        self._users: dict[str, Sequence[str]] = {ADMIN: ["system:masters"], OPERATOR: [], **(users or {})}
        self._processes = Processes(self._directory)
        self._detach = False
        self._settings = Settings.load(self._directory / "settings.json", port)

    @property
    def url(self) -> str:
        """The API server's address, https."""
        return f"https://{HOST}:{self._settings.port}"

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig of a cluster admin. Exists once `start` was called."""
        return self._directory / f"{ADMIN}.kubeconfig"

    @property
    def kubectl(self) -> tuple[str, ...]:
        """The start of a kubectl command line for the cluster's admin."""
        return (*self._tools.kubectl, f"--kubeconfig={self.kubeconfig}")

    def kubeconfig_for(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig for a user who has only the rights that RBAC gives.

        Raises ValueError for a user whom the running API server doesn't know: ask before `start`.
        """
        if user not in self._users:
            if self._processes.running("kube-apiserver"):
                raise ValueError(f"user {user!r} must be declared before the API server starts")
            self._users[user] = groups
        self._write_credentials()
        return self._directory / f"{user}.kubeconfig"

    async def start(self, detach: bool = False) -> None:
        """Returns when the API answers and the controllers work. Not detached, the programs die with this process.

        Raises StartError; what was started by then is stopped.
        """
        await self.stop()
        self._detach = detach
        self._settings = self._settings.with_free_etcd_ports()
        self._write_credentials()
        try:
            await self._start("etcd", self._etcd_command(), self._etcd_is_healthy)
            await self.start_apiserver()
            if self._tools.controller_manager:
                await self._start("kube-controller-manager", self._manager_command(), self._controllers_work)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Ends every program, etcd last: without it kube-apiserver hangs in its own shutdown."""
        for name in reversed(PROGRAMS):
            await self._processes.stop(name)

    async def start_apiserver(self) -> None:
        """Starts kube-apiserver alone, with etcd running already; returns when it is ready."""
        await self._start("kube-apiserver", self._apiserver_command(), self._apiserver_is_ready)

    async def stop_apiserver(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends kube-apiserver alone: the API is away until `start_apiserver`."""
        await self._processes.stop("kube-apiserver", how)

    async def restart_apiserver(self, down_for: float = 0) -> None:
        """Takes the API away for that many seconds and the time of its start; objects and tokens stay."""
        await self.stop_apiserver()
        await asyncio.sleep(down_for)
        await self.start_apiserver()

    def status(self) -> dict[str, int | None]:
        """The PID of each program, None for one that doesn't run."""
        return {name: self._processes.pid(name) for name in PROGRAMS}

    def _etcd_command(self) -> list[str]:
        peer = f"http://{HOST}:{self._settings.etcd_peer_port}"
        return [
            *self._tools.etcd,
            f"--data-dir={self._directory / 'etcd'}",
            f"--listen-client-urls={self._etcd_url}",
            f"--advertise-client-urls={self._etcd_url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
        ]

    def _apiserver_command(self) -> list[str]:
        return [
            *self._tools.apiserver,
            f"--etcd-servers={self._etcd_url}",
            f"--bind-address={HOST}",
            # By default the server looks for the address of the default route, and ends where there is none.
            f"--advertise-address={HOST}",
            "--endpoint-reconciler-type=none",
            f"--secure-port={self._settings.port}",
            f"--cert-dir={self._certificate.parent}",
            f"--token-auth-file={self._directory / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            f"--service-account-key-file={self._signing_key}",
            f"--service-account-signing-key-file={self._signing_key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=198.19.255.0/24",
            # By default a server with open watches takes 60 s to end.
            "--shutdown-watch-termination-grace-period=1s",
            "--profiling=false",
        ]

    def _manager_command(self) -> list[str]:
        assert self._tools.controller_manager is not None
        return [
            *self._tools.controller_manager,
            f"--kubeconfig={self.kubeconfig}",
            f"--controllers={','.join(CONTROLLERS)}",
            f"--service-account-private-key-file={self._signing_key}",
            f"--root-ca-file={self._certificate}",
            "--leader-elect=false",
            "--secure-port=0",
            "--profiling=false",
        ]

    @property
    def _etcd_url(self) -> str:
        return f"http://{HOST}:{self._settings.etcd_port}"

    @property
    def _certificate(self) -> Path:
        return self._directory / "certificates" / "apiserver.crt"

    @property
    def _signing_key(self) -> Path:
        return self._directory / "certificates" / "service-account.key"

    def _write_credentials(self) -> None:
        self._settings = self._settings.with_tokens_for(list(self._users))
        self._settings.save(self._directory / "settings.json")
        tokens = self._settings.tokens
        write_private(self._directory / "tokens.csv", token_file(self._users, tokens))
        self._signing_key.parent.mkdir(exist_ok=True)
        write_signing_key(self._signing_key)
        for user in self._users:
            write_kubeconfig(self._directory / f"{user}.kubeconfig", self.url, self._certificate, user, tokens[user])

    async def _start(self, name: str, command: Sequence[str], ready: Probe) -> None:
        self._processes.start(name, command, self._detach)
        try:
            async with asyncio.timeout(START_TIMEOUT), aiohttp.ClientSession() as session:
                while not await _answers(ready, session):
                    if not self._processes.running(name):
                        raise StartError(f"{name} ended:\n{self._processes.log_tail(name)}")
                    await asyncio.sleep(POLL)
        except TimeoutError:
            tail = self._processes.log_tail(name)
            raise StartError(f"{name} not ready after {START_TIMEOUT:.0f} s:\n{tail}") from None

    async def _etcd_is_healthy(self, session: aiohttp.ClientSession) -> bool:
        async with session.get(f"{self._etcd_url}/health") as answer:
            return answer.status == 200

    async def _apiserver_is_ready(self, session: aiohttp.ClientSession) -> bool:
        # `default` is made by the server itself, shortly after it calls itself ready.
        return await self._gets(session, "/readyz") and await self._gets(session, "/api/v1/namespaces/default")

    async def _controllers_work(self, session: aiohttp.ClientSession) -> bool:
        return await self._gets(session, "/api/v1/namespaces/default/serviceaccounts/default")

    async def _gets(self, session: aiohttp.ClientSession, path: str) -> bool:
        if not self._certificate.exists():
            return False
        trust = ssl.create_default_context(cafile=str(self._certificate))
        headers = {"Authorization": f"Bearer {self._settings.tokens[ADMIN]}"}
        async with session.get(self.url + path, headers=headers, ssl=trust) as answer:
            return answer.status == 200


async def _answers(ready: Probe, session: aiohttp.ClientSession) -> bool:
    try:
        return await ready(session)
    except (aiohttp.ClientError, ssl.SSLError, OSError):
        return False


def show(message: str) -> None:
    """Prints a line of progress for a person."""
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


async def _run(command: str, directory: Path, port: int) -> int:
    control_plane = ControlPlane(directory, tools(show), port)
    if command == "up":
        await control_plane.start(detach=True)
        print(f"export KUBECONFIG={control_plane.kubeconfig}")
    elif command == "down":
        await control_plane.stop()
    else:
        for name, pid in control_plane.status().items():
            print(f"{name}: {f'running, PID {pid}' if pid else 'not running'}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m e2e.world.controlplane", description=__doc__)
    parser.add_argument("command", choices=["build", "up", "down", "status"])
    parser.add_argument("--dir", type=Path, help="directory of the control plane")
    parser.add_argument("--port", type=int, default=0, help="port of the API server (default: a free one)")
    options = parser.parse_args(arguments)
    try:
        if options.command == "build":
            print(build(show))
            return 0
        if options.dir is None:
            parser.error("--dir is needed")
        return asyncio.run(_run(options.command, options.dir, options.port))
    except (BuildError, StartError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
