"""Brings the guard to a member and looks at what is there: files and systemd units, over SSH.

Everything is written aside first; one script then puts it into place, so that a connection that breaks leaves either
what was there before or, until the next delivery, files that are newer than the mark says.
"""

import hashlib
import io
import json
import shlex
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field

from hasite.errors import Permanent, Transient
from hasite.machines.base import Session
from hasite.machines.words import plain
from hasite.plan.databaseworld import Version
from hasite.plan.world import GuardView

ASIDE = "/var/lib/hasite/delivery"
MARK = "/etc/hasite/delivered"
CERTIFICATE = "/etc/hasite/tls/cert.pem"

_RUNNING = {"active", "activating", "reloading"}
"""systemd's words for a unit that needs nobody to start it."""

_LOOK = f"""export LC_ALL=C
cat {MARK} 2>/dev/null || echo '{{}}'
systemctl is-active hasite-guard.service hasite-fuse.service 2>/dev/null | tr '\\n' ' '; echo
systemctl is-enabled hasite-guard.service hasite-fuse.service 2>/dev/null | tr '\\n' ' '; echo
"""


@dataclass(frozen=True)
class File:
    """``secret``: only root and the server's own group may read it."""

    content: bytes = field(repr=False)
    secret: bool = False
    mode: int = 0o644


@dataclass(frozen=True)
class Parcel:
    """What one member gets, by absolute path. ``group``: of the server's user, who reads the certificate's key."""

    files: Mapping[str, File]
    version: Version
    group: str


async def observe_guard(session: Session) -> GuardView:
    """One round trip. Raises Transient."""
    done = await session.run(_LOOK)
    lines = done.stdout.splitlines()
    if len(lines) < 3:
        raise Transient(f"the guard cannot be looked at: {plain(done.stderr, 200)}")
    mark = _parsed(lines[0])
    active, enabled = (set(line.split()) for line in lines[1:3])
    return GuardView(
        program=mark.get("program", ""),
        settings=mark.get("settings", ""),
        active=bool(active) and active <= _RUNNING,
        enabled=enabled == {"enabled"},
    )


async def deliver(session: Session, parcel: Parcel, *, restart: bool) -> None:
    """Idempotent. Raises Transient or Permanent (reason ``DeliveryFailed``)."""
    await _run(session, f"rm -rf {ASIDE}; mkdir -p -m 700 {ASIDE} && tar -xm -C {ASIDE}", stdin=_packed(parcel))
    await _run(session, install_script(parcel, restart), limit=60.0)


def install_script(parcel: Parcel, restart: bool) -> str:
    """The mark comes last: what is half done is done again."""
    lines = ["set -e; umask 022; export LC_ALL=C", f"getent group {parcel.group} >/dev/null"]
    for number, (path, file) in enumerate(sorted(parcel.files.items())):
        aside, folder = f"{ASIDE}/{number}", path.rsplit("/", 1)[0]
        group, mode = (parcel.group, 0o640) if file.secret else ("root", file.mode)
        lines += [
            f"mkdir -p {shlex.quote(folder)}",
            f"chown root:{group} {aside}; chmod {mode:o} {aside}; mv -f {aside} {shlex.quote(path)}",
        ]
    mark = json.dumps({"program": parcel.version.program, "settings": parcel.version.settings})
    then = "restart hasite-fuse.service hasite-guard.service" if restart else "reload hasite-guard.service"
    lines += [
        f"sync -f {MARK.rsplit('/', 1)[0]}",
        "systemctl daemon-reload",
        "systemctl -q enable hasite-fuse.service hasite-guard.service",
        f"systemctl {then}",
        f"printf '%s\\n' {shlex.quote(mark)} >{MARK}.new; sync {MARK}.new; mv -f {MARK}.new {MARK}",
        f"rm -rf {ASIDE}",
    ]
    return "\n".join(lines)


def digest(*parts: bytes) -> str:
    """A short name for contents."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "big") + part)
    return sha.hexdigest()[:16]


def _parsed(line: str) -> dict[str, str]:
    """{} for a mark that is damaged: then all is delivered anew."""
    try:
        mark = json.loads(line)
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in mark.items()} if isinstance(mark, dict) else {}


def _packed(parcel: Parcel) -> bytes:
    """A tar archive in which each file is called by its number."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number, (_, file) in enumerate(sorted(parcel.files.items())):
            entry = tarfile.TarInfo(str(number))
            entry.size, entry.mode = len(file.content), 0o600
            archive.addfile(entry, io.BytesIO(file.content))
    return buffer.getvalue()


async def _run(session: Session, script: str, *, stdin: bytes = b"", limit: float = 20.0) -> None:
    done = await session.run(script, stdin=stdin, timeout=limit)
    if done.status != 0:
        words = plain(done.stderr.strip()[-500:]) or f"exit status {done.status}"
        raise Permanent(f"the guard could not be delivered: {words}", "DeliveryFailed")
