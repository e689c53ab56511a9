"""Builds `hasite-controlplane` from the Go module in this directory, once for each content of its files."""

import fcntl
import hashlib
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e.controlplane.toolchain import BuildError, Progress, cache_directory, find_go, required_version

SOURCE = Path(__file__).parent
PROGRAM = "hasite-controlplane"
KUBERNETES_VERSION = "v1.36.3"
PROGRESS_EVERY = 10.0
"""Seconds between two lines of progress."""

_VERSION_VARIABLES = (
    f"k8s.io/component-base/version.gitVersion={KUBERNETES_VERSION}",
    "k8s.io/component-base/version.gitMajor=1",
    f"k8s.io/component-base/version.gitMinor={KUBERNETES_VERSION.split('.')[1]}",
)
# -trimpath makes the build independent of where the module and the toolchain lie, so that Go's own cache is warm
# for every clone.
_BUILD_ARGUMENTS = (
    "-trimpath",
    "-buildvcs=false",
    "-ldflags",
    " ".join(["-s", "-w", *(f"-X {variable}" for variable in _VERSION_VARIABLES)]),
)


def built_program() -> Path:
    """Where the program for the present sources is or will be. The name of its directory is a hash of all that
    decides its content, but not of the toolchain: go.mod names the language version, and a cached program must be
    usable on a machine without Go."""
    digest = hashlib.sha256()
    for path in sorted([*SOURCE.glob("*.go"), SOURCE / "go.mod", SOURCE / "go.sum"]):
        digest.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    digest.update("\0".join(_BUILD_ARGUMENTS).encode())
    return cache_directory() / "controlplane" / digest.hexdigest()[:16] / PROGRAM


def build(progress: Progress) -> Path:
    """The path of the program; builds it when it is not in the cache (some 10 minutes on two cores when Go's cache
    is cold, seconds when it is warm). Safe to call from several processes: one builds, the others wait.

    Raises BuildError.
    """
    program = built_program()
    if program.exists():
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    with _lock(program.parent.parent / "lock", progress):
        if not program.exists():
            _build(program, find_go(required_version(SOURCE / "go.mod"), progress), progress)
    return program


@contextmanager
def _lock(path: Path, progress: Progress) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("another process is building the control plane: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(program: Path, go: Path, progress: Progress) -> None:
    started = time.monotonic()
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    total = _package_count(go, environment, progress)
    with tempfile.TemporaryDirectory(dir=program.parent) as directory:
        output = Path(directory) / PROGRAM
        command = [str(go), "build", "-v", *_BUILD_ARGUMENTS, "-o", str(output), "."]
        with subprocess.Popen(command, cwd=SOURCE, env=environment, stderr=subprocess.PIPE, text=True) as process:
            lines: list[str] = []
            with _reporting(lines, total, started, progress):
                assert process.stderr is not None
                lines.extend(process.stderr)
        if process.returncode != 0:
            raise BuildError("go build failed:\n" + "".join(lines[-30:]))
        link = program.with_name("kubectl")
        link.unlink(missing_ok=True)
        link.symlink_to(PROGRAM)
        output.replace(program)
    progress(f"control plane built in {time.monotonic() - started:.0f} s")


def _package_count(go: Path, environment: dict[str, str], progress: Progress) -> int:
    progress("downloading the Go modules of the control plane")
    command = [str(go), "list", "-deps", "."]
    result = subprocess.run(command, cwd=SOURCE, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise BuildError(f"go list failed: {result.stderr.strip()}")
    return len(result.stdout.splitlines())


@contextmanager
def _reporting(lines: list[str], total: int, started: float, progress: Progress) -> Iterator[None]:
    """Reports how far `lines`, one a package that `go build -v` compiled, has grown."""
    finished = threading.Event()

    def report() -> None:
        while not finished.wait(PROGRESS_EVERY):
            elapsed = int(time.monotonic() - started)
            progress(
                f"building the control plane: {elapsed // 60}:{elapsed % 60:02d}, "
                f"{len(lines)} packages compiled of {total} at most"
            )

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
