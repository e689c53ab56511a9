"""The package archive that the machines install from: a flat Debian repository in the cache, served inside the world.

Packages come once from Debian's own archive, with its signatures checked; after that the world needs no network.
"""

import functools
import gzip
import http.server
import shutil
import socket
import subprocess
import threading
from pathlib import Path
from urllib.parse import unquote

from e2e.world.machines.cache import built_once, cache_directory
from e2e.world.machines.image import Progress, ensure_image, recipe, upstream_sources
from e2e.world.network import Network, listen_in
from e2e.world.network.topology import SITES

PACKAGE_GROUPS: tuple[tuple[str, ...], ...] = (
    ("haproxy", "socat"),
    ("nginx-light",),
    ("nginx",),
    ("apache2",),
    ("rsync", "jq", "netcat-openbsd", "python3-aiohttp"),
    ("postgresql", "python3-psycopg2", "pgbackrest"),
    ("mariadb-server", "mariadb-backup", "python3-pymysql", "rclone", "zstd"),
    ("python3-django", "gunicorn", "python3-psycopg2"),
    ("faketime",),
)
"""Each group is resolved by itself against the image, so that groups may conflict with each other."""


def ensure_archive(
    slug: str = "debian-12-x64",
    groups: tuple[tuple[str, ...], ...] = PACKAGE_GROUPS,
    progress: Progress = print,
) -> Path:
    """The archive for an image, built first when the cache doesn't hold it. Errors as `ensure_image`."""
    image = ensure_image(slug, progress)
    key = recipe(slug).digest(repr(groups))
    target = cache_directory() / "archive" / f"{slug}-{key}"
    return built_once(target, lambda partial: build(slug, image, groups, partial, progress))


def build(slug: str, image: Path, groups: tuple[tuple[str, ...], ...], target: Path, progress: Progress) -> None:
    """Download what each group needs beyond the image into `target`, and index it."""
    scratch = target.with_name(f"{target.name}.root")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    _call("mount", "-t", "tmpfs", "hasite-archive", str(scratch))
    try:
        root = _overlay(image, scratch)
        (root / "etc/apt/sources.list").write_text(upstream_sources(recipe(slug)))
        (root / "etc/resolv.conf").write_text(Path("/etc/resolv.conf").read_text())
        progress(f"archive {slug}: reading Debian's package lists")
        _call("chroot", str(root), "apt-get", "-q", "update")
        for group in groups:
            progress(f"archive {slug}: downloading {', '.join(group)} and what they need")
            _call(
                "chroot",
                str(root),
                "apt-get",
                "-q",
                "-y",
                "--download-only",
                "--no-install-suggests",
                "install",
                *group,
            )
        for package in (root / "var/cache/apt/archives").glob("*.deb"):
            shutil.copy(package, target)
    finally:
        subprocess.run(["umount", "--recursive", str(scratch)], check=False)
        scratch.rmdir()
    _index(target)
    progress(f"archive {slug}: {len(list(target.glob('*.deb')))} packages")


def _overlay(image: Path, scratch: Path) -> Path:
    for name in ("upper", "work", "root"):
        (scratch / name).mkdir()
    options = f"lowerdir={image},upperdir={scratch}/upper,workdir={scratch}/work"
    _call("mount", "-t", "overlay", "-o", options, "hasite-archive", str(scratch / "root"))
    return scratch / "root"


def _index(target: Path) -> None:
    packages = _call("apt-ftparchive", "packages", ".", directory=target)
    (target / "Packages").write_text(packages)
    (target / "Packages.gz").write_bytes(gzip.compress(packages.encode()))
    (target / "Release").write_text(_call("apt-ftparchive", "release", ".", directory=target))


def _call(*argv: str, directory: Path | None = None) -> str:
    return subprocess.run(argv, check=True, cwd=directory, capture_output=True, text=True).stdout


class ArchiveServer:
    """Serves archives, one folder for each image slug, at the world's archive site. Runs in threads of this process."""

    def __init__(self, network: Network, archives: dict[str, Path]) -> None:
        self._listener = listen_in(network.namespace("archive"), SITES["archive"].ipv4, 80)
        self._listener.setblocking(True)
        self._server = _Server(self._listener, functools.partial(_Handler, archives=archives))
        self._thread = threading.Thread(target=self._server.serve_forever, name="package archive", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(http.server.ThreadingHTTPServer):
    def __init__(self, listener: socket.socket, handler: object) -> None:
        super().__init__(("", 0), handler, bind_and_activate=False)  # type: ignore[arg-type]
        self.socket.close()
        self.socket = listener


class _Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *args: object, archives: dict[str, Path]) -> None:
        self._archives = archives
        super().__init__(*args)  # type: ignore[arg-type]

    def translate_path(self, path: str) -> str:
        """The file for `/SLUG/FILE`; folders have no depth, so no path can leave them."""
        slug, _, name = unquote(path.partition("?")[0]).strip("/").partition("/")
        folder = self._archives.get(slug)
        return str(folder / Path(name).name) if folder else "/nonexistent"

    def list_directory(self, path: object) -> None:
        """No listings."""
        self.send_error(404)

    def log_message(self, *args: object) -> None:
        """No log: the machines' own apt says what it fetched."""
