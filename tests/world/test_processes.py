"""Programs of the local world end when they should, and nothing else ends with them."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.world import processes as module
from e2e.world.processes import Processes

REPOSITORY = Path(__file__).parents[2]
STUBBORN = (
    "import signal,sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
)


def sleeper(directory: Path) -> list[str]:
    """A command that runs for long and names the directory."""
    return [sys.executable, "-c", "import signal; print('ready', flush=True); signal.pause()", str(directory)]


def record(directory: Path, pid: int, start_time: int | None) -> None:
    content = {"one": {"pid": pid, "start_time": start_time}}
    (directory / "processes.json").write_text(json.dumps(content))


@pytest.fixture
def stranger() -> Iterator[Callable[[list[str]], subprocess.Popen[bytes]]]:
    """Starts programs that the local world knows nothing of."""
    started: list[subprocess.Popen[bytes]] = []

    def start(command: list[str]) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(command))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (the world outside sets no event)
            await asyncio.sleep(0.01)


async def test_a_started_program_runs_until_it_is_stopped(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    processes.start("one", sleeper(tmp_path), detach=False)
    assert processes.running("one")
    await processes.stop("one")
    assert not processes.running("one")


async def test_a_program_that_ignores_the_request_to_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STOP_TIMEOUT", 0.2)
    processes = Processes(tmp_path)
    processes.start("one", [sys.executable, "-c", STUBBORN, str(tmp_path)], detach=False)
    await until(lambda: "ready" in processes.log_tail("one"))
    await processes.stop("one")
    assert not processes.running("one")


async def test_a_program_that_ended_by_itself_is_not_running(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    processes.start("one", ["true", str(tmp_path)], detach=False)
    await until(lambda: not processes.running("one"))


async def test_the_next_run_stops_what_a_crashed_one_left(tmp_path: Path) -> None:
    Processes(tmp_path).start("one", sleeper(tmp_path), detach=True)
    later = Processes(tmp_path)
    assert later.running("one")
    await later.stop("one")
    assert not later.running("one")


async def test_a_process_that_got_the_recorded_pid_later_is_left_alone(
    tmp_path: Path, stranger: Callable[[list[str]], subprocess.Popen[bytes]]
) -> None:
    process = stranger(sleeper(tmp_path))
    record(tmp_path, process.pid, start_time=1)
    await Processes(tmp_path).stop("one")
    assert process.poll() is None


async def test_a_process_that_does_not_name_the_directory_is_left_alone(
    tmp_path: Path, stranger: Callable[[list[str]], subprocess.Popen[bytes]]
) -> None:
    process = stranger(["sleep", "60"])
    record(tmp_path, process.pid, module.start_time(process.pid))
    await Processes(tmp_path).stop("one")
    assert process.poll() is None


@pytest.mark.parametrize(("detach", "survives"), [(False, False), (True, True)])
async def test_only_a_detached_program_outlives_its_starter(tmp_path: Path, detach: bool, survives: bool) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from e2e.world.processes import Processes;"
        f"Processes(Path({str(tmp_path)!r})).start('one', {sleeper(tmp_path)!r}, detach={detach});"
        "print('started', flush=True); signal.pause()"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    processes = Processes(tmp_path)
    starter = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, env=environment, stdout=asyncio.subprocess.PIPE
    )
    assert starter.stdout is not None
    await starter.stdout.readline()
    await until(lambda: "ready" in processes.log_tail("one"))
    starter.kill()
    await starter.wait()
    if survives:
        assert processes.running("one")
    else:
        await until(lambda: not processes.running("one"))
    await processes.stop("one")
