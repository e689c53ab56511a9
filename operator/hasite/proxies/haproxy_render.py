"""The proxy model as a HAProxy configuration, for HAProxy 2.6 (Debian 12) to 3.0 (Debian 13).

Pure and deterministic. Every value goes through ``haproxy_words``.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hasite.errors import Permanent
from hasite.plan.proxies import ALIVE_PATH, Check, ProxyModel, Upstream
from hasite.proxies import haproxy_words as word

APP, CANDIDATES, PEERS = "app", "candidates", "peers"
"""Backends: the one that gets requests, and the two that are only checked."""

MARK = "hasite-"
"""What the ``description`` of a configuration of ours begins with; the rest is a hash of everything else in it."""

PEER_FALL = PEER_RISE = 2
MAX_UPSTREAMS = 500


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
    word.distinct("server name", [upstream.name for upstream in model.upstreams])
    word.distinct("peer", [str(word.address("peer", peer)) for peer in model.peers])
    sections = (_defaults(), _frontend(layout), _app(model), _candidates(model), _peers(model, layout))
    title = f"Load balancer {word.name('name', model.name)} at {word.name('location', model.location)}."
    return assemble(title, global_section(layout, model.drain_seconds + 5), sections)


def assemble(title: str, head: Sequence[str], sections: Iterable[Sequence[str]]) -> bytes:
    """A configuration of ours: ``head`` is its global section, marked with a hash of everything in it."""
    body = "\n\n".join("\n".join(section) for section in sections)
    mark = hashlib.sha256("\n".join([*head, body]).encode()).hexdigest()[:32]
    lines = [
        "# Written by HASite, which puts back what is changed here by hand.",
        f"# {title}",
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


def global_section(layout: Layout, hard_stop: float) -> list[str]:
    """1 GB of memory holds 8,000 connections with both their buffers (33 KB each) with room to spare.

    ``hard_stop``: the seconds that a connection from before a reload may still last.
    """
    return [
        "    master-worker",
        "    maxconn 8000",
        "    log /dev/log local0 notice",
        f"    chroot {layout.chroot}",
        f"    user {layout.user}",
        f"    group {layout.user}",
        f"    stats socket {layout.socket} mode 600 level admin expose-fd listeners",
        "    stats timeout 30s",
        f"    hard-stop-after {word.milliseconds('drain time', hard_stop)}",
        "    max-spread-checks 500ms",
        f"    server-state-file {layout.states}",
    ]


def _defaults() -> list[str]:
    """A request whose connection failed goes to another server; one that was sent, only if it is GET or HEAD.

    The frontend's ``disable-l7-retry`` sees to the second half. ``tcp-ut`` on the servers makes a reused connection
    into a dead datacentre fail after seconds instead of after ``timeout server``, and the keepalives one whose server
    died after it took the request.
    """
    return [
        "defaults",
        "    mode http",
        "    log global",
        "    option dontlognull",
        "    option redispatch 1",
        "    option idle-close-on-response",
        "    option srvtcpka",
        "    srvtcpka-idle 2s",
        "    srvtcpka-intvl 1s",
        "    srvtcpka-cnt 3",
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
        *_check(model.check, word.domain(model.domain)),
        f"    default-server {_check_options(model.check)} tcp-ut 3s",
        "    default-server observe layer4 error-limit 3 on-error sudden-death",
        *_servers(serving, model.port),
    ]


def _candidates(model: ProxyModel) -> list[str]:
    """Nothing leads here: the servers are only checked."""
    return [
        f"backend {CANDIDATES}",
        *_check(model.check, word.domain(model.domain)),
        f"    default-server {_check_options(model.check)}",
        *_servers((upstream for upstream in model.upstreams if upstream.state == "Candidate"), model.port),
    ]


def _peers(model: ProxyModel, layout: Layout) -> list[str]:
    """Nothing leads here: the load balancers of the other locations are only checked."""
    probe = Check(ALIVE_PATH, model.probe_interval, model.probe_timeout, PEER_RISE, PEER_FALL)
    peers = sorted((word.address("peer", peer) for peer in model.peers), key=lambda peer: (peer.version, int(peer)))
    return [
        f"backend {PEERS}",
        f"    timeout connect {word.milliseconds('probe timeout', model.probe_timeout)}",
        *_check(probe, word.domain(model.domain), "200"),
        f"    default-server {_check_options(probe)}",
        *(f"    server {_peer_name(peer)} {word.socket_address(peer, layout.port)}" for peer in peers),
    ]


def _check(check: Check, domain: str, expected: str = "200-399") -> list[str]:
    return [
        "    option httpchk",
        f"    http-check send meth GET uri {word.path(check.path)} ver HTTP/1.1 hdr Host {domain}"
        " hdr User-Agent hasite",
        f"    http-check expect status {expected}",
        f"    timeout check {word.milliseconds('check timeout', check.timeout)}",
    ]


def _check_options(check: Check) -> str:
    interval = word.milliseconds("check interval", check.interval)
    fast = word.milliseconds("check interval", min(check.interval, 0.25))
    down = word.milliseconds("check interval", min(check.interval, 0.5))
    counts = f"rise {word.count('rise', check.rise)} fall {word.count('fall', check.fall)}"
    return f"check inter {interval} fastinter {fast} downinter {down} {counts}"


def _servers(upstreams: Iterable[Upstream], port: int) -> list[str]:
    return [_server(upstream, port) for upstream in sorted(upstreams, key=lambda upstream: upstream.name)]


def _server(upstream: Upstream, port: int) -> str:
    address = word.socket_address(word.address("server", upstream.address), word.port(port))
    weight = " weight 0" if upstream.state == "Draining" else ""
    backup = " backup" if upstream.backup else ""
    return f"    server {word.name('server name', upstream.name)} {address}{weight}{backup}"


def _peer_name(address: word.Address) -> str:
    return "peer-" + re.sub(r"[.:]", "-", address.exploded)
