"""The replacement of the host key that a machine was born with.

The bootstrap's key was in the user data, which every process on a droplet can read. So a new one is made on the
machine itself (``stage_host_key``), the caller records it as acceptable, and then it is made the only one
(``activate_host_key``, once cloud-init has ended). Both may be repeated after a crash at any point, and connections
that are open live on.
"""

import re
import shlex

from hasite.errors import Permanent
from hasite.machines.base import Result, Session
from hasite.machines.words import plain

KEY = "/etc/ssh/hasite_host_ed25519_key"
DROP_IN = "/etc/ssh/sshd_config.d/01-hasite.conf"

_PUBLIC_KEY = re.compile(r"ssh-ed25519 [A-Za-z0-9+/]{68}(?!\S)")

_SCRUB = r"""
import os, re
secret = re.compile(rb"(ed25519_private.{0,16}?-----BEGIN OPENSSH PRIVATE KEY-----)(.*?)(-----END)", re.DOTALL)
for top in ("/var/lib/cloud", "/run/cloud-init"):
    for folder, _, names in os.walk(os.environ["ROOT"] + top):
        for path in (os.path.join(folder, name) for name in names):
            if os.path.islink(path) or not os.path.isfile(path) or os.path.getsize(path) > 1 << 22:
                continue
            with open(path, "r+b") as file:
                before = file.read()
                after = secret.sub(lambda m: m[1] + re.sub(rb"[A-Za-z0-9+/=]", b"x", m[2]) + m[3], before)
                if after != before:
                    file.seek(0)
                    file.write(after)
                    file.flush()
                    os.fsync(file.fileno())
"""
"""Blanks the key in cloud-init's caches, in place and at the same length: ``obj.pkl`` stays a loadable pickle.

The files themselves stay, or cloud-init would take the machine for a new one at its next boot.
"""


async def stage_host_key(session: Session, root: str = "") -> str:
    """Makes a new host key beside the old one, unless it is there, and returns its public half without comment.

    ``root``: where the machine's file system begins. Raises ``Permanent`` (reason ``HostKeyFailed``).
    """
    key = shlex.quote(root + KEY)
    done = await session.run(
        f"set -e; umask 077; key={key}; "
        '[ -s "$key" ] || { rm -f -- "$key.new" "$key.new.pub"; ssh-keygen -q -t ed25519 -N "" -C "" -f "$key.new"; '
        'sync -- "$key.new"; mv -f -- "$key.new" "$key"; rm -f -- "$key.new.pub"; sync -- "$(dirname "$key")"; }; '
        'ssh-keygen -y -f "$key"'
    )
    shown = _PUBLIC_KEY.match(_checked("no new host key could be made", done).stdout)
    if shown is None:
        raise Permanent(f"no new host key could be made: {plain(done.stdout, 200)}", reason="HostKeyFailed")
    return shown[0]


async def activate_host_key(session: Session, root: str = "") -> None:
    """Makes the staged key sshd's only host key, removes the others, and blanks the bootstrap's in cloud-init's caches.

    A configuration that ``sshd -t`` refuses is taken back. Raises ``Permanent`` (reason ``HostKeyFailed``).
    """
    done = await session.run(activate_script(root), timeout=20.0)
    _checked("the new host key could not be put into use", done)


def activate_script(root: str) -> str:
    """The old keys go after sshd runs with the new one: a crash before that leaves a machine that can be reached."""
    return f"""set -e; export LC_ALL=C ROOT={shlex.quote(root)}; umask 022
key="$ROOT{KEY}"; drop="$ROOT{DROP_IN}"; main="$ROOT/etc/ssh/sshd_config"
[ -s "$key" ] || {{ echo "$key is not there" >&2; exit 1; }}
mkdir -p -- "$(dirname "$drop")"
printf 'HostKey %s\\n' "$key" >"$drop.new"
sync -- "$drop.new"; mv -f -- "$drop.new" "$drop"
grep -Eiq '^[[:space:]]*include[[:space:]].*sshd_config\\.d/' "$main" || {{
  {{ printf 'Include %s\\n' "$drop"; cat -- "$main"; }} >"$main.hasite-new"
  chmod --reference="$main" -- "$main.hasite-new"; sync -- "$main.hasite-new"; mv -f -- "$main.hasite-new" "$main"; }}
mkdir -p /run/sshd
sshd=$(command -v sshd || echo /usr/sbin/sshd)
"$sshd" -t -f "$main" >&2 || {{ rm -f -- "$drop"; exit 1; }}
"$sshd" -T -f "$main" 2>/dev/null | grep -Fqx "hostkey $key" || {{ echo "sshd does not take $key" >&2; exit 1; }}
systemctl reload ssh >&2
rm -f -- "$ROOT"/etc/ssh/ssh_host_*_key "$ROOT"/etc/ssh/ssh_host_*_key.pub
python3 -c {shlex.quote(_SCRUB)} >&2
"""


def _checked(what: str, done: Result) -> Result:
    if done.status != 0:
        words = plain(done.stderr.strip()[-500:]) or f"exit status {done.status}"
        raise Permanent(f"{what}: {words}", reason="HostKeyFailed")
    return done
