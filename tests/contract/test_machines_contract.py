"""What every ``Machines`` does: SSH to a real server, and the fake that the fast tests trust."""

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import pytest
import pytest_asyncio
from hasite.errors import HostKeyMismatch, Permanent, Transient, Unreachable
from hasite.machines.base import Machines, Target
from hasite.machines.ssh import SshMachines

from tests.contract.sshd import Sshd, free_port, running_sshd
from tests.fakes.machines import FakeMachine, FakeMachines, FakeWorld

FOREIGN = " ".join(asyncssh.generate_private_key("ssh-ed25519").export_public_key("openssh").decode().split()[:2])


@dataclass
class Bench:
    """One machine behind one ``Machines``; ``folder`` is on its small disk."""

    machines: Machines
    target: Target
    nowhere: Target
    folder: str
    cut_connection: Callable[[], None]
    fill_disk: Callable[[], None]


@contextmanager
def ssh_bench(root: Path) -> Iterator[Bench]:
    if os.geteuid() != 0:
        pytest.skip("the machine's user is root")
    small = root / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], check=True)
    try:
        with running_sshd(root / "machine") as sshd:
            yield bench_of(sshd, small)
    finally:
        subprocess.run(["umount", str(small)], check=True)


def bench_of(sshd: Sshd, small: Path) -> Bench:
    nowhere = Target("nowhere", "127.0.0.1", (sshd.host_key,), free_port())
    return Bench(
        SshMachines(sshd.client_key),
        sshd.target(),
        nowhere,
        str(small),
        lambda: os.kill(sshd.children()[0], signal.SIGKILL),
        lambda: fill(small / "ballast"),
    )


def fill(path: Path) -> None:
    subprocess.run(["dd", "if=/dev/zero", f"of={path}"], stderr=subprocess.DEVNULL, check=False)


@contextmanager
def fake_bench() -> Iterator[Bench]:
    world = FakeWorld()
    machine = world.add(FakeMachine("machine", "192.0.2.1"))
    target = Target("machine", "192.0.2.1", (machine.host_key,))
    nowhere = Target("nowhere", "192.0.2.99", (machine.host_key,))
    yield Bench(
        FakeMachines(world),
        target,
        nowhere,
        "/data",
        machine.restart,
        lambda: setattr(machine, "disk_full", True),
    )


@pytest_asyncio.fixture(params=["ssh", "fake"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    with ssh_bench(tmp_path) if request.param == "ssh" else fake_bench() as made:
        yield made
        await made.machines.close()


async def test_a_session_is_kept_and_shows_the_machines_key(bench: Bench) -> None:
    session = await bench.machines.session(bench.target)
    assert session.host_key == bench.target.host_keys[0]
    assert await bench.machines.session(bench.target) is session


async def test_a_command_is_run(bench: Bench) -> None:
    assert (await (await bench.machines.session(bench.target)).run("echo here")).stdout == "here\n"


async def test_a_command_that_is_not_there_is_a_result(bench: Bench) -> None:
    done = await (await bench.machines.session(bench.target)).run("no-such-command")
    assert done.status == 127
    assert "not found" in done.stderr


async def test_a_foreign_key_is_refused_and_the_shown_one_named(bench: Bench) -> None:
    target = Target(bench.target.name, bench.target.address, (FOREIGN,), bench.target.port)
    with pytest.raises(HostKeyMismatch) as raised:
        await bench.machines.session(target)
    assert bench.target.host_keys[0] in str(raised.value)


async def test_a_kept_session_whose_key_is_not_acceptable_any_more_is_not_used(bench: Bench) -> None:
    await bench.machines.session(bench.target)
    target = Target(bench.target.name, bench.target.address, (FOREIGN,), bench.target.port)
    with pytest.raises(HostKeyMismatch):
        await bench.machines.session(target)


async def test_without_a_known_key_nothing_is_connected(bench: Bench) -> None:
    with pytest.raises(Permanent) as raised:
        await bench.machines.session(Target("machine", bench.target.address, (), bench.target.port))
    assert raised.value.reason == "NoHostKey"


async def test_where_nothing_answers_is_unreachable(bench: Bench) -> None:
    with pytest.raises(Unreachable):
        await bench.machines.session(bench.nowhere)


async def test_a_broken_session_says_so_and_is_replaced(bench: Bench) -> None:
    session = await bench.machines.session(bench.target)
    bench.cut_connection()
    with pytest.raises(Unreachable):
        await session.run("echo lost", timeout=5.0)
    assert (await (await bench.machines.session(bench.target)).run("echo back")).stdout == "back\n"


async def test_a_dropped_machine_gets_a_new_session(bench: Bench) -> None:
    session = await bench.machines.session(bench.target)
    await bench.machines.drop(bench.target.name)
    assert await bench.machines.session(bench.target) is not session


async def test_a_file_is_read_as_it_was_written_and_is_none_before(bench: Bench) -> None:
    session = await bench.machines.session(bench.target)
    assert await session.read(f"{bench.folder}/file") is None
    await session.write(f"{bench.folder}/file", b"\0data\n")
    assert await session.read(f"{bench.folder}/file") == b"\0data\n"


async def test_a_full_disk_leaves_the_old_file_and_says_so(bench: Bench) -> None:
    session = await bench.machines.session(bench.target)
    await session.write(f"{bench.folder}/file", b"old")
    bench.fill_disk()
    with pytest.raises(Permanent, match="No space left on device"):
        await session.write(f"{bench.folder}/file", b"new" * 10_000)
    assert await session.read(f"{bench.folder}/file") == b"old"


async def test_a_socket_where_nobody_listens_is_transient_but_not_unreachable(bench: Bench) -> None:
    session = await bench.machines.session(bench.target)
    with pytest.raises(Transient) as raised:
        await session.unix_request(f"{bench.folder}/absent", b"")
    assert not isinstance(raised.value, Unreachable)
