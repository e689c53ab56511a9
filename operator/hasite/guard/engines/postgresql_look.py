"""What one look at a running PostgreSQL tells: a query in one round trip, and its reading."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from hasite.guard.engines.base import EngineError
from hasite.guard.model import Database, Position

LOOK = "EXECUTE hasite_look"

SIGN_OF_LIFE = 2.0
"""Seconds without a word from upstream after which its stream is not live: the receiver asks for one every second."""

TWO_RETRIES = 0.11
"""Seconds in which the recovery has looked at the files again, after a stream has ended."""

PREPARE = """
SET application_name = 'hasite-guard';
SET statement_timeout = '10s';
SET lock_timeout = '5s';
SET idle_in_transaction_session_timeout = '30s';
SET idle_session_timeout = 0;
SET default_transaction_isolation = 'read committed';
SET synchronous_commit = local;
PREPARE hasite_look AS
SELECT pg_is_in_recovery(),
    CASE WHEN pg_is_in_recovery() THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
         ELSE pg_current_wal_flush_lsn() END - '0/0',
    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() - '0/0' END,
    (SELECT max(epoch) FROM hasite.epoch),
    r.sender_host, r.status = 'streaming', r.last_msg_receipt_time::text, r.latest_end_lsn - '0/0',
    CASE WHEN pg_is_in_recovery() THEN
        extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float END,
    CASE WHEN pg_is_in_recovery() THEN pg_get_wal_replay_pause_state() END,
    current_setting('default_transaction_read_only')::bool,
    CASE WHEN NOT pg_is_in_recovery() THEN
        (SELECT array_agg(application_name::text) FROM pg_stat_replication
         WHERE state = 'streaming' AND pg_current_wal_flush_lsn() - flush_lsn < 16777216) END,
    CASE WHEN pg_is_in_recovery() THEN
        (SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'startup') END,
    pg_last_wal_receive_lsn() IS NOT NULL
FROM (VALUES (1)) one (n) LEFT JOIN pg_stat_wal_receiver r ON true
"""
"""For the guard's connections. Positions as numbers; what only a primary or only a standby can say is NULL.
A follower may be a segment of the log (16 MiB) behind and still counts as one."""

_WAITS_FOR_FILES = "RecoveryRetrieveRetryInterval"


@dataclass(frozen=True)
class Look:
    """A row of ``LOOK``. ``behind_seconds``: the age of the newest transaction replayed. ``waiting``: the recovery has
    found no more in the log's files. ``streamed``: it has received something since the server was started."""

    recovering: bool
    received: int
    replayed: int
    epoch: int
    sender: str | None
    streaming: bool
    heard: str | None
    upstream_end: int | None
    behind_seconds: float | None
    paused: bool
    read_only: bool
    followers: frozenset[str]
    waiting: bool
    streamed: bool

    @classmethod
    def of(cls, row: tuple[Any, ...]) -> "Look":
        """From the columns, in order."""
        recovering, received, replayed, epoch, sender, streaming, heard, end, behind, pause, *rest = row
        read_only, followers, wait, streamed = rest
        return cls(
            recovering=recovering,
            received=int(received or 0),
            replayed=int(replayed or 0),
            epoch=int(epoch or 0),
            sender=sender,
            streaming=bool(streaming),
            heard=heard,
            upstream_end=None if end is None else int(end),
            behind_seconds=behind,
            paused=pause == "paused",
            read_only=bool(read_only) or recovering,
            followers=frozenset(followers or ()),
            waiting=wait == _WAITS_FOR_FILES,
            streamed=streamed,
        )


class Watch:
    """Reads looks one after the other: some things only show in how they change. ``clock``: monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heard: tuple[str | None, float] = (None, 0.0)
        self._waited: tuple[int, float] | None = None
        self._lag: float | None = None

    def drained(self, look: Look) -> bool:
        """Everything that the server has of the log is replayed.

        What came by a stream is, when the replay has come to its end. After a start, and when a stream ended in the
        middle of a record, the recovery must have looked for more in the files in vain: it waits, as it did at the look
        before, at the same position. (A server lets readers in before it has replayed all that it finds.)
        """
        if not look.recovering:
            return True
        now = self._clock()
        since = now
        if not look.waiting or look.sender is not None:
            self._waited = None
        elif self._waited is None or self._waited[0] != look.replayed:
            self._waited = (look.replayed, now)
        else:
            since = self._waited[1]
        if look.streamed:
            return look.replayed >= look.received or now - since > TWO_RETRIES
        return now > since

    def live(self, look: Look) -> bool:
        """Upstream was heard within ``SIGN_OF_LIFE``, by this clock: the server's own may have been stepped."""
        now = self._clock()
        if look.heard != self._heard[0]:
            self._heard = (look.heard, now)
        return look.streaming and now - self._heard[1] < SIGN_OF_LIFE

    def database(self, look: Look, upstream: str | None) -> Database:
        """``upstream``: the member that the server is set to receive from."""
        live, drained = self.live(look), self.drained(look)
        lag_bytes = 0
        if look.recovering:
            end = look.upstream_end
            lag_bytes = max(0, (end or look.received) - look.received)
            if live and end is not None:
                self._lag = 0.0 if look.replayed >= end else look.behind_seconds
        return Database(
            state="standby" if look.recovering else "primary",
            position=Position(look.epoch, look.received),
            drained=drained,
            upstream=upstream if look.recovering else None,
            streaming=live,
            followers=look.followers,
            read_only=look.read_only,
            lag_bytes=lag_bytes,
            lag_seconds=self._lag if look.recovering else 0.0,
            detail=PAUSED if look.paused else "",
        )


def unseen(last: Database, detail: str) -> Database:
    """Of a server that runs and does not answer: what it was, but nothing that changes by itself or by being told to.

    A position from before a freeze would be taken for that of the frozen data.
    """
    return replace(last, position=None, drained=False, streaming=False, followers=frozenset(), detail=detail)


class Paused(EngineError):
    """The replay has stopped, but not at its end."""


PAUSED = "replay is paused: a setting such as max_connections is smaller here than on the primary"
