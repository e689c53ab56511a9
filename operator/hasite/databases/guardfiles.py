"""What must be on a member for the guard to run there. Pure: the bytes of files, the same for the same release.

Who delivers them: ``delivery``.
"""

import functools
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import hasite
from hasite.guard.engines import unit_file
from hasite.guard.engines.base import UNIT, Layout
from hasite.guard.model import Settings
from hasite.guard.wire import dump

PROGRAM = "/usr/lib/hasite/guard.pyz"
GUARD_UNIT = "hasite-guard.service"
FUSE_UNIT = "hasite-fuse.service"

CA, CERTIFICATE, KEY = (str(path) for path in (Layout().ca, Layout().certificate, Layout().key))
"""Where the certificates belong: the key is for root and the server's group alone."""

SETTINGS = str(Layout().settings)

_SYSTEMD = "/etc/systemd/system"
_MAIN = "import sys\n\nfrom hasite.guard.__main__ import main\n\nsys.exit(main())\n"

_GUARD = f"""[Unit]
Description=HASite's guard: who may take writes
# A shutdown ends it first, so that it can hand over and stop the server itself.
After=network.target {FUSE_UNIT} {UNIT}
Wants={FUSE_UNIT}
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart=/usr/bin/python3 -I {PROGRAM}
ExecReload=/bin/kill -HUP $MAINPID
Restart=always
RestartSec=0.2
WatchdogSec=30
TimeoutStopSec=20
OOMScoreAdjust=-900
CPUWeight=10000
IOWeight=10000
MemoryMin=40M
LimitNOFILE=65536
LimitRTPRIO=1
RuntimeDirectory=hasite
RuntimeDirectoryMode=0700
RuntimeDirectoryPreserve=yes

[Install]
WantedBy=multi-user.target
"""

_FUSE = f"""[Unit]
Description=HASite's fuse: stops the database server when its lease is over
StartLimitIntervalSec=0
# A shutdown ends the guard and the server first.
Before={GUARD_UNIT} {UNIT}

[Service]
Type=notify
ExecStart=/usr/bin/python3 -I -S {PROGRAM} fuse
Restart=always
RestartSec=0
WatchdogSec=3
WatchdogSignal=SIGKILL
OOMScoreAdjust=-1000
CPUWeight=10000
MemoryMin=16M
LimitRTPRIO=2
RuntimeDirectory=hasite
RuntimeDirectoryMode=0700
RuntimeDirectoryPreserve=yes

[Install]
WantedBy=multi-user.target
"""

_NEVER_ALONE = f"""[Unit]
# No database without a fuse, and as many starts as the guard asks for.
Wants={FUSE_UNIT}
After={FUSE_UNIT}
StartLimitIntervalSec=0
"""


@functools.cache
def archive() -> bytes:
    """The guard as one file that the distribution's Python runs. Not compressed, so that the fuse needs no zlib."""
    top = Path(hasite.__file__).parent
    sources = {"__main__.py": _MAIN.encode(), "hasite/__init__.py": (top / "__init__.py").read_bytes()}
    for path in (top / "guard").rglob("*.py"):
        sources[f"hasite/{path.relative_to(top).as_posix()}"] = path.read_bytes()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as target:
        for name in sorted(sources):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o100644 << 16
            target.writestr(entry, sources[name])
    return buffer.getvalue()


def guard_version() -> str:
    """As a running guard says it of itself."""
    return hashlib.sha256(archive()).hexdigest()[:12]


def program_files(engine: str, version: str) -> Mapping[str, bytes]:
    """By absolute path: the guard and its units. When one of them changes, the guard and the fuse are restarted."""
    return {
        PROGRAM: archive(),
        f"{_SYSTEMD}/{GUARD_UNIT}": _GUARD.encode(),
        f"{_SYSTEMD}/{FUSE_UNIT}": _FUSE.encode(),
        f"{_SYSTEMD}/{UNIT}": unit_file(engine, version).encode(),
        f"{_SYSTEMD}/{UNIT}.d/hasite.conf": _NEVER_ALONE.encode(),
    }


def settings_file(settings: Settings) -> bytes:
    """Of ``SETTINGS``. When it changes, the guard is reloaded."""
    return json.dumps(dump(settings), indent=1, sort_keys=True).encode() + b"\n"
