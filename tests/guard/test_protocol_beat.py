"""What a primary tells of itself."""

from dataclasses import replace

from hasite.guard import protocol
from hasite.guard.messages import Beat
from hasite.guard.model import SyncRecord
from hasite.guard.protocol import Tick

from tests.guard.test_protocol import LATER, reigning, sent

ALONE = SyncRecord(4, 5, frozenset({"b1"}), 0, "b1")


def test_a_primary_that_waits_for_nobody_says_so_by_its_record() -> None:
    guard = reigning()
    assert guard.reign is not None
    settings = replace(guard.settings, degraded_writes=True)
    guard = replace(guard, settings=settings, reign=replace(guard.reign, record=ALONE), next_beat=0.0)
    guard, out = protocol.step(guard, Tick(), LATER + 0.45)
    assert guard.desired.role == "primary"
    assert guard.desired.sync is None
    (beat,) = sent(out, Beat, "a1")
    assert isinstance(beat, Beat)
    assert beat.sync == ALONE
