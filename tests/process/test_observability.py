"""Metrics, health checks and logs."""

import json
import logging
import sys
from collections.abc import AsyncIterator

import aiohttp
import pytest
from hasite.logs import JsonFormatter
from hasite.metrics import Metrics
from hasite.web import WebServer

SHOP = ("HASite", "default", "shop")
BLOG = ("HASite", "default", "blog")


def test_an_address_that_is_withdrawn_loses_its_series() -> None:
    metrics = Metrics()
    metrics.dns_published(SHOP, ["192.0.2.1", "198.51.100.1"])
    metrics.dns_published(SHOP, ["198.51.100.1"])
    assert b'address="192.0.2.1"' not in metrics.text()
    assert b'address="198.51.100.1"' in metrics.text()


def test_an_object_that_is_gone_takes_all_its_series_with_it_and_no_other() -> None:
    metrics = Metrics()
    for of in (SHOP, BLOG):
        metrics.locations(of, up=1, wanted=2)
        metrics.dns_published(of, ["192.0.2.1"])
        metrics.withdrawn(of)
    metrics.forget(SHOP)
    assert b'name="shop"' not in metrics.text()
    assert metrics.text().count(b'name="blog"') >= 4


def test_an_object_without_series_can_be_forgotten() -> None:
    Metrics().forget(SHOP)


def test_two_of_them_do_not_meet() -> None:
    Metrics()
    assert b"hasite_leader 0.0" in Metrics().text()


@pytest.mark.parametrize(
    "name",
    [
        'hasite_reconcile_total{kind="HASite",result="ok"} 1.0',
        'hasite_reconcile_seconds_count{kind="HASite"} 1.0',
        'hasite_api_calls_total{endpoint="GET /v2/droplets",provider="digitalocean",status="200"} 1.0',
        'hasite_api_rate_limit_remaining{account="1"} 4999.0',
        'hasite_locations_up{kind="HASite",name="shop",namespace="default"} 1.0',
        'hasite_locations_wanted{kind="HASite",name="shop",namespace="default"} 2.0',
        'hasite_dns_published{address="192.0.2.1",kind="HASite",name="shop",namespace="default"} 1.0',
        'hasite_withdrawals_total{kind="HASite",name="shop",namespace="default"} 1.0',
        "hasite_failover_seconds_count 1.0",
        "hasite_events_dropped_total 1.0",
        "hasite_leader 1.0",
    ],
)
def test_series(name: str) -> None:
    metrics = Metrics()
    metrics.reconciled("HASite", "ok", 0.004)
    metrics.api_call("digitalocean", "GET /v2/droplets", "200")
    metrics.rate_limit_remaining("1", 4999)
    metrics.locations(SHOP, up=1, wanted=2)
    metrics.dns_published(SHOP, ["192.0.2.1"])
    metrics.withdrawn(SHOP)
    metrics.failed_over(3.2)
    metrics.event_dropped()
    metrics.leading(True)
    assert name in metrics.text().decode().splitlines()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_a_page_names_each_check_and_fails_when_one_does(session: aiohttp.ClientSession) -> None:
    problem: list[str | None] = ["kopf starts"]
    server = WebServer(Metrics(), {}, {"watch": lambda: problem[0], "lease": lambda: None})
    port = await server.start("127.0.0.1", 0)
    async with session.get(f"http://127.0.0.1:{port}/readyz") as answer:
        assert (answer.status, await answer.text()) == (503, "watch: kopf starts\nlease: ok\n")
    problem[0] = None
    async with session.get(f"http://127.0.0.1:{port}/readyz") as answer:
        assert (answer.status, await answer.text()) == (200, "watch: ok\nlease: ok\n")
    async with session.get(f"http://127.0.0.1:{port}/healthz") as answer:
        assert answer.status == 200
    async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
        assert answer.content_type == "text/plain"
        assert "hasite_leader" in await answer.text()
    await server.stop()


def test_a_log_line_is_one_json_object_with_its_extra_fields() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        error = sys.exc_info()
    record = logging.LogRecord("hasite.x", logging.WARNING, __file__, 1, "%s is down", ("new-york",), error)
    record.site = "shop"
    line = JsonFormatter().format(record)
    assert "\n" not in line
    entry = json.loads(line)
    assert (entry["level"], entry["logger"], entry["message"]) == ("warning", "hasite.x", "new-york is down")
    assert entry["site"] == "shop"
    assert entry["exception"].endswith("ValueError: two\nlines")
