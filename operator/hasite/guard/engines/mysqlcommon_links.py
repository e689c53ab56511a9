"""Whether the kernel still hears from the other end of a server's connections.

The servers don't: they write to a follower that is gone until the send buffer is full. The followers ask for a sign of
life twice a second, so that a connection on which nothing is acknowledged has something sent again and again. Asked of
the kernel by sock_diag(7): /proc/net/tcp would be read whole, with every connection that ever was.
"""

import ipaddress
import socket
import struct

SILENT = 4
"""Tries in a row without an answer, of data or of a probe: 0.2 + 0.4 + 0.8 + 1.6 seconds, or more."""

_SOCK_DIAG, _BY_FAMILY, _DESTROY = 4, 20, 21
_ESTABLISHED, _ATTEMPTED = 1 << 1, 1 << 2
_REQUEST, _ACKNOWLEDGE, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_HEADER, _MESSAGE = struct.Struct("=IHHII"), struct.Struct("=BBBB2s2s16s16s")


def silent_peers(port: int) -> set[str]:
    """Addresses whose every connection to the local ``port`` has gone silent; none when the kernel can't say."""
    heard: dict[str, bool] = {}
    for family in (socket.AF_INET, socket.AF_INET6):
        for message in _ask(family, _ESTABLISHED, (port, 0)):
            *_, tries, _, _, _, raw = _MESSAGE.unpack_from(message)
            peer = address(family, raw)
            heard[peer] = heard.get(peer, False) or tries < SILENT
    return {peer for peer, alive in heard.items() if not alive}


def cut(peer: str, port: int) -> None:
    """Ends this machine's connections to a server, and attempts at one, where the kernel does that (SOCK_DESTROY).

    A server that waits for an answer on one is told at once that there will be none.
    """
    for family in (socket.AF_INET, socket.AF_INET6):
        for message in _ask(family, _ESTABLISHED | _ATTEMPTED, (0, port)):
            if address(family, _MESSAGE.unpack_from(message)[-1]) == peer:
                _ask(family, 0xFFF, (0, 0), destroy=message[4:52])


def _ask(family: int, states: int, ports: tuple[int, int], destroy: bytes = b"") -> list[bytes]:
    """Connections in ``states`` by local and remote port, 0 for any; none when the kernel can't say."""
    try:
        return _asked(family, states, destroy or struct.pack("!HH", *ports) + bytes(36) + b"\xff" * 8, bool(destroy))
    except OSError:
        return []


def _asked(family: int, states: int, which: bytes, destroy: bool) -> list[bytes]:
    wanted = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, states) + which
    kind, flags = (_DESTROY, _REQUEST | _ACKNOWLEDGE) if destroy else (_BY_FAMILY, _REQUEST | _DUMP)
    header = _HEADER.pack(_HEADER.size + len(wanted), kind, flags, 1, 0)
    answers: list[bytes] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _SOCK_DIAG) as kernel:
        kernel.settimeout(0.5)
        kernel.send(header + wanted)
        while True:
            data = kernel.recv(1 << 16)
            while data:
                size, kind, *_ = _HEADER.unpack_from(data)
                if kind == _DONE:
                    return answers
                if kind == _ERROR:  # so does an acknowledgement
                    return answers
                answers.append(data[_HEADER.size : size])
                data = data[(size + 3) & ~3 :]


def address(family: int, raw: bytes) -> str:
    """Of 16 bytes in network order; an IPv4 address that is written as one of IPv6 is itself again."""
    if family == socket.AF_INET:
        return str(ipaddress.ip_address(raw[:4]))
    parsed = ipaddress.IPv6Address(raw)
    return str(parsed.ipv4_mapped or parsed)
