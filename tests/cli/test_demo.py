"""`make demo` and `make watch`: the parts that only count and draw."""

import json
from io import StringIO
from pathlib import Path

import pytest
from hasite.api import HASite, LoadBalancerPool
from rich.console import Console

from e2e.demo.site import Decisions, decision
from e2e.demo.tally import Tally
from e2e.demo.up import state
from e2e.demo.view import Scene, draw, spark
from tests.cli import scene


def log_line(message: str, level: str = "info") -> bytes:
    return json.dumps({"time": "2026-01-01T00:00:00.000+00:00", "level": level, "message": message}).encode()


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (log_line("step done: DestroyDroplet a: it leaves"), "DestroyDroplet a: it leaves"),
        (log_line("leading as operator-1"), "leading as operator-1"),
        (log_line("the Lease could not be renewed", "warning"), "the Lease could not be renewed"),
        (log_line("health checks on port 8080"), None),
        (b"Traceback (most recent call last):", None),
    ],
)
def test_of_an_operators_log_only_decisions_and_trouble_are_told(line: bytes, text: str | None) -> None:
    told = decision("operator-1", line)
    assert (told.text if told else None) == text


def test_each_decision_is_told_once_and_a_line_that_is_not_whole_yet_is_not_told(tmp_path: Path) -> None:
    log = tmp_path / "operator.log"
    whole, half = log_line("step done: A a: why"), log_line("step done: B b: why")
    log.write_bytes(whole + b"\n" + half[:20])
    decisions = Decisions({"operator-1": str(log)})
    assert [d.text for d in decisions.new()] == ["A a: why"]
    log.write_bytes(whole + b"\n" + half + b"\n")
    assert [d.text for d in decisions.new()] == ["B b: why"]


def test_requests_are_counted_by_address_and_by_second() -> None:
    tally = Tally()
    for second in (10, 10, 12):
        tally.add({"ok": True, "tries": 1, "address": "192.0.2.1", "served": "app-1", "ms": 5}, now=second)
    assert tally.history("entry 192.0.2.1", now=13)[-3:] == [2, 0, 1]
    assert tally.history("server app-1", now=13)[-3:] == [2, 0, 1]


def test_a_failed_request_and_a_second_try_are_counted_apart() -> None:
    tally = Tally()
    tally.add({"ok": False, "why": "TimeoutError", "tries": 2, "ms": 2000}, now=10)
    tally.add({"ok": True, "tries": 2, "address": "192.0.2.1", "served": "app-1", "ms": 1005}, now=10)
    assert (tally.requests, tally.failures, tally.second_tries, tally.slowest_ms) == (2, 1, 1, 2000)


def test_a_bar_shows_anything_above_nothing() -> None:
    assert spark([0, 1, 50, 100, 200], 100) == " ▁▄██"


def parsed(lost: bool) -> tuple[HASite, LoadBalancerPool]:
    fake = scene.new_york_lost() if lost else scene.at_rest()
    site = HASite.model_validate(fake.objects["HASite", scene.NAMESPACE, "shop"])
    return site, LoadBalancerPool.model_validate(fake.objects["LoadBalancerPool", scene.NAMESPACE, "shop"])


def test_the_demo_is_up_when_the_site_is_ready_by_what_its_spec_asks_for_now() -> None:
    assert state(*parsed(lost=False))[1]
    assert not state(*parsed(lost=True))[1]
    assert not state(None, None)[1]


@pytest.mark.parametrize("lost", [False, True])
def test_the_live_view_fits_the_screen_and_names_every_machine(lost: bool) -> None:
    site, pool = parsed(lost)
    view = Scene(site=site, pool=pool, story=[("12:00:00.0", f"line {n}", "") for n in range(50)])
    view.tally.add({"names": {"203.0.113.53": ["192.0.2.11"], "203.0.113.54": None}})
    output = StringIO()
    Console(file=output, width=150).print(draw(view, scene.NOW, 46))
    text = output.getvalue()
    assert len(text.splitlines()) <= 46
    assert all(machine.name in text for machine in site.status.droplets)
    assert "line 49" in text and "no answer" in text


def test_the_live_view_stands_without_a_site() -> None:
    output = StringIO()
    Console(file=output, width=80).print(draw(Scene(trouble="no answer"), scene.NOW))
    assert "the API server can't be asked" in output.getvalue()
