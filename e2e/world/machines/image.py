"""Base images of the local world's droplets: Debian root trees built by mmdebstrap, kept in a cache.

An image is a plain directory tree, never written to once it is built: every machine boots from an overlay over it.
"""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from e2e.world.machines.cache import built_once, cache_directory

Progress = Callable[[str], None]

ARCHIVE_ADDRESS = "203.0.113.80"
"""Where the machines find their package archive (see `archive.py`)."""

SUITES = {"debian-12-x64": "bookworm", "debian-13-x64": "trixie"}
"""The image slugs that can be built, and the Debian suite of each."""

PACKAGES = (
    "systemd", "systemd-sysv", "libpam-systemd", "dbus", "openssh-server", "cloud-init", "iproute2", "iputils-ping",
    "ca-certificates", "curl", "procps", "nftables", "netbase", "python3", "sudo", "gnupg", "less", "psmisc",
)  # fmt: skip

MASKED_UNITS = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
    "fstrim.timer", "getty-static.service", "getty@tty1.service", "console-getty.service", "systemd-firstboot.service",
    "systemd-pstore.service", "systemd-networkd-wait-online.service", "systemd-udevd.service",
    "systemd-udev-trigger.service", "systemd-udevd-control.socket", "systemd-udevd-kernel.socket",
    "systemd-resolved.service", "systemd-timesyncd.service", "systemd-networkd.service", "systemd-networkd.socket",
    "cloud-init-hotplugd.socket", "cloud-init-hotplugd.service", "systemd-journald-audit.socket",
)  # fmt: skip
"""Units that only cost time in a container, or would touch the network that the world has already set up."""

CLOUD_CONFIG = """\
# What a provider's image brings: root logs in by key, the network is already up, the only datasource is the seed.
datasource_list: [NoCloud]
network: {config: disabled}
disable_root: false
ssh_pwauth: false
ssh_deletekeys: true
ssh_genkeytypes: [ed25519, ecdsa]
preserve_hostname: false
manage_etc_hosts: true
locale: C.UTF-8
apt: {preserve_sources_list: true}
package_upgrade: false
"""

SSHD_CONFIG = """\
PermitRootLogin prohibit-password
PasswordAuthentication no
UseDNS no
"""

RESOLV_CONF = "nameserver 203.0.113.53\nnameserver 203.0.113.54\noptions timeout:2 attempts:1\n"


@dataclass(frozen=True)
class Recipe:
    """All that decides what is in an image; `key` names it in the cache, so that a changed recipe is a new image."""

    slug: str
    suite: str
    mirror: str = "http://deb.debian.org/debian"
    security: str = "http://deb.debian.org/debian-security"
    packages: tuple[str, ...] = PACKAGES
    masked: tuple[str, ...] = MASKED_UNITS
    files: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> str:
        """A short hash of the whole recipe."""
        return self.digest()

    def digest(self, *additions: str) -> str:
        """A short hash of the recipe and of what is added to it."""
        words = json.dumps([asdict(self), *additions], sort_keys=True)
        return hashlib.sha256(words.encode()).hexdigest()[:16]


def recipe(slug: str) -> Recipe:
    """The recipe of an image slug; KeyError if the local world has no such image."""
    files = {
        "etc/cloud/cloud.cfg.d/90_local_world.cfg": CLOUD_CONFIG,
        "etc/ssh/sshd_config.d/10-local-world.conf": SSHD_CONFIG,
        "etc/resolv.conf": RESOLV_CONF,
        "etc/apt/sources.list": f"deb [trusted=yes] http://{ARCHIVE_ADDRESS}/{slug}/ ./\n",
        "etc/apt/apt.conf.d/90local-world": 'Acquire::Languages "none";\nAcquire::http::Timeout "10";\n',
        "etc/systemd/journald.conf.d/local-world.conf": "[Journal]\nStorage=volatile\nRuntimeMaxUse=16M\n",
        "etc/locale.conf": "LANG=C.UTF-8\n",
        "etc/default/locale": "LANG=C.UTF-8\n",
    }
    return Recipe(slug=slug, suite=SUITES[slug], files=tuple(sorted(files.items())))


def ensure_image(slug: str = "debian-12-x64", progress: Progress = print) -> Path:
    """The root tree of an image, built first when the cache doesn't hold it (about a minute).

    Safe to call from several processes at once. Raises CalledProcessError when mmdebstrap fails, with its words in
    `stderr`; KeyError for an unknown slug.
    """
    wanted = recipe(slug)
    return built_once(
        cache_directory() / "image" / f"{slug}-{wanted.key}", lambda target: build(wanted, target, progress)
    )


def build(wanted: Recipe, target: Path, progress: Progress) -> None:
    """Build an image into `target`, an empty directory."""
    progress(f"image {wanted.slug}: mmdebstrap {wanted.suite} ({len(wanted.packages)} packages and what they need)")
    sources = "\n".join(f"deb {mirror} {suite} main" for mirror, suite in _archives(wanted))
    command = ["mmdebstrap", "--variant=minbase", "--mode=root", "--aptopt=Acquire::Retries \"3\"",
               f"--include={','.join(wanted.packages)}", wanted.suite, str(target), "-"]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stderr is not None
        process.stdin.write(sources)
        process.stdin.close()
        words = _follow(process.stderr, wanted.slug, progress)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, stderr=words)
    _customise(target, wanted)
    progress(f"image {wanted.slug}: built")


def _archives(wanted: Recipe) -> tuple[tuple[str, str], ...]:
    return (
        (wanted.mirror, wanted.suite),
        (wanted.mirror, f"{wanted.suite}-updates"),
        (wanted.security, f"{wanted.suite}-security"),
    )


def upstream_sources(wanted: Recipe) -> str:
    """The sources.list that the image itself was built from."""
    return "".join(f"deb {mirror} {suite} main\n" for mirror, suite in _archives(wanted))


def _follow(stream: object, slug: str, progress: Progress) -> str:
    """Pass mmdebstrap's stages on as progress; its last lines are returned for an error message."""
    lines: list[str] = []
    for raw in stream:  # type: ignore[attr-defined]
        line = str(raw).strip().rpartition("\r")[2]
        if line.startswith("I: "):
            progress(f"image {slug}: {line[3:]}")
        lines.append(line)
    return "\n".join(lines[-30:])


def _customise(root: Path, wanted: Recipe) -> None:
    for relative, content in wanted.files:
        path = root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(content)
    for unit in wanted.masked:
        mask = root / "etc/systemd/system" / unit
        mask.unlink(missing_ok=True)
        mask.symlink_to("/dev/null")
    for leftover in ("etc/ssh/ssh_host_*", "var/cache/apt/archives/*.deb", "var/cache/apt/*.bin", "var/log/apt/*"):
        for path in root.glob(leftover):
            path.unlink()
    shutil.rmtree(root / "var/lib/apt/lists", ignore_errors=True)
    (root / "var/lib/apt/lists/partial").mkdir(parents=True)
    (root / "etc/machine-id").write_text("")
    (root / "etc/hostname").unlink(missing_ok=True)
