"""HAProxy itself, on loopback: what a delivered configuration does with requests, checks and reloads."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hasite.proxies.base import Delivered, Rejected
from hasite.proxies.haproxy import CLOCK_TICK

from tests.contract.haproxy_lab import Lab, haproxy_lab
from tests.contract.web import App, eventually, fetch

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="HAProxy changes its user")


@pytest_asyncio.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with haproxy_lab(tmp_path) as made:
        yield made


async def test_requests_go_round_the_active_servers(lab: Lab) -> None:
    await lab.serving(a="Active", b="Active")
    assert await lab.who() == {"a", "b"}


async def test_health_asks_the_socket_alone(lab: Lab) -> None:
    last = await lab.serving(a="Active")
    runs = len(lab.local.runs)
    assert await lab.proxy.health(lab.session, last) == last
    assert len(lab.local.runs) == runs


async def test_a_candidate_is_checked_and_gets_no_request(lab: Lab) -> None:
    view = await lab.serving(a="Active", b="Candidate")
    assert view.servers["b"].up
    assert await lab.who() == {"a"}
    assert lab.apps["b"].checked > 0
    assert lab.apps["b"].served == 0


async def test_a_draining_server_gets_no_new_request(lab: Lab) -> None:
    await lab.serving(a="Active", b="Active")
    view = await lab.serving(a="Active", b="Draining")
    assert view.servers["b"].up
    assert await lab.who() == {"a"}


async def test_a_server_that_drains_can_be_taken_back(lab: Lab) -> None:
    await lab.serving(a="Active", b="Draining")
    await lab.serving(a="Active", b="Active")
    assert await lab.who() == {"a", "b"}


async def test_a_draining_server_shows_its_requests_in_flight_until_they_end(lab: Lab) -> None:
    await lab.serving(a="Active")
    lab.apps["a"].gate = asyncio.Event()
    request = asyncio.create_task(fetch(lab.port))
    await eventually(lambda: lab.observe_sessions("a", 1))
    lab.apps["a"].gate.set()
    assert await request == (200, "a")
    await eventually(lambda: lab.observe_sessions("a", 0))


async def test_a_backup_gets_requests_only_when_no_other_can(lab: Lab) -> None:
    await lab.serving(a="Active", b="Active+", c="Active+")
    assert await lab.who() == {"a"}
    await lab.break_health("a")
    await eventually(lambda: lab.sees("b", "c"))
    assert await lab.who() == {"b", "c"}


async def test_the_alive_path_follows_the_active_servers_alone(lab: Lab) -> None:
    await lab.serving(a="Active", b="Candidate", c="Draining")
    assert await lab.alive() == 200
    await lab.break_health("a")
    await eventually(lambda: lab.sees("b", "c"))
    assert await lab.alive() == 503
    assert lab.apps["a"].served == lab.apps["b"].served == lab.apps["c"].served == 0


async def test_a_server_that_no_check_has_seen_is_not_alive(lab: Lab) -> None:
    await lab.break_health("a")
    assert await lab.deliver(a="Active") == Delivered()
    assert await lab.alive() == 503
    assert not (await lab.observe()).servers["a"].up


async def test_a_reload_keeps_what_is_known_of_the_servers(lab: Lab) -> None:
    await lab.break_health("b")
    await lab.serving(a="Active", b="Active")
    assert await lab.deliver(a="Active", b="Active", c="Candidate") == Delivered()
    view = await lab.observe()
    assert view.servers["a"].up
    assert not view.servers["b"].up
    assert await lab.who() == {"a"}


async def test_a_candidate_that_was_up_serves_at_once_when_it_becomes_active(lab: Lab) -> None:
    await lab.serving(a="Candidate")
    assert await lab.alive() == 503
    assert await lab.deliver(a="Active") == Delivered()
    assert await lab.alive() == 200


async def test_no_request_fails_while_configurations_change(lab: Lab) -> None:
    await lab.serving(a="Active", b="Active")
    done = asyncio.Event()
    statuses: list[int] = []

    async def visit() -> None:
        while not done.is_set():
            statuses.append((await fetch(lab.port))[0])

    visitors = [asyncio.create_task(visit()) for _ in range(4)]
    for states in ({"a": "Active", "b": "Draining"}, {"a": "Active", "c": "Candidate"}, {"a": "Active", "c": "Active"}):
        assert await lab.deliver(**states) == Delivered()  # type: ignore[arg-type]
    done.set()
    await asyncio.gather(*visitors)
    assert len(statuses) > 100
    assert set(statuses) == {200}


async def test_an_old_process_ends_what_it_had(lab: Lab) -> None:
    await lab.serving(a="Active")
    lab.apps["a"].gate = asyncio.Event()
    request = asyncio.create_task(fetch(lab.port))
    await eventually(lambda: lab.observe_sessions("a", 1))
    assert await lab.deliver(a="Active", b="Active") == Delivered()
    assert (await lab.observe()).old_processes == 1
    lab.apps["a"].gate.set()
    assert await request == (200, "a")
    await eventually(lambda: lab.has_old_processes(0))


async def test_peers_are_probed_and_get_no_request(lab: Lab) -> None:
    async with App("peer", "127.0.0.2", lab.port) as peer:
        await lab.serving(peers=("127.0.0.2", "127.0.0.3"), a="Active")
        await eventually(lambda: lab.sees_peers({"127.0.0.2": True, "127.0.0.3": False}))
        peer.healthy = False
        await eventually(lambda: lab.sees_peers({"127.0.0.2": False, "127.0.0.3": False}))
        await lab.who()
        assert peer.served == 0
        assert peer.checked > 0


async def test_a_get_that_was_cut_off_is_repeated_elsewhere(lab: Lab) -> None:
    await lab.serving(a="Active", b="Active")
    lab.apps["a"].hang_up = True
    assert await lab.who() == {"b"}
    assert lab.apps["a"].served > 0


async def test_a_post_that_was_cut_off_is_not_repeated(lab: Lab) -> None:
    await lab.serving(a="Active", b="Active")
    lab.apps["a"].hang_up = lab.apps["b"].hang_up = True
    status, _ = await fetch(lab.port, method="POST")
    assert status == 502
    assert lab.apps["a"].served + lab.apps["b"].served == 1


async def test_a_post_to_a_server_that_refuses_connections_goes_elsewhere(lab: Lab) -> None:
    await lab.serving(a="Active", b="Active")
    await lab.apps["a"].stop()
    assert {(await fetch(lab.port, method="POST")) for _ in range(6)} == {(200, "b")}


async def test_the_app_learns_the_visitors_address_and_protocol(lab: Lab) -> None:
    await lab.serving(a="Active")
    await lab.who(1)
    headers = {line.lower() for line in lab.apps["a"].headers}
    assert {"x-forwarded-for: 127.0.0.1", "x-forwarded-proto: http"} <= headers


async def test_a_start_that_fails_brings_the_old_file_back(lab: Lab) -> None:
    await lab.serving(a="Active")
    before = await lab.local.read(lab.layout.config)
    await lab.systemctl("stop")
    async with App("other", "127.0.0.1", lab.port):
        refused = await lab.deliver(b="Active")
    assert isinstance(refused, Rejected)
    assert refused.stage == "reload"
    assert "Address already in use" in refused.words
    assert await lab.local.read(lab.layout.config) == before


async def test_a_file_that_was_edited_loaded_and_put_back_is_not_in_force(lab: Lab) -> None:
    await lab.serving(a="Active")
    config = lab.proxy.render(lab.model(a="Active"))
    await lab.local.write(lab.layout.config, config.replace(b"retries 3", b"retries 2"))
    await lab.systemctl("stop")
    await lab.systemctl("start")
    await eventually(lab.answers)
    await asyncio.sleep(5 * CLOCK_TICK)  # what follows a start within its clock's resolution can't be told from it
    await lab.local.write(lab.layout.config, config)
    assert (await lab.observe()).config_sha256 is None
