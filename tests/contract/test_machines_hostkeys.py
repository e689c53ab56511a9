"""The bootstrap's host key gives way to one that was made on the machine: on a real sshd."""

import os
import pickle
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from hasite.errors import HostKeyMismatch, Permanent
from hasite.machines.base import Result
from hasite.machines.bootstrap import Bootstrap, HostKey, generate_host_key, render_user_data
from hasite.machines.hostkeys import activate_host_key, stage_host_key
from hasite.machines.ssh import SshMachines

from tests.contract.local_machine import LocalSession
from tests.contract.sshd import Sshd, running_sshd

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the machine's user is root")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sshd]:
    with running_sshd(tmp_path / "machine") as sshd:
        yield sshd


@pytest.fixture
def local(server: Sshd, tmp_path: Path) -> LocalSession:
    """The machine's shell; ``systemctl reload ssh`` tells its sshd to read its configuration again."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "systemctl").write_text(f'#!/bin/sh\n[ "$*" = "reload ssh" ] && kill -HUP $(cat {server.root}/sshd.pid)\n')
    (tools / "systemctl").chmod(0o755)
    return LocalSession(tools)


@pytest_asyncio.fixture
async def machines(server: Sshd) -> AsyncIterator[SshMachines]:
    made = SshMachines(server.client_key)
    yield made
    await made.close()


async def test_staging_twice_gives_the_same_key(server: Sshd, local: LocalSession) -> None:
    staged = await stage_host_key(local, str(server.root))
    assert staged.startswith("ssh-ed25519 ")
    assert await stage_host_key(local, str(server.root)) == staged
    assert staged != server.host_key


async def test_what_an_interrupted_staging_left_behind_does_no_harm(server: Sshd, local: LocalSession) -> None:
    (server.root / "etc/ssh/hasite_host_ed25519_key.new").write_text("half a key")
    (server.root / "etc/ssh/hasite_host_ed25519_key").write_text("")
    assert (await stage_host_key(local, str(server.root))).startswith("ssh-ed25519 ")


@pytest.mark.parametrize("shown", ["", "ssh-ed25519 AAAA", f"ssh-ed25519 {'A' * 100_000}", "\x1b[2Jnonsense"])
async def test_what_is_no_key_is_not_taken_for_one(shown: str, tmp_path: Path) -> None:
    class Lying(LocalSession):
        async def run(self, command: str, *, stdin: bytes = b"", timeout: float = 10.0) -> Result:  # noqa: ASYNC109
            return Result(0, shown, "")

    with pytest.raises(Permanent) as raised:
        await stage_host_key(Lying(tmp_path))
    assert raised.value.reason == "HostKeyFailed"
    assert str(raised.value).isprintable()


async def test_a_staged_key_is_not_shown_before_it_is_activated(
    server: Sshd, local: LocalSession, machines: SshMachines
) -> None:
    staged = await stage_host_key(local, str(server.root))
    session = await machines.session(server.target(staged, server.host_key))
    assert session.host_key == server.host_key


async def test_an_activated_key_is_the_only_one_and_open_connections_live_on(
    server: Sshd, local: LocalSession, machines: SshMachines
) -> None:
    session = await machines.session(server.target())
    staged = await stage_host_key(local, str(server.root))
    await activate_host_key(local, str(server.root))
    assert (await session.run("echo still here")).stdout == "still here\n"
    assert (await machines.session(server.target(staged, name="again"))).host_key == staged
    with pytest.raises(HostKeyMismatch):
        await machines.session(server.target(name="old"))
    assert sorted(path.name for path in (server.root / "etc/ssh").glob("*_key*")) == ["hasite_host_ed25519_key"]


async def test_activating_again_changes_nothing(server: Sshd, local: LocalSession, machines: SshMachines) -> None:
    staged = await stage_host_key(local, str(server.root))
    await activate_host_key(local, str(server.root))
    before = server.config.read_text()
    await activate_host_key(local, str(server.root))
    assert server.config.read_text() == before
    assert (await machines.session(server.target(staged))).host_key == staged


async def test_a_main_configuration_that_includes_nothing_is_told_to(
    server: Sshd, local: LocalSession, machines: SshMachines
) -> None:
    server.config.write_text("\n".join(server.config.read_text().splitlines()[1:]))
    staged = await stage_host_key(local, str(server.root))
    await activate_host_key(local, str(server.root))
    assert (await machines.session(server.target(staged))).host_key == staged


async def test_a_configuration_that_sshd_refuses_is_taken_back(
    server: Sshd, local: LocalSession, machines: SshMachines
) -> None:
    await stage_host_key(local, str(server.root))
    server.config.write_text(server.config.read_text() + "Nonsense yes\n")
    with pytest.raises(Permanent, match="Nonsense"):
        await activate_host_key(local, str(server.root))
    assert os.listdir(server.root / "etc/ssh/sshd_config.d") == []
    assert (await machines.session(server.target())).host_key == server.host_key


async def test_nothing_is_activated_that_was_not_staged(server: Sshd, local: LocalSession) -> None:
    with pytest.raises(Permanent, match="is not there"):
        await activate_host_key(local, str(server.root))


def caches(root: Path, key: HostKey) -> dict[str, bytes]:
    """Cloud-init's files as 22.4 and 25.1 leave them."""
    text = render_user_data(Bootstrap("shop-1", key, (), "#!/bin/sh\necho theirs\n"))
    dumped = key.private_openssh.replace("\n", "\n\n    ")
    files = {
        "var/lib/cloud/instances/1/user-data.txt": text.encode(),
        "var/lib/cloud/instances/1/user-data.txt.i": text.encode(),
        "var/lib/cloud/instances/1/cloud-config.txt": f"ssh_keys:\n    ed25519_private: '{dumped}'\n".encode(),
        "var/lib/cloud/instances/1/obj.pkl": pickle.dumps({"userdata_raw": text}),
        "var/lib/cloud/seed/nocloud/user-data": text.encode(),
        "run/cloud-init/combined-cloud-config.json": b'{"ed25519_private": "%s"}'
        % key.private_openssh.replace("\n", "\\n").encode(),
    }
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return files


async def test_no_secret_stays_in_cloud_inits_caches(server: Sshd, local: LocalSession) -> None:
    key = generate_host_key()
    files = caches(server.root, key)
    await stage_host_key(local, str(server.root))
    await activate_host_key(local, str(server.root))
    secrets = [line.encode() for line in key.private_openssh.splitlines()[1:-1]]
    for name, before in files.items():
        after = (server.root / name).read_bytes()
        assert not [secret for secret in secrets if secret in after], name
        assert len(after) == len(before), name
        assert key.public.encode() in after or key.public.encode() not in before, name
    raw = pickle.loads((server.root / "var/lib/cloud/instances/1/obj.pkl").read_bytes())["userdata_raw"]
    assert "echo theirs" in raw


async def test_an_sshd_that_restarts_shows_the_new_key(
    server: Sshd, local: LocalSession, machines: SshMachines
) -> None:
    staged = await stage_host_key(local, str(server.root))
    await activate_host_key(local, str(server.root))
    server.stop()
    server.start()
    assert (await machines.session(server.target(staged))).host_key == staged
