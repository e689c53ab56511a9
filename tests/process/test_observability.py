"""Metrics, health checks and logs."""

import json
import logging
import sys
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest
from hasite.logs import JsonFormatter
from hasite.metrics import DatabaseFigures, MemberFigures, Metrics
from hasite.web import WebServer

SHOP = ("HASite", "default", "shop")
BLOG = ("HASite", "default", "blog")
ORDERS = ("ReplicatedDatabase", "default", "orders")
FIGURES = DatabaseFigures(
    epoch=4,
    primary="orders-db-b",
    members=(
        MemberFigures("orders-db-a", "new-york", "unknown", saved=1),
        MemberFigures("orders-db-b", "amsterdam", "primary"),
        MemberFigures("orders-db-c", "amsterdam", "standby", lag_bytes=4096, lag_seconds=0.5),
    ),
    ready=2,
    wanted=3,
    heard=2,
    lease_left=2.25,
    synchronous=1,
    failovers=1,
    failover_seconds=3.5,
    switchovers=2,
    votes={("vote", "granted"): 1, ("trial", "refused"): 3},
)


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


def test_a_database_is_looked_at_when_it_is_scraped_and_forgotten_with_its_object() -> None:
    metrics, looks = Metrics(), [FIGURES, replace(FIGURES, epoch=5, primary="", members=FIGURES.members[:1])]
    metrics.database(ORDERS, lambda: looks.pop(0))
    assert b'hasite_database_epoch{name="orders",namespace="default"} 4.0' in metrics.text()
    text = metrics.text()
    assert b'hasite_database_epoch{name="orders",namespace="default"} 5.0' in text
    assert b"orders-db-b" not in text
    metrics.forget(ORDERS)
    assert b"orders" not in metrics.text()


def test_what_is_not_known_of_a_database_has_no_series() -> None:
    metrics = Metrics()
    metrics.database(ORDERS, lambda: DatabaseFigures(0, "", FIGURES.members[:1], 0, 2, 0))
    lines = [line for line in metrics.text().decode().splitlines() if "orders" in line]
    unknown = ("lag", "primary_info", "synchronous", "last_failover", "votes")
    assert not [line for line in lines if any(word in line for word in unknown)]
    assert 'hasite_database_lease_left_seconds{name="orders",namespace="default"} 0.0' in lines


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


ONE = 'name="orders",namespace="default"'


@pytest.mark.parametrize(
    "name",
    [
        f"hasite_database_epoch{{{ONE}}} 4.0",
        f"hasite_database_members_ready{{{ONE}}} 2.0",
        f"hasite_database_members_wanted{{{ONE}}} 3.0",
        f"hasite_database_guards_heard{{{ONE}}} 2.0",
        f"hasite_database_lease_left_seconds{{{ONE}}} 2.25",
        f"hasite_database_synchronous_standbys{{{ONE}}} 1.0",
        f"hasite_database_failovers_total{{{ONE}}} 1.0",
        f"hasite_database_last_failover_seconds{{{ONE}}} 3.5",
        f"hasite_database_switchovers_total{{{ONE}}} 2.0",
        f'hasite_database_primary_info{{member="orders-db-b",{ONE}}} 1.0',
        f'hasite_database_votes_total{{answer="granted",{ONE},question="vote"}} 1.0',
        f'hasite_database_votes_total{{answer="refused",{ONE},question="trial"}} 3.0',
        f'hasite_database_member_role{{location="new-york",member="orders-db-a",{ONE},role="unknown"}} 1.0',
        f'hasite_database_member_role{{location="amsterdam",member="orders-db-b",{ONE},role="primary"}} 1.0',
        f'hasite_database_member_lag_bytes{{location="amsterdam",member="orders-db-c",{ONE}}} 4096.0',
        f'hasite_database_member_lag_seconds{{location="amsterdam",member="orders-db-c",{ONE}}} 0.5',
        f'hasite_database_member_saved{{location="new-york",member="orders-db-a",{ONE}}} 1.0',
    ],
)
def test_series_of_a_database(name: str) -> None:
    metrics = Metrics()
    metrics.database(ORDERS, lambda: FIGURES)
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
