"""What servers are when HAProxy starts with a configuration: its server-state file (format 1), written by us.

HAProxy believes that a server is up until a check has failed. So a server that no check has seen yet is entered here as
down, and one that the running process knows keeps what is known, also when it moves from one backend to another. A peer
that is new stays up but unchecked: being down is a verdict, and nobody has given one.

Fields: HAProxy management guide, "show servers state".
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from hasite.proxies.haproxy_render import PEERS

FORMAT = "1"
STOPPED, RUNNING = "0", "2"
NOT_CHECKED = ("0", "1", "0", "0")
"""Seconds since the last change, check status INI, check result unknown, health 0."""

_SECTION = re.compile(r"backend (\S+)")
_SERVER = re.compile(r"\s+server (\S+) (\S+):(\d+)(?: weight (\d+))?")


@dataclass(frozen=True)
class _Known:
    """State of a server at an address: operational state, then the four fields of ``NOT_CHECKED``."""

    operational: str
    checked: tuple[str, str, str, str]


def carried_states(running: str, config: bytes) -> bytes:
    """The state file for ``config``, given the answer to ``show servers state`` of the running process, or ""."""
    known = dict(_known(running))
    lines = [FORMAT]
    positions: dict[str, int] = {}
    for backend, name, address, port, weight in _configured(config):
        positions[backend] = positions.get(backend, 0) + 1
        new = _Known(RUNNING if backend == PEERS else STOPPED, NOT_CHECKED)
        state = known.get((name, address), new)
        lines.append(
            f"1 {backend} {positions[backend]} {name} {address} {state.operational} 0 {weight} {weight} "
            f"{' '.join(state.checked)} 6 0 0 0 - {port} - 0 0 - - 0"
        )
    return "\n".join([*lines, ""]).encode()


def _known(running: str) -> Iterator[tuple[tuple[str, str], _Known]]:
    """By name and address: a name that now stands for another machine is a new server."""
    for line in running.splitlines():
        fields = line.split()
        if len(fields) >= 20 and fields[0].isdigit():
            checked = (fields[9], fields[10], fields[11], fields[12])
            yield (fields[3], fields[4]), _Known(fields[5], checked)


def _configured(config: bytes) -> Iterator[tuple[str, str, str, str, str]]:
    """Backend, name, address, port and weight of every server of a configuration that was rendered here."""
    backend = ""
    for line in config.decode().splitlines():
        if section := _SECTION.match(line):
            backend = section.group(1)
        elif server := _SERVER.match(line):
            name, address, port, weight = server.groups()
            yield backend, name, address.strip("[]"), port, weight or "1"
