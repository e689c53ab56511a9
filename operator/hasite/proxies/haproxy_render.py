"""The proxy model as a HAProxy configuration, for HAProxy 2.6 (Debian 12) to 3.0 (Debian 13).

Pure and deterministic. Nothing is quoted here because nothing that would need it may pass: every value is held to a
strict pattern first, and what does not match is refused with ``Permanent`` (reason ``UnsafeValue``).
"""

import hashlib
import ipaddress
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from hasite.errors import Permanent
from hasite.plan.proxies import ALIVE_PATH, Check, ProxyModel, Upstream

APP, CANDIDATES, PEERS = "app", "candidates", "peers"
"""Backends: the one that gets requests, and the two that are only checked."""

MARK = "hasite-"
"""What the ``description`` of a configuration of ours begins with; the rest is a hash of everything else in it."""

PEER_FALL = PEER_RISE = 2
MAX_UPSTREAMS = 500
MAX_SECONDS = 3600.0

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_DOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_PATH = re.compile(r"/[A-Za-z0-9._~!&*+,=:@%/?-]{0,1023}")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Layout:
    """Where things are on a machine. The defaults are Debian's."""

    config: str = "/etc/haproxy/haproxy.cfg"
    socket: str = "/run/haproxy/admin.sock"
    states: str = "/run/hasite/haproxy-states"
    """Gone after a boot: what was before says nothing, and HAProxy then holds servers to be up until checked."""
    bind_host: str = "::"
    port: int = 80
    user: str = "haproxy"
    chroot: str = "/var/lib/haproxy"


DEBIAN = Layout()


def render(model: ProxyModel, layout: Layout = DEBIAN) -> bytes:
    """The whole configuration. Raises ``Permanent`` for a value that cannot be written safely."""
    if len(model.upstreams) > MAX_UPSTREAMS:
        raise Permanent(f"{len(model.upstreams)} servers, at most {MAX_UPSTREAMS} are possible", reason="UnsafeValue")
    _distinct("server name", [upstream.name for upstream in model.upstreams])
    _distinct("peer", [str(_address("peer", peer)) for peer in model.peers])
    sections = (_defaults(), _frontend(layout), _app(model), _candidates(model), _peers(model, layout))
    body = "\n\n".join("\n".join(section) for section in sections)
    head = _global(model, layout)
    mark = hashlib.sha256("\n".join([*head, body]).encode()).hexdigest()[:32]
    lines = [
        "# Written by HASite, which puts back what is changed here by hand.",
        f"# Load balancer {_name('name', model.name)} at {_name('location', model.location)}.",
        "global",
        f"    description {MARK}{mark}",
        *head,
        "",
        body,
        "",
    ]
    return "\n".join(lines).encode()


def mark_of(config: bytes) -> str | None:
    """The mark in a configuration's ``description``, or None when it is not one of ours."""
    found = re.search(rb"(?m)^\s*description (hasite-[0-9a-f]{32})$", config)
    return found.group(1).decode() if found else None


def _global(model: ProxyModel, layout: Layout) -> list[str]:
    """1 GB of memory holds 8,000 connections with both their buffers (33 KB each) with room to spare."""
    hard_stop = _milliseconds("drain time", model.drain_seconds + 5)
    return [
        "    master-worker",
        "    maxconn 8000",
        "    log /dev/log local0 notice",
        f"    chroot {layout.chroot}",
        f"    user {layout.user}",
        f"    group {layout.user}",
        f"    stats socket {layout.socket} mode 600 level admin expose-fd listeners",
        "    stats timeout 30s",
        f"    hard-stop-after {hard_stop}",
        "    max-spread-checks 500ms",
        f"    server-state-file {layout.states}",
    ]


def _defaults() -> list[str]:
    """A request whose connection failed goes to another server; one that was sent, only if it is GET or HEAD.

    The frontend's ``disable-l7-retry`` sees to the second half. ``tcp-ut`` on the servers makes a reused connection
    into a dead datacentre fail after seconds instead of after ``timeout server``.
    """
    return [
        "defaults",
        "    mode http",
        "    log global",
        "    option dontlognull",
        "    option redispatch 1",
        "    option idle-close-on-response",
        "    retries 3",
        "    retry-on conn-failure empty-response",
        "    timeout connect 1s",
        "    timeout client 30s",
        "    timeout server 30s",
        "    timeout queue 5s",
        "    timeout http-request 10s",
        "    timeout http-keep-alive 10s",
        "    load-server-state-from-file global",
    ]


def _frontend(layout: Layout) -> list[str]:
    """``::`` with ``v4v6`` takes both families on one socket."""
    both = " v4v6" if layout.bind_host == "::" else ""
    return [
        "frontend web",
        f"    bind {layout.bind_host}:{layout.port}{both}",
        f"    acl is_alive_path path {ALIVE_PATH}",
        f"    acl can_serve nbsrv({APP}) gt 0",
        '    http-request return status 200 content-type text/plain string "alive\\n" if is_alive_path can_serve',
        '    http-request return status 503 content-type text/plain string "no server is up\\n" if is_alive_path',
        "    http-request disable-l7-retry unless METH_GET",
        "    http-request set-header X-Forwarded-Proto http",
        "    option forwardfor",
        f"    default_backend {APP}",
    ]


