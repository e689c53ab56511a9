"""The proxy on an app server that leads to the database's primary and replicas, as a HAProxy configuration.

Which member is which, the members' guards say: a member whose guard does not answer gets no connection, and loses those
that it has. So a client of a fenced or lost primary is told at once, and not when its own time-out ends.
"""

import posixpath
import shlex
from dataclasses import dataclass, replace

from hasite.errors import Permanent
from hasite.machines.base import Session
from hasite.machines.words import plain
from hasite.plan.connection import AUTHORITY_PATH, ENVIRONMENT_PATH, Environment
from hasite.plan.proxies import DatabaseProxyModel
from hasite.plan.world import ProxyView
from hasite.proxies import haproxy_words as word
from hasite.proxies.base import Delivered, Rejected
from hasite.proxies.haproxy import HaproxyProxy
from hasite.proxies.haproxy_render import DEBIAN, Layout, assemble, global_section

HARD_STOP_SECONDS = 60.0
"""Connections from before a reload may last so long; the members are the same in both, so most need not be cut."""

HOST = "127.0.0.1"

NO_REPLICA = "    use_backend primary if { nbsrv(replicas) eq 0 }"
"""Reads go on when only one member is left."""


ENVIRONMENT_MARK = "environment "
"""In a comment of the configuration, before the hash of the files beside it: so a look at the machine alone can tell
whether they are what they were when it was rendered."""


@dataclass(frozen=True)
class Files:
    """Where the files beside the configuration are, in one folder."""

    environment: str = ENVIRONMENT_PATH
    authority: str = AUTHORITY_PATH


class HaproxyDatabaseProxy:
    """HAProxy as a ``DatabaseProxy``."""

    packages: tuple[str, ...] = HaproxyProxy.packages

    def __init__(self, layout: Layout = DEBIAN, files: Files = Files()) -> None:
        self._haproxy = HaproxyProxy(layout)
        self._layout = layout
        self._files = files

    def render(self, model: DatabaseProxyModel) -> bytes:
        """Deterministic. Raises ``Permanent`` (reason ``UnsafeValue``)."""
        return render_database(model, self._layout)

    async def observe(self, session: Session) -> ProxyView:
        """Three round trips. ``config_sha256`` is None also when a file beside the configuration differs."""
        view = await self._haproxy.observe(session)
        if view.config_sha256 is None:
            return view
        done = await session.run(files_script(self._layout, self._files))
        return view if done.stdout.strip() == "right" else replace(view, config_sha256=None)

    async def health(self, session: Session, last: ProxyView) -> ProxyView:
        """See ``HaproxyProxy``."""
        return await self._haproxy.health(session, last)

    async def deliver(self, session: Session, config: bytes, term: tuple[str, int] = ("", 0)) -> Delivered | Rejected:
        """See ``HaproxyProxy``."""
        return await self._haproxy.deliver(session, config, term)

    async def equip(self, session: Session, environment: Environment) -> None:
        """One round trip. Raises ``Permanent`` (reason ``DeliveryFailed``)."""
        script = equip_script(self._files, len(environment.file), len(environment.authority))
        done = await session.run(script, stdin=environment.file + environment.authority)
        if done.status != 0:
            words = plain(done.stderr) or f"exit status {done.status}"
            raise Permanent(f"the environment file could not be written: {words}", reason="DeliveryFailed")


def files_script(layout: Layout, files: Files) -> str:
    """Prints ``right`` when both files are what the configuration says, with the rights that they should have."""
    config, environment, authority = map(shlex.quote, (layout.config, files.environment, files.authority))
    return f"""exec 2>/dev/null; export LC_ALL=C
wanted=$(sed -n 's/^ *# {ENVIRONMENT_MARK}\\([0-9a-f]*\\)$/\\1/p' {config})
[ "$(stat -c '%a %u' {environment} {authority} | tr '\\n' ' ')" = "600 0 644 0 " ] &&
[ "$(cat -- {environment} {authority} | sha256sum | cut -c1-64)" = "$wanted" ] && echo right
exit 0
"""


