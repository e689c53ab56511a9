"""SshMachines against a real OpenSSH server on loopback."""

import asyncio
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncssh
import pytest
import pytest_asyncio
from hasite.errors import HostKeyMismatch, Permanent, Transient, Unauthorized, Unreachable
from hasite.machines.base import Target
from hasite.machines.ssh import MAX_OUTPUT, SshMachines

from tests.contract.sshd import Sshd, running_sshd, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the machine's user is root")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """One for all: what a test leaves open there is its own connection's alone."""
    with running_sshd(tmp_path_factory.mktemp("machine") / "root") as sshd:
        yield sshd


@pytest_asyncio.fixture
async def machines(server: Sshd) -> AsyncIterator[SshMachines]:
    made = SshMachines(server.client_key)
    yield made
    await made.close()


def public_line(key: asyncssh.SSHKey) -> str:
    return " ".join(key.export_public_key("openssh").decode().split()[:2])


async def test_a_command_gives_its_status_and_both_outputs(server: Sshd, machines: SshMachines) -> None:
    session = await machines.session(server.target())
    done = await session.run("cat; echo wrong >&2; exit 3", stdin=b"line\n")
    assert (done.status, done.stdout, done.stderr) == (3, "line\n", "wrong\n")
    assert session.host_key == server.host_key


async def test_concurrent_callers_share_one_connection_attempt(server: Sshd, machines: SshMachines) -> None:
    before = set(server.children())
    sessions = await asyncio.gather(*(machines.session(server.target()) for _ in range(20)))
    assert len({id(session) for session in sessions}) == 1
    assert len(set(server.children()) - before) == 1


async def test_a_caller_that_gives_up_does_not_take_the_others_with_it(server: Sshd, machines: SshMachines) -> None:
    first = asyncio.create_task(machines.session(server.target()))
    await asyncio.sleep(0)
    second = asyncio.create_task(machines.session(server.target()))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).alive


async def test_a_machine_without_a_key_of_a_known_type_is_a_mismatch(server: Sshd, machines: SshMachines) -> None:
    ours = public_line(asyncssh.generate_private_key("ecdsa-sha2-nistp256"))
    with pytest.raises(HostKeyMismatch, match=re.escape(server.host_key)):
        await machines.session(server.target(ours))


async def test_any_of_several_known_host_keys_will_do(server: Sshd, machines: SshMachines) -> None:
    other = public_line(asyncssh.generate_private_key("ssh-ed25519"))
    assert (await machines.session(server.target(other, server.host_key))).host_key == server.host_key


async def test_a_refused_client_key_is_unauthorized(server: Sshd) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519").export_private_key("openssh").decode()
    with pytest.raises(Unauthorized):
        await SshMachines(key).session(server.target())


async def test_more_commands_than_the_server_takes_at_once_wait_for_each_other(
    server: Sshd, machines: SshMachines
) -> None:
    session = await machines.session(server.target())
    done = await asyncio.gather(*(session.run(f"sleep 0.05; echo {n}", timeout=60.0) for n in range(25)))
    assert [result.stdout for result in done] == [f"{n}\n" for n in range(25)]


async def test_a_port_that_never_speaks_is_unreachable_after_the_timeout(machines: SshMachines, server: Sshd) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        target = Target("other", "127.0.0.1", (server.host_key,), silent.getsockname()[1])
        with pytest.raises(Unreachable):
            await machines.session(target, timeout=0.3)


async def test_a_connection_that_falls_silent_is_found_by_keepalives(
    server: Sshd, machines: SshMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hasite.machines.ssh.KEEPALIVE_INTERVAL", 0.2)
    before = set(server.children())
    session = await machines.session(server.target())
    (serving,) = set(server.children()) - before
    os.kill(serving, signal.SIGSTOP)
    try:
        await until(lambda: not session.alive, 12.0)
    finally:
        os.kill(serving, signal.SIGKILL)


async def test_a_command_without_end_is_unreachable_and_the_session_lives(server: Sshd, machines: SshMachines) -> None:
    session = await machines.session(server.target())
    with pytest.raises(Unreachable):
        await session.run("sleep 30", timeout=0.2)
    assert (await session.run("echo on")).stdout == "on\n"


@pytest.mark.parametrize("where", ["", " >&2"], ids=["stdout", "stderr"])
async def test_a_command_that_prints_without_end_is_cut_off_and_the_session_lives(
    server: Sshd, machines: SshMachines, where: str
) -> None:
    session = await machines.session(server.target())
    with pytest.raises(Transient, match=f"more than {MAX_OUTPUT} bytes"):
        await session.run(f"exec cat /dev/zero{where}")
    assert len((await session.run(f"head -c {MAX_OUTPUT} /dev/zero")).stdout) == MAX_OUTPUT


async def test_a_machines_words_cannot_move_a_terminal(server: Sshd, machines: SshMachines, tmp_path: Path) -> None:
    session = await machines.session(server.target())
    with pytest.raises(Permanent) as raised:
        await session.write(f"{tmp_path}/no\x1b[2J/file", b"")
    assert "\x1b" not in str(raised.value).replace(f"{tmp_path}/no\x1b[2J/file", "", 1)


async def test_a_file_that_cannot_be_read_is_an_error(server: Sshd, machines: SshMachines, tmp_path: Path) -> None:
    session = await machines.session(server.target())
    with pytest.raises(Permanent, match="Is a directory"):
        await session.read(str(tmp_path))


@pytest.mark.parametrize("name", ["plain", "with blank", "quo'te", 'dou"ble', "$(touch x)", "-rf", "ünï", "a;b"])
async def test_what_was_written_is_read_back_under_any_name(
    server: Sshd, machines: SshMachines, tmp_path: Path, name: str
) -> None:
    session = await machines.session(server.target())
    data = bytes(range(256)) * 500
    await session.write(f"{tmp_path}/{name}", data, 0o640)
    assert await session.read(f"{tmp_path}/{name}") == data
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == [name]


async def test_a_unix_socket_is_asked_to_its_end(server: Sshd, machines: SshMachines, tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"you said " + await reader.readline() + b"x" * 300_000)
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(answer, f"{tmp_path}/s"):
        session = await machines.session(server.target())
        assert await session.unix_request(f"{tmp_path}/s", b"hello\n") == b"you said hello\n" + b"x" * 300_000


async def test_a_unix_socket_that_never_answers_is_unreachable(
    server: Sshd, machines: SshMachines, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{tmp_path}/s")
        silent.listen()
        session = await machines.session(server.target())
        with pytest.raises(Unreachable):
            await session.unix_request(f"{tmp_path}/s", b"hello\n", timeout=0.3)


def test_a_client_key_that_cannot_be_read_is_permanent() -> None:
    with pytest.raises(Permanent, match="cannot be read"):
        SshMachines("not a key")
