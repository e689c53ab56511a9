"""What must survive between two starts of a control plane in one directory: its ports, tokens and signing key."""

import json
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Self

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Settings:
    """Ports of the servers on 127.0.0.1, and a bearer token for each user."""

    port: int
    etcd_port: int
    etcd_peer_port: int
    tokens: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path, port: int) -> Self:
        """The settings in a file, or new ones; `port` 0 leaves the API server's port as it was, or takes a free one."""
        if path.exists():
            found = cls(**json.loads(path.read_text()))
            return replace(found, port=port or found.port)
        free = free_ports(3)
        return cls(port or free[0], free[1], free[2])

    def save(self, path: Path) -> None:
        """Writes the file, readable by its owner only."""
        write_private(path, json.dumps(asdict(self), indent=2) + "\n")

    def with_tokens_for(self, users: Sequence[str]) -> Self:
        """Every user has a token; those who had one keep it."""
        missing = {user: secrets.token_urlsafe(24) for user in users if user not in self.tokens}
        return replace(self, tokens={**self.tokens, **missing})

    def with_free_etcd_ports(self) -> Self:
        """Another program may have taken the ports since the last run. The API server's own stays: kubeconfigs
        name it."""
        if can_bind(self.etcd_port) and can_bind(self.etcd_peer_port):
            return self
        etcd_port, etcd_peer_port = free_ports(2)
        return replace(self, etcd_port=etcd_port, etcd_peer_port=etcd_peer_port)


def can_bind(port: int) -> bool:
    """Whether a server could listen on that port of 127.0.0.1 now."""
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((HOST, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Different ports of 127.0.0.1 that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for candidate in sockets:
            candidate.bind((HOST, 0))
        return [candidate.getsockname()[1] for candidate in sockets]


def token_file(users: Mapping[str, Sequence[str]], tokens: Mapping[str, str]) -> str:
    """The content of kube-apiserver's --token-auth-file: token, user, UID, quoted groups."""
    return "".join(f'{tokens[user]},{user},{user},"{",".join(groups)}"\n' for user, groups in users.items())


def write_signing_key(path: Path) -> None:
    """Makes the key that signs service account tokens, unless there is one."""
    if path.exists():
        return
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    write_private(path, pem.decode())


def write_kubeconfig(path: Path, url: str, certificate_file: Path, user: str, token: str) -> None:
    """Writes a kubeconfig with one context. It names the certificate's file, which kube-apiserver makes at its first
    start, so that it can be written before."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "hasite",
        "contexts": [{"name": "hasite", "context": {"cluster": "hasite", "user": user}}],
        "clusters": [{"name": "hasite", "cluster": {"server": url, "certificate-authority": str(certificate_file)}}],
        "users": [{"name": user, "user": {"token": token}}],
    }
    write_private(path, yaml.safe_dump(content, sort_keys=False))


def write_private(path: Path, content: str) -> None:
    """Replaces a file in one step; only its owner can read it, at no moment anyone else."""
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
    aside.replace(path)
