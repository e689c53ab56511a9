"""The operator's container image, made from the Dockerfile by buildah and run as a pod would run it.

Nothing is pulled from a registry. The base is a Debian with the same Python, under the name that the Dockerfile asks
for. The libraries come from the package index that pip is configured for on this machine.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.controlplane.toolchain import Progress
from e2e.world.machines.cache import built_once, cache_directory
from e2e.world.machines.image import Recipe
from e2e.world.machines.image import build as build_tree

ROOT = Path(__file__).resolve().parent.parent
BASE = Recipe(
    slug="python-3.13-slim",
    suite="trixie",
    packages=("python3", "python3-venv", "python3-pip", "ca-certificates", "netbase", "tzdata"),
    masked=(),
)
"""What stands in for the official image of that name: the same Python, pip and venv, on the same Debian."""

AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
"""Mounted into the build with pip's configuration: the machine may trust an index that others don't."""

_BUILDAH_STATE = Path("/var/lib/containers")
_POD = r"""
set -e
mount --make-rprivate /
mount --bind "$TREE" "$TREE"
mount -o remount,bind,ro "$TREE"
mount -t proc proc "$TREE/proc"
mount --bind /dev "$TREE/dev"
mount -t tmpfs -o mode=1777 tmpfs "$TREE/tmp"
mount -t tmpfs tmpfs "$TREE/run"
mkdir -p "$TREE/run/secrets/kubernetes.io"
cp -r "$ACCOUNT" "$TREE/run/secrets/kubernetes.io/serviceaccount"
chmod -R a+rX "$TREE/run/secrets"
mount -o remount,ro "$TREE/run"
exec setpriv --no-new-privs chroot --userspec="$AS" "$TREE" env -i "$@"
"""


@dataclass(frozen=True)
class Image:
    """A built image: its file tree, and what it says about how it is run.

    `source` is the copy of the work tree that it was built from; `user` is "UID:GID".
    """

    source: Path
    tree: Path
    user: str
    environment: tuple[str, ...]
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]

    def pod(self, argv: Sequence[str], environment: Mapping[str, str], account: Path) -> list[str]:
        """A command line that runs `argv` in it, in the network of this machine.

        As the pod's security context demands: a root that can't be written, the image's user, no new privileges;
        /tmp is empty. `account` is a directory with a service account's token, ca.crt and namespace.
        """
        assert re.fullmatch(r"\d+:\d+", self.user), f"the image's user is {self.user!r}: a pod must not run as root"
        settings = [f"TREE={self.tree}", f"ACCOUNT={account}", f"AS={self.user}"]
        inside = [*self.environment, *(f"{name}={value}" for name, value in environment.items()), *argv]
        return ["env", *settings, "unshare", "--mount", "sh", "-c", _POD, "pod", *inside]


@contextmanager
def built_image(progress: Progress) -> Iterator[Image]:
    """The image of this work tree, half a minute once its base is in the cache. Nothing of it stays afterwards.

    Needs root. Raises CalledProcessError when buildah fails.
    """
    new_here = not _BUILDAH_STATE.exists()
    with tempfile.TemporaryDirectory(prefix="hasite-image-", ignore_cleanup_errors=True) as directory:
        try:
            yield _built(_Buildah(Path(directory)), progress)
        finally:
            if new_here:
                shutil.rmtree(_BUILDAH_STATE, ignore_errors=True)


def _base_tree(progress: Progress) -> Path:
    def build(target: Path) -> None:
        build_tree(BASE, target, progress)
        for python in ("python", "python3"):
            (target / "usr/local/bin" / python).symlink_to("/usr/bin/python3")
        for mark in target.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
            mark.unlink()

    return built_once(cache_directory() / "image-base" / f"{BASE.slug}-{BASE.key}", build)


class _Buildah:
    """buildah with all that it keeps in one directory, no registry, and no daemon."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "registries.conf").touch()
        (directory / "tmp").mkdir()

    def __call__(self, *arguments: str) -> str:
        storage = ["--root", f"{self.directory}/root", "--runroot", f"{self.directory}/run", "--storage-driver", "vfs"]
        environment = {
            **os.environ,
            "TMPDIR": str(self.directory / "tmp"),
            "CONTAINERS_REGISTRIES_CONF": str(self.directory / "registries.conf"),
        }
        run = subprocess.run(
            ["buildah", *storage, *arguments], capture_output=True, text=True, check=False, env=environment
        )
        if run.returncode:
            print(run.stdout, run.stderr, file=sys.stderr)
            run.check_returncode()
        return run.stdout.strip()


def _built(buildah: _Buildah, progress: Progress) -> Image:
    tree = _base_tree(progress)
    progress("image: base")
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, str(tree), "/")
    buildah("config", "--env", "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", container)
    buildah("commit", "--quiet", "--rm", container, "docker.io/library/python:3.13-slim")
    progress("image: the Dockerfile")
    configuration = buildah.directory / "pip.conf"
    configuration.write_text(_pip_configuration())
    mounts = [f"--volume={configuration}:/etc/pip.conf:ro"]
    if AUTHORITIES.exists():
        mounts.append(f"--volume={AUTHORITIES}:{AUTHORITIES}:ro")
    source = buildah.directory / "source"
    shutil.copytree(ROOT, source, ignore=_hidden)
    buildah("build", "--pull-never", "--isolation=chroot", "--layers=false", *mounts, "--tag=operator", str(source))
    container = buildah("from", "--pull-never", "localhost/operator")
    about = json.loads(buildah("inspect", "--type", "image", "localhost/operator"))["OCIv1"]["config"]
    return Image(
        source=source,
        tree=Path(buildah("mount", container)),
        user=about.get("User", ""),
        environment=tuple(about["Env"]),
        entrypoint=tuple(about["Entrypoint"]),
        command=tuple(about["Cmd"]),
    )


def _hidden(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(".") and name != ".dockerignore"]


def _pip_configuration() -> str:
    """The machine's, from files and environment, as one file."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    settings: dict[str, str] = {}
    for line in sorted(listed.splitlines(), key=lambda text: text.startswith(":env:")):
        name, _, value = line.partition("=")
        settings[name.rpartition(".")[2]] = str(ast.literal_eval(value)).strip().replace("\n", "\n\t")
    return "[global]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items() if name != "find-links")
