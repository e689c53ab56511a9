"""What is told of a database's primary, in words, as Kubernetes Events. Times are Unix time, durations seconds."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hasite.guard.model import Conflict

How = Literal["followed", "rewound", "copied"]

_WAYS = {"followed": "with its own data", "rewound": "with its data rewound", "copied": "with a fresh copy"}


@dataclass(frozen=True)
class Happening:
    """``reason`` and ``text``: the Event's. ``key``: what makes another one the same piece of news."""

    reason: str
    text: str
    key: tuple[str, ...]
    warning: bool = False

    @property
    def kind(self) -> Literal["Normal", "Warning"]:
        """The Event's type."""
        return "Warning" if self.warning else "Normal"


def clock(at: float) -> str:
    """The time of day, UTC, to the nearest tenth of a second."""
    tenths = round(at * 10) % 864_000
    hours, minutes = divmod(tenths // 600, 60)
    return f"{hours:02}:{minutes:02}:{tenths % 600 / 10:04.1f}Z"


def primary_lost(name: str, epoch: int, since: float | None, witnesses: Sequence[str]) -> Happening:
    """``since``: when its first beat was missing; None: before anybody looked. ``witnesses``: who says so."""
    when = f"since {clock(since)}" if since is not None else "since before this operator looked"
    text = f"{name}, primary of epoch {epoch}, is lost {when}: so say {'; '.join(witnesses)}"
    return Happening("PrimaryLost", text, (name,), True)


def primary_back(name: str, epoch: int, at: float, seconds: float | None) -> Happening:
    """The one that was lost takes writes again."""
    after = f", {seconds:.1f} s after it was lost" if seconds is not None else ""
    return Happening("PrimaryBack", f"{name} takes writes again since {clock(at)}, in epoch {epoch}{after}", (name,))


def promoted(name: str, epoch: int, at: float, former: str, seconds: float | None, *, ordered: bool) -> Happening:
    """A failover has ended. ``ordered``: by a person's order."""
    place = f" in place of {former}" if former else ""
    after = f"{seconds:.1f} s after the loss" if seconds is not None else "when it was lost was not seen"
    order = ", as ordered" if ordered else ""
    return Happening("Promoted", f"{name} takes writes{place} since {clock(at)}, in epoch {epoch}{order}: {after}", ())


def conflict_text(found: Conflict) -> str:
    """In one line: the server's words, whose transaction it is, and its row."""
    whose = f" of {found.writer}" if found.writer else ""
    what = f"; transaction {found.transaction}{whose}" if found.transaction else ""
    return found.words + what + (f": {found.row}" if found.row else "")


def conflict(name: str, found: Conflict) -> Happening:
    """A member of a ring does not go on."""
    text = f"{name} has stopped applying what others wrote: {conflict_text(found)}"
    return Happening("ReplicationConflict", text[:1000], (name, found.words), True)


def conflict_over(name: str, seconds: float) -> Happening:
    """It goes on, without having skipped anything by itself."""
    text = f"{name} applies what others wrote again, after {seconds:.0f} s"
    return Happening("ReplicationConflictOver", text, (name,))


def rejoined(name: str, epoch: int, how: How, seconds: float, saved: Sequence[str]) -> Happening:
    """``seconds``: that it did not follow. ``saved``: where it keeps what it alone had."""
    kept = f"; what it alone had is kept on it in {', '.join(saved)}" if saved else ""
    text = f"{name} follows in epoch {epoch}, {_WAYS[how]} ({how}), after {seconds:.1f} s{kept}"
    return Happening("Rejoined", text, (name, *saved))


def degraded(name: str, at: float) -> Happening:
    """Writes are acknowledged that only the primary has."""
    return Happening("DegradedWrites", f"since {clock(at)} acknowledged writes are on {name} only", (), True)


def restored(name: str, at: float, seconds: float) -> Happening:
    """Every acknowledged write is on another member too."""
    text = f"since {clock(at)} acknowledged writes are not on {name} only any more: that took {seconds:.1f} s"
    return Happening("DegradedWritesOver", text, ())


def switchover_started(name: str, target: str, epoch: int, at: float) -> Happening:
    """The primary takes no more writes, for another to take over."""
    text = f"{name}, primary of epoch {epoch}, takes no more writes since {clock(at)}: {target} is to take over"
    return Happening("SwitchoverStarted", text, (target,))


def switchover_done(name: str, epoch: int, at: float, former: str, seconds: float | None) -> Happening:
    """``seconds``: without a primary."""
    pause = f": writes waited {seconds:.1f} s" if seconds is not None else ""
    return Happening(
        "SwitchoverDone", f"{name} took over from {former} at {clock(at)}, in epoch {epoch}{pause}", (name,)
    )


def switchover_failed(name: str, target: str, epoch: int, seconds: float) -> Happening:
    """The old primary took its office back."""
    text = f"{target} did not take over: {name} takes writes again, in epoch {epoch}; they waited {seconds:.1f} s"
    return Happening("SwitchoverFailed", text, (target,), True)


def switchover_refused(name: str, target: str, reason: str) -> Happening:
    """By the primary, which goes on."""
    return Happening(
        "SwitchoverRefused", f"{name} does not hand over to {target}: {reason}", (target, _gist(reason)), True
    )


def failover_refused(name: str, reason: str) -> Happening:
    """By a member that could be the next primary."""
    return Happening("FailoverRefused", f"{name} does not take over: {reason}", (name, _gist(reason)), True)


def _gist(reason: str) -> str:
    """Without its figures, which are others each time."""
    return re.sub(r"\d+(\.\d+)?", "#", reason)
