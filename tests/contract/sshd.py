"""A real OpenSSH server on a loopback port, with keys and files of its own, for the tests of machines."""

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh
import pytest
from hasite.machines.base import Target

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Sshd:
    """The server's directory is laid out like a machine's root: ``etc/ssh`` holds its configuration."""

    root: Path
    port: int
    host_key: str
    client_key: str
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def config(self) -> Path:
        return self.root / "etc/ssh/sshd_config"

    def target(self, *host_keys: str, name: str = "machine") -> Target:
        return Target(name, "127.0.0.1", host_keys or (self.host_key,), self.port)

    def start(self) -> None:
        Path("/run/sshd").mkdir(exist_ok=True)
        self.process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(self.config)], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise TimeoutError("sshd does not listen")

    def stop(self) -> None:
        """The listener alone: what is connected lives on."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def children(self) -> list[int]:
        """The processes that serve one connection each."""
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in text.split()]


@contextmanager
def running_sshd(root: Path) -> Iterator[Sshd]:
    if not Path(SSHD).exists():
        pytest.skip("openssh-server is not installed")
    ssh = root / "etc/ssh"
    (ssh / "sshd_config.d").mkdir(parents=True)
    server = Sshd(root, free_port(), _new_key(ssh / "ssh_host_ed25519_key"), "")
    server.client_key = _client_key(root / "authorized_keys")
    server.config.write_text(
        f"Include {ssh}/sshd_config.d/*.conf\n"
        f"HostKey {ssh}/ssh_host_ed25519_key\n"
        f"Port {server.port}\nListenAddress 127.0.0.1\nPidFile {root}/sshd.pid\n"
        f"AuthorizedKeysFile {root}/authorized_keys\nPermitRootLogin prohibit-password\n"
        "PasswordAuthentication no\nUsePAM no\nStrictModes no\n"
        # bash reads root's own .bashrc for sshd, unless it believes to have been started by another shell.
        "SetEnv SHLVL=1\n"
    )
    server.start()
    try:
        yield server
    finally:
        connections = server.children() if server.process else []
        server.stop()
        for pid in connections:
            subprocess.run(["kill", str(pid)], stderr=subprocess.DEVNULL, check=False)


def _new_key(path: Path) -> str:
    key = asyncssh.generate_private_key("ssh-ed25519")
    path.write_bytes(key.export_private_key("openssh"))
    path.chmod(0o600)
    return " ".join(key.export_public_key("openssh").decode().split()[:2])


def _client_key(authorized: Path) -> str:
    key = asyncssh.generate_private_key("ssh-ed25519")
    authorized.write_bytes(key.export_public_key("openssh"))
    return key.export_private_key("openssh").decode()


async def until(condition: object, seconds: float = 10.0) -> None:
    """Waits until a callable says True."""
    assert callable(condition)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        if loop.time() > deadline:
            raise TimeoutError("the condition did not become true")
        await asyncio.sleep(0.02)
