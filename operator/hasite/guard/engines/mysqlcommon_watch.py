"""What looks at a server amount to: the values that the guard decides by, of several looks where one can deceive."""

import time

from hasite.guard.engines.mysqlcommon import Look, server_ids
from hasite.guard.engines.mysqlcommon_links import silent_peers
from hasite.guard.model import Database, Member, Position

_MOMENT = 2.0


class Watch:
    """Remembers a moment. ``port``: the server's."""

    def __init__(self, members: tuple[Member, ...], port: int) -> None:
        self._members, self._port = members, port
        self._caught_up: dict[str, float] = {}
        self._lags: list[tuple[float, float]] = []

    def configure(self, members: tuple[Member, ...]) -> None:
        """For the next looks."""
        self._members = members

    def describe(self, look: Look, *, recovered: bool, doing: str) -> Database:
        """``recovered``: what had been received before the server's start is applied."""
        source, received = look.source, max(look.applied, look.received)
        drained = recovered and look.applied >= received
        detail = doing
        if source is not None:
            detail = source.sql_error or source.io_error or detail
        upstream = self._name_of(source.host) if source is not None and source.io != "No" else None
        return Database(
            state="standby" if look.read_only else "primary",
            position=Position(look.reign.epoch if look.reign else 0, received),
            drained=drained,
            upstream=upstream,
            streaming=source is not None and source.io == "Yes" and source.sql,
            followers=frozenset() if look.read_only else self._followers(look),
            read_only=look.read_only,
            lag_seconds=self._lag(look),
            detail=detail,
            acknowledging=source is not None and source.io != "No" and look.acknowledging,
            receivers=frozenset() if look.read_only else self._receivers(look),
        )

    def _name_of(self, address: str) -> str | None:
        for member in self._members:
            if member.address == address:
                return member.name
        return None

    def _followers(self, look: Look) -> frozenset[str]:
        """Registered replicas whose connection the kernel still hears from, and that were sent everything just now."""
        now, silent = time.monotonic(), silent_peers(self._port)
        addresses = {member.name: member.address for member in self._members}
        names = {number: name for name, number in server_ids(addresses).items()}
        members = {names[number] for number in look.replicas if number in names} & addresses.keys()
        known = {member for member in members if addresses[member] in look.sending}
        for member in members:
            if member not in known or addresses[member] in look.caught_up:
                self._caught_up[member] = now
        self._caught_up = {name: at for name, at in self._caught_up.items() if name in members}
        return frozenset(
            member
            for member in members
            if addresses[member] not in silent and now - self._caught_up.get(member, float("-inf")) < _MOMENT
        )

    def _receivers(self, look: Look) -> frozenset[str]:
        """By what they register as, or by their address, which may be another on the way here."""
        addresses, silent = {member.name: member.address for member in self._members}, silent_peers(self._port)
        numbers = server_ids(addresses)
        return frozenset(
            name
            for name, address in addresses.items()
            if address not in silent and (numbers[name] in look.replicas or address in look.sending)
        )

    def _lag(self, look: Look) -> float | None:
        """Seconds, the worst of the last moment: the server says 0 whenever it waits for the network."""
        now = time.monotonic()
        if look.source is None or look.source.behind is None:
            return self._lags[-1][1] if self._lags and look.source is not None else None
        self._lags = [(at, lag) for at, lag in self._lags if now - at < _MOMENT] + [(now, look.source.behind)]
        return max(lag for _, lag in self._lags)
