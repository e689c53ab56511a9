"""An S3 server for tests: versitygw, which checks signatures and keeps each object as a file. Built once, by Go."""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hasite.databases.certificates import issue, new_authority

from e2e.controlplane.toolchain import find_go
from e2e.world.machines.cache import built_once, cache_directory

MODULE = "github.com/versity/versitygw/cmd/versitygw"
VERSION = "v1.8.0"
GO = (1, 25)

KEY, SECRET = "AKHASITETESTKEY", "a secret = with; hostile # characters"
REGION = "us-east-1"

Start = Callable[..., "subprocess.Popen[Any]"]
Progress = Callable[[str], None]


def program(progress: Progress = print) -> Path:
    """The server; built when the cache has none: a minute on two cores. Raises BuildError, CalledProcessError."""

    def build(folder: Path) -> None:
        progress(f"building {MODULE}@{VERSION}")
        go = find_go(GO, progress)
        environment = {**os.environ, "GOBIN": str(folder), "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}
        command = [str(go), "install", "-trimpath", "-ldflags=-s -w", f"{MODULE}@{VERSION}"]
        subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True)

    return built_once(cache_directory() / "objectstore" / VERSION, build) / "versitygw"


@dataclass
class ObjectStore:
    """One that runs. ``objects``: its buckets are folders there. ``ca``: whom its certificate is of."""

    endpoint: str
    objects: Path
    ca: str

    @property
    def credentials(self) -> dict[str, str]:
        """The keys of a Secret for backups."""
        return {"accessKeyId": KEY, "secretAccessKey": SECRET, "ca.crt": self.ca}


@contextmanager
def serving(
    folder: Path, address: str, port: int, bucket: str, start: Start = subprocess.Popen
) -> Iterator[ObjectStore]:
    """Over TLS, with one empty bucket, until the block ends. ``start``: as ``subprocess.Popen``, perhaps elsewhere."""
    authority = new_authority("authority of the objects", time.time())
    own = issue(authority, address, (address,), time.time())  # pgBackRest compares names only
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("cert.pem", own.certificate), ("key.pem", own.key)):
        (folder / name).write_bytes(content)
    objects = folder / "objects"
    (objects / bucket).mkdir(parents=True)
    with (folder / "server.log").open("wb") as log:
        environment = {**os.environ, "ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET}
        process = start(_command(folder, address, port), env=environment, stdout=log, stderr=log)
    try:
        _until_ready(process, folder / "server.log")
        yield ObjectStore(f"https://{address}:{port}", objects, authority.certificate.decode())
    finally:
        process.kill()
        process.wait()


def _command(folder: Path, address: str, port: int) -> Sequence[str]:
    command = [str(program()), "--port", f"{address}:{port}", "--region", REGION]
    command += ["--cert", str(folder / "cert.pem"), "--key", str(folder / "key.pem")]
    return [*command, "posix", str(folder / "objects")]


def _until_ready(process: "subprocess.Popen[Any]", log: Path) -> None:
    """It tells its address once it listens."""
    deadline = time.monotonic() + 20
    while b"https://" not in log.read_bytes():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the S3 server does not come up: {log.read_text(errors='replace')[-500:]}")
        time.sleep(0.05)


def free_port(address: str = "127.0.0.1") -> int:
    """Nobody listens there at this moment."""
    with socket.create_server((address, 0)) as server:
        port: int = server.getsockname()[1]
        return port
