"""What proxies, Prometheus and people hear."""

import asyncio
import contextlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hasite.guard.health import Health, Status, metrics, verdicts
from hasite.guard.messages import Beat
from hasite.guard.model import Database, SyncRecord, Vote

PRIMARY = Beat("a", 7, "a", 1.5, "primary", Database("primary", read_only=False), SyncRecord(7, 1, frozenset("ab"), 1))
STANDBY = Beat("b", 7, "a", 0.0, "standby", Database("standby", upstream="a", streaming=True, lag_bytes=12))


def status(beat: Beat, error: str = "") -> Status:
    return Status(beat, Vote(7, "a"), 'shop "x"', "postgresql", "abc", 2, ("b", "operator"), error)


ROWS: dict[str, tuple[Beat, set[str]]] = {
    "a primary with a lease takes reads and writes": (PRIMARY, {"/primary", "/read-write", "/health"}),
    "a primary whose lease is over takes nothing": (replace(PRIMARY, lease_left=0.0), set()),
    "a primary that is being stopped takes nothing": (replace(PRIMARY, role="stopped"), set()),
    "a server that is read-only still is no primary yet": (replace(PRIMARY, database=Database("primary")), set()),
    "a holder whose server still starts is no primary yet": (replace(PRIMARY, database=Database("starting")), set()),
    "a standby that streams takes reads": (STANDBY, {"/replica", "/health"}),
    "a standby that has lost its stream takes nothing": (replace(STANDBY, database=Database("standby")), set()),
    "a witness takes nothing": (replace(STANDBY, database=Database("absent")), set()),
}


@pytest.mark.parametrize(("beat", "good"), ROWS.values(), ids=ROWS)
def test_what_a_proxy_hears(beat: Beat, good: set[str]) -> None:
    assert {path for path, verdict in verdicts(beat).items() if verdict} == good


async def ask(port: int, request: bytes) -> tuple[int, dict[str, str], str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    text = (await reader.read()).decode()
    writer.close()
    head, _, body = text.partition("\r\n\r\n")
    first, *rest = head.split("\r\n")
    return int(first.split(" ")[1]), dict(line.split(": ", 1) for line in rest), body


@pytest.mark.parametrize(
    ("request_line", "code"),
    [
        ("GET /primary HTTP/1.0", 200),
        ("HEAD /primary HTTP/1.1", 200),
        ("OPTIONS /primary HTTP/1.0", 200),
        ("GET /replica HTTP/1.1", 503),
        ("GET /primary?x=1 HTTP/1.1", 200),
        ("GET /metrics HTTP/1.1", 200),
        ("GET / HTTP/1.1", 404),
        ("POST /primary HTTP/1.1", 405),
        ("nonsense", 405),
    ],
)
async def test_a_request_is_answered_and_the_connection_ended(request_line: str, code: int) -> None:
    health = Health(lambda: status(PRIMARY))
    port = await health.start(("127.0.0.1", 0), None)
    got, headers, body = await ask(port, f"{request_line}\r\nHost: x\r\n\r\n".encode())
    assert got == code
    assert headers["Connection"] == "close"
    assert len(body) == (0 if request_line.startswith("HEAD") else int(headers["Content-Length"]))
    await health.close()


async def test_an_answer_takes_less_than_five_milliseconds() -> None:
    health = Health(lambda: status(PRIMARY))
    port = await health.start(("127.0.0.1", 0), None)
    times = []
    for _ in range(40):
        began = time.perf_counter()
        await ask(port, b"GET /primary HTTP/1.0\r\n\r\n")
        times.append(time.perf_counter() - began)
    assert min(times) < 0.005
    await health.close()


async def test_a_request_that_does_not_end_is_hung_up_on() -> None:
    health = Health(lambda: status(PRIMARY))
    port = await health.start(("127.0.0.1", 0), None)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /" + b"x" * 20_000)
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()
    await health.close()


async def test_people_on_the_machine_get_everything_as_json(tmp_path: Path) -> None:
    health = Health(lambda: status(STANDBY, "no room on the disk"))
    path = tmp_path / "run" / "guard.sock"
    await health.start(None, path)
    assert path.stat().st_mode & 0o777 == 0o600
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b"status\n")
    told: dict[str, Any] = json.loads(await reader.read())
    writer.close()
    assert told["beat"]["database"]["upstream"] == "a"
    assert told["error"] == "no room on the disk"
    assert told["verdicts"]["/replica"] is True
    await health.close()


def test_metrics_are_prometheus_text() -> None:
    text = metrics(status(PRIMARY))
    label = 'cluster="shop \\"x\\"",member="a"'
    assert f"hasite_guard_epoch{{{label}}} 7\n" in text
    assert f"hasite_guard_lease_left_seconds{{{label}}} 1.5\n" in text
    assert f'hasite_guard_state{{{label},state="primary",role="primary"}} 1\n' in text
    assert "lag_bytes" not in text
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert len({sample.partition("{")[0] for sample in samples}) == len(samples)
