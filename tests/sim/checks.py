"""What must hold at every moment, and what must have come to pass in the end."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from hasite.guard.candidate import ORDER_SECONDS

if TYPE_CHECKING:
    from tests.sim.server import Entry
    from tests.sim.world import Node

WAKE_WINDOW = 0.5
"""Seconds after a suspended *machine* wakes in which nothing on it can have ended its server yet."""
FORCED = ORDER_SECONDS + 15.0
"""Seconds after an order to promote at any price has come in which writes may be lost by it: it is valid, then there is
the campaign, and the server's own time."""
PROGRESS = 45.0
"""Seconds after the last fault within which a write is acknowledged, unless a person must decide."""
REST = 12.0
UNHEARD = 6.0
"""Seconds beyond the lag allowed in which a primary may acknowledge writes unheard: what is left of its lease when the
last voter vouched, and the time that a standby takes to notice that nothing comes."""


class Checks:
    """Mixed into the world. ``committed``: every acknowledged write and what was before it, in order."""

    nodes: dict[str, Node]
    count: Counter[str]
    now: float
    synchronous: bool
    maximum_lag: float
    forced_until: float

    def fail(self, text: str) -> None:
        raise NotImplementedError

    def begin_checks(self) -> None:
        self.committed: list[Entry] = []
        self.committed_at: list[float] = []
        self.acked_epoch = 0
        self.acked_last = 0.0
        self.acks_total = 0
        self.synchronous = True
        self.maximum_lag = 5.0
        self.forced_until = -1.0

    # --- at every promotion and acknowledgement

    def takes_writes(self, node: Node) -> bool:
        """Whether a client that reaches it right now could write. A suspended machine does nothing; one that just woke
        may, for a moment that no software on it can prevent: its writes are looked at instead (``acknowledged``)."""
        asleep = node.paused_until > self.now
        return node.server.accepting and not asleep and self.now > node.woke_at + WAKE_WINDOW

    def promoted(self, node: Node) -> None:
        """A server begins to take writes."""
        self.count["promotions"] += 1
        if not self.takes_writes(node):
            self.count["promoted by one that just woke"] += 1
            return
        self.check_single()
        log = node.server.log
        known = len(self.committed)
        if log[:known] == self.committed:
            return
        common = next((i for i in range(known) if i >= len(log) or log[i] != self.committed[i]), known)
        self.check_loss(node, common)
        del self.committed[common:], self.committed_at[common:]

    def check_single(self) -> None:
        """At most one server takes writes."""
        taking = [node.name for node in self.nodes.values() if self.takes_writes(node)]
        if len(taking) > 1:
            self.fail(f"{' and '.join(taking)} take writes at the same time")

    def check_loss(self, node: Node, common: int) -> None:
        """Acknowledged writes from ``common`` on are not on the new primary."""
        lost = len(self.committed) - common
        if self.now < self.forced_until:
            self.count["writes lost by order"] += lost
            return
        if self.synchronous:
            self.fail(f"{node.name} is promoted without {lost} acknowledged writes")
        behind = self.committed_at[-1] - self.committed_at[common]
        if behind > self.maximum_lag + UNHEARD:
            self.fail(f"{node.name} is promoted {behind:.1f} s behind")
        self.count["writes lost within the lag"] += lost

    def acknowledged(self, node: Node, index: int, number: int) -> None:
        """A server acknowledges everything up to ``index``."""
        server = node.server
        unprotected = server.sync is None or not server.sync.required
        if self.now <= node.woke_at + WAKE_WINDOW and unprotected:
            self.count["acknowledged by one that just woke"] += number
            return
        if server.epoch < self.acked_epoch:
            self.fail(f"{node.name} acknowledges in epoch {server.epoch} after writes of epoch {self.acked_epoch}")
        known = len(self.committed)
        if index < known or (known and server.log[known - 1] != self.committed[-1]):
            self.fail(f"{node.name} acknowledges without the writes acknowledged before")
        self.committed += server.log[known:index]
        self.committed_at += [self.now] * (index - known)
        self.acked_epoch, self.acked_last = server.epoch, self.now
        self.acks_total += number

    # --- in the end

    def primary(self) -> Node | None:
        """The one that takes writes."""
        return next((node for node in self.nodes.values() if self.takes_writes(node)), None)

    def excuse(self) -> str:
        """Why nobody may reign although everything works: what only a person can decide."""
        reasons = [n.guard.refusal for n in self.nodes.values() if n.guard and n.guard.refusal]
        return next((r for r in reasons if "unheard" in r or "alone" in r), "")

    def check_final(self, values: Any) -> None:
        """Every value that was ever written somewhere is in the final history, or saved, or never acknowledged."""
        leader = self.primary()
        if leader is None:
            return
        final = set(leader.server.log)
        if self.committed and leader.server.log[: len(self.committed)] != self.committed:
            self.fail("the final history lacks acknowledged writes")
        for node in self.nodes.values():
            lost = set(node.server.log) - final
            if lost and node.server.stream is not None:
                self.fail(f"{node.name} follows with {len(lost)} entries of another history")

    def count_note(self, text: str) -> None:
        """How often each kind of thing happened: a simulation that tests nothing is seen at once."""
        for key, word in NOTES.items():
            if word in text:
                self.count[key] += 1
                return


NOTES = {
    "elections won": "elected in epoch",
    "elections asked": "asks for epoch",
    "yields": "yields to",
    "leases lost": "ran out",
    "switchovers": "hands over to",
    "epochs given up": "gives epoch",
    "records changed": "record:",
    "refusals": "does not take over",
    "membership changes": "with the old one",
    "own epoch raised": "raises its epoch",
    "unvouched": "no majority vouches",
}
