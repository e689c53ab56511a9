"""Which Events are sent, in which order, and which are given up when too many wait."""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import cast

import pytest
from hasite.api import HASite
from hasite.kube import events
from hasite.kube.events import EventRecorder
from hasite.kube.transport import Request, Transport

from tests.contract.kube_suite import Json, site


@dataclass
class Sent:
    """A transport that lets nothing through until its gate is open."""

    bodies: list[Json] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def call(self, request: Request) -> Json:
        await self.gate.wait()
        assert request.body is not None
        self.bodies.append({"method": request.method, **request.body})
        return {}

    @property
    def reasons(self) -> list[str]:
        """Of the Events that were created, in order."""
        return [body["reason"] for body in self.bodies if body["method"] == "POST"]


class Bench:
    """A recorder whose first Event is on its way already, and holds up the others."""

    def __init__(self) -> None:
        self.sent = Sent()
        self.dropped = 0
        self.recorder = EventRecorder(cast(Transport, self.sent), "operator-1", dropped=self._drop)
        manifest = site("default")
        manifest["metadata"]["uid"] = "5f0c"
        self.site = HASite.model_validate(manifest)

    def _drop(self) -> None:
        self.dropped += 1

    async def begin(self) -> None:
        self.warn("First")
        await asyncio.sleep(0)

    def tell(self, reason: str, message: str = "") -> None:
        self.recorder.record(self.site, "Normal", reason, message)

    def warn(self, reason: str, message: str = "") -> None:
        self.recorder.record(self.site, "Warning", reason, message)

    async def finish(self) -> None:
        self.sent.gate.set()
        await self.recorder.close(patience=5.0)


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(events, "WAITING", 4)
    bench = Bench()
    await bench.begin()
    return bench


async def test_events_that_tell_a_failover_go_first_and_warnings_before_the_rest(bench: Bench) -> None:
    bench.tell("CreateDroplet")
    bench.warn("Unclear")
    bench.warn("AddressWithdrawn")
    bench.warn("LocationDown")
    await bench.finish()
    assert bench.sent.reasons == ["First", "AddressWithdrawn", "LocationDown", "Unclear", "CreateDroplet"]


async def test_when_too_many_wait_the_latest_of_the_least_important_are_given_up(bench: Bench) -> None:
    for number in range(6):
        bench.tell("CreateDroplet", f"app-{number}")
    bench.warn("Unclear")
    bench.warn("AddressWithdrawn")
    await bench.finish()
    assert bench.dropped == 4
    assert [(body["reason"], body["message"]) for body in bench.sent.bodies[1:]] == [
        ("AddressWithdrawn", ""),
        ("Unclear", ""),
        ("CreateDroplet", "app-0"),
        ("CreateDroplet", "app-1"),
    ]


async def test_that_events_are_dropped_is_said_once_until_none_waits(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "hasite.kube.events")
    for number in range(20):
        bench.tell("CreateDroplet", f"app-{number}")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert bench.dropped == 16
    await bench.finish()
    bench.sent.gate.clear()
    await bench.begin()
    for number in range(20, 30):
        bench.tell("CreateDroplet", f"app-{number}")
    assert len(caplog.records) == 2
    await bench.finish()


async def test_an_event_that_occurs_again_while_it_waits_takes_no_more_room_and_counts(bench: Bench) -> None:
    for _ in range(50):
        bench.warn("Unclear", "did it?")
    await bench.finish()
    bench.warn("Unclear", "did it?")
    await bench.finish()
    assert bench.dropped == 0
    assert [(body["method"], body["count"]) for body in bench.sent.bodies[1:]] == [("POST", 50), ("PATCH", 51)]