def equip_script(files: Files, environment_size: int, authority_size: int) -> str:
    """Takes the environment file and then the certificate on stdin. Each is whole at any moment; the certificate is
    there first, for whoever waits for the environment file may need it at once."""
    folder, environment, authority = map(
        shlex.quote, (posixpath.dirname(files.environment), files.environment, files.authority)
    )
    return f"""set -e; export LC_ALL=C; umask 077; environment={environment}; authority={authority}
mkdir -p -- {folder}; chmod 755 {folder}
trap 'rm -f -- "$environment.new" "$authority.new"' EXIT
head -c {environment_size} >"$environment.new"; cat >"$authority.new"
[ "$(wc -c <"$environment.new") $(wc -c <"$authority.new")" = "{environment_size} {authority_size}" ] || {{
  echo "the transfer broke off" >&2; exit 1; }}
chmod 644 "$authority.new"
sync -- "$environment.new" "$authority.new"
mv -fT -- "$authority.new" "$authority"; mv -fT -- "$environment.new" "$environment"
sync -- {folder}
"""


def render_database(model: DatabaseProxyModel, layout: Layout = DEBIAN) -> bytes:
    """The whole configuration. Raises ``Permanent`` for a value that cannot be written safely."""
    word.distinct("member", [member.name for member in model.members])
    where = f"app server {word.name('name', model.name)} at {word.name('location', model.location)}"
    sections = (
        _defaults(),
        _frontend("to-primary", model.port, ["    default_backend primary"]),
        _frontend("to-replicas", model.port + 1, [NO_REPLICA, "    default_backend replicas"]),
        _backend("primary", model, "/primary", ""),
        _backend("replicas", model, "/replica", "replica-"),
    )
    head = [
        *global_section(layout, HARD_STOP_SECONDS),
        f"    # {ENVIRONMENT_MARK}{word.digest('environment', model.environment_sha256)}",
    ]
    return assemble(f"The way to the database from {where}.", head, sections)


def _defaults() -> list[str]:
    """An idle connection of a pool may live for hours; what is dead, ``tcp-ut``, keepalives and the checks find. The
    first two also in an old process after a reload, which checks nothing any more."""
    return [
        "defaults",
        "    mode tcp",
        "    log global",
        "    option dontlognull",
        "    option clitcpka",
        "    option srvtcpka",
        "    srvtcpka-idle 2s",
        "    srvtcpka-intvl 1s",
        "    srvtcpka-cnt 3",
        "    option redispatch 1",
        "    retries 2",
        "    timeout connect 1s",
        "    timeout client 24h",
        "    timeout server 24h",
        "    timeout queue 5s",
        "    load-server-state-from-file global",
    ]


def _frontend(name: str, port: int, leads: list[str]) -> list[str]:
    return [f"frontend {name}", f"    bind {HOST}:{word.port(port)}", *leads]


def _backend(name: str, model: DatabaseProxyModel, path: str, prefix: str) -> list[str]:
    """Down after two failed checks, up after one good one: two members never say ``/primary`` at one time.

    ``prefix``: a server's name is what its state is carried over a reload by, so no two backends share one. Backups
    get connections only while no other is up, and lose them when one is again.
    """
    backups = any(member.backup for member in model.members)
    return [
        f"backend {name}",
        "    balance leastconn",
        "    option httpchk",
        f"    http-check send meth GET uri {word.path(path)} ver HTTP/1.1 hdr Host guard hdr User-Agent hasite",
        "    http-check expect status 200",
        "    timeout check 800ms",
        f"    default-server check port {word.port(model.health_port)} inter 500ms fastinter 200ms downinter 200ms",
        "    default-server rise 1 fall 2 on-marked-down shutdown-sessions tcp-ut 3s",
        *(
            f"    server {prefix}{word.name('member', member.name)} "
            f"{word.socket_address(word.address('member', member.address), word.port(model.port))}"
            + (" backup" if member.backup else " on-marked-up shutdown-backup-sessions" if backups else "")
            for member in sorted(model.members, key=lambda member: member.name)
        ),
    ]