def _app(model: ProxyModel) -> list[str]:
    serving = [upstream for upstream in model.upstreams if upstream.state != "Candidate"]
    return [
        f"backend {APP}",
        "    balance roundrobin",
        *(["    option allbackups"] if any(upstream.backup for upstream in serving) else []),
        *_check(model.check, _domain(model.domain)),
        f"    default-server {_check_options(model.check)} tcp-ut 3s",
        "    default-server observe layer4 error-limit 3 on-error sudden-death",
        *_servers(serving, model.port),
    ]


def _candidates(model: ProxyModel) -> list[str]:
    """Nothing leads here: the servers are only checked."""
    return [
        f"backend {CANDIDATES}",
        *_check(model.check, _domain(model.domain)),
        f"    default-server {_check_options(model.check)}",
        *_servers((upstream for upstream in model.upstreams if upstream.state == "Candidate"), model.port),
    ]


def _peers(model: ProxyModel, layout: Layout) -> list[str]:
    """Nothing leads here: the load balancers of the other locations are only checked."""
    probe = Check(ALIVE_PATH, model.probe_interval, model.probe_timeout, PEER_RISE, PEER_FALL)
    peers = sorted((_address("peer", peer) for peer in model.peers), key=lambda peer: (peer.version, int(peer)))
    return [
        f"backend {PEERS}",
        f"    timeout connect {_milliseconds('probe timeout', model.probe_timeout)}",
        *_check(probe, _domain(model.domain), "200"),
        f"    default-server {_check_options(probe)}",
        *(f"    server {_peer_name(peer)} {_socket_address(peer, layout.port)}" for peer in peers),
    ]


def _check(check: Check, domain: str, expected: str = "200-399") -> list[str]:
    return [
        "    option httpchk",
        f"    http-check send meth GET uri {_path(check.path)} ver HTTP/1.1 hdr Host {domain} hdr User-Agent hasite",
        f"    http-check expect status {expected}",
        f"    timeout check {_milliseconds('check timeout', check.timeout)}",
    ]


def _check_options(check: Check) -> str:
    interval = _milliseconds("check interval", check.interval)
    fast = _milliseconds("check interval", min(check.interval, 0.25))
    down = _milliseconds("check interval", min(check.interval, 0.5))
    counts = f"rise {_count('rise', check.rise)} fall {_count('fall', check.fall)}"
    return f"check inter {interval} fastinter {fast} downinter {down} {counts}"


def _servers(upstreams: Iterable[Upstream], port: int) -> list[str]:
    return [_server(upstream, port) for upstream in sorted(upstreams, key=lambda upstream: upstream.name)]


def _server(upstream: Upstream, port: int) -> str:
    address = _socket_address(_address("server", upstream.address), _port(port))
    weight = " weight 0" if upstream.state == "Draining" else ""
    backup = " backup" if upstream.backup else ""
    return f"    server {_name('server name', upstream.name)} {address}{weight}{backup}"


def _peer_name(address: Address) -> str:
    return "peer-" + re.sub(r"[.:]", "-", address.exploded)


def _socket_address(address: Address, port: int) -> str:
    return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"


def _address(what: str, value: str) -> Address:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        raise _unsafe(f"{what} address", value) from None
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise _unsafe(f"{what} address", value)
    return address


def _name(what: str, value: str) -> str:
    return _matching(what, value, _NAME)


def _domain(value: str) -> str:
    return _matching("domain", value, _DOMAIN)


def _path(value: str) -> str:
    """A path that HAProxy reads as one literal word: no blank, quote, backslash, dollar, hash or control character."""
    return _matching("check path", value, _PATH)


def _matching(what: str, value: str, pattern: re.Pattern[str]) -> str:
    if not pattern.fullmatch(value):
        raise _unsafe(what, value)
    return value


def _milliseconds(what: str, seconds: float) -> str:
    if not (math.isfinite(seconds) and 0.001 <= seconds <= MAX_SECONDS):
        raise _unsafe(f"{what} (seconds)", seconds)
    return f"{round(seconds * 1000)}ms"


def _port(value: int) -> int:
    if isinstance(value, bool) or not 1 <= value <= 65535:
        raise _unsafe("port", value)
    return value


def _count(what: str, value: int) -> int:
    if isinstance(value, bool) or not 1 <= value <= 100:
        raise _unsafe(what, value)
    return value


def _distinct(what: str, values: list[str]) -> None:
    for value in sorted(value for value, count in Counter(values).items() if count > 1):
        raise Permanent(f"the {what} {value[:100]!r} occurs twice", reason="UnsafeValue")


def _unsafe(what: str, value: object) -> Permanent:
    shown = repr(value)
    return Permanent(
        f"the {what} {shown if len(shown) <= 100 else shown[:97] + '...'} cannot be written into a configuration",
        reason="UnsafeValue",
    )
