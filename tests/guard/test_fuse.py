"""The fuse, the lease file and control groups, with real processes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hasite.guard import cgroup, lease
from hasite.guard.service import SystemdService

from tests.guard import groups
from tests.guard.waiting import wait

needs_groups = pytest.mark.skipif(not groups.possible(), reason="no control group can be made here")
OPERATOR = Path(lease.__file__).parents[2]
FUSE = (
    "import sys; sys.path.insert(0, sys.argv[1]); from hasite.guard import fuse; "
    "fuse.main(sys.argv[2], tuple(sys.argv[3:]), '')"
)


@pytest.fixture
def group() -> Iterator[str]:
    with groups.group() as path:
        yield path


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "lease")


def server(group: str, script: str = "exec sleep 300") -> subprocess.Popen[bytes]:
    """Processes in the group, which are there when this returns, or already dead."""
    process = subprocess.Popen(["sh", "-c", f"echo $$ > {group}/cgroup.procs; {script}"])
    wait(lambda: cgroup.pids((group,)) or process.poll() is not None)
    return process


@pytest.fixture
def fuse(path: str, group: str, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A running fuse that has said that it is ready."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(5)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        command = [sys.executable, "-I", "-S", "-c", FUSE, str(OPERATOR), path, group]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
        assert notify.recv(100) == b"READY=1"
        yield process
        process.kill()
        process.wait()


def soon(seconds: float) -> int:
    return lease.clock_ns() + int(seconds * 1e9)


def test_a_deadline_is_read_as_it_was_written(path: str) -> None:
    for deadline in (0, 1, 1 << 62, lease.NEVER):
        lease.write(path, deadline)
        assert lease.read(path) == deadline


@pytest.mark.parametrize(
    "text", [b"", b"\x01" * 15, b"\x01" * 16, b"\x01" * 17], ids=["empty", "short", "torn", "long"]
)
def test_a_lease_that_is_not_whole_permits_nothing(path: str, text: bytes) -> None:
    Path(path).write_bytes(text)
    assert lease.read(path) == 0


def test_no_lease_permits_nothing(path: str) -> None:
    assert lease.read(path) == 0
    assert lease.read("/") == 0


@pytest.mark.parametrize(
    ("own", "folders"),
    {
        "0::/init.scope\n": ["/r/system.slice/x.service", "/r/unified/system.slice/x.service"],
        "4:memory:/a\n1:name=systemd:/\n0::/\n": [
            "/r/systemd/system.slice/x.service",
            "/r/system.slice/x.service",
            "/r/unified/system.slice/x.service",
        ],
        "1:name=systemd:/payload/init.scope\n": ["/r/systemd/payload/system.slice/x.service"],
    }.items(),
    ids=["unified", "hybrid", "a container without a namespace for groups"],
)
def test_where_systemd_keeps_a_units_processes(tmp_path: Path, own: str, folders: list[str]) -> None:
    (tmp_path / "own").write_text(own)
    assert list(cgroup.folders("x.service", "/r", str(tmp_path / "own"))) == folders


@needs_groups
def test_a_group_is_killed_with_what_it_forks_and_what_is_below_it(group: str) -> None:
    os.mkdir(f"{group}/below")
    fork = "while :; do sleep 0.01 & done"
    parents = [server(group, fork), server(f"{group}/below", "exec sleep 300")]
    assert cgroup.kill((group,))
    assert cgroup.pids((group,)) == ()
    for parent in parents:
        assert parent.wait(5) == -signal.SIGKILL


@needs_groups
def test_a_server_is_killed_when_its_lease_is_over(path: str, group: str, fuse: subprocess.Popen[bytes]) -> None:
    deadline = soon(0.4)
    lease.write(path, deadline)
    process = server(group)
    assert process.wait(5) == -signal.SIGKILL
    late = (lease.clock_ns() - deadline) / 1e9
    assert 0 <= late < 0.3


@needs_groups
def test_a_lease_that_is_renewed_keeps_the_server(path: str, group: str, fuse: subprocess.Popen[bytes]) -> None:
    lease.write(path, soon(0.5))
    process = server(group)
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        lease.write(path, soon(0.5))
        assert process.poll() is None
        time.sleep(0.02)
    assert process.wait(5) == -signal.SIGKILL


@needs_groups
def test_a_standby_needs_no_lease(path: str, group: str, fuse: subprocess.Popen[bytes]) -> None:
    lease.write(path, lease.NEVER)
    process = server(group)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.4)


@needs_groups
@pytest.mark.parametrize("harm", ["vanishes", "is torn", "is emptied"])
def test_a_lease_that_can_not_be_read_is_over(path: str, group: str, fuse: subprocess.Popen[bytes], harm: str) -> None:
    lease.write(path, soon(60))
    process = server(group)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    match harm:
        case "vanishes":
            os.unlink(path)
        case "is torn":
            Path(path).write_bytes(soon(60).to_bytes(8, "little") * 2)
        case "is emptied":
            os.truncate(path, 0)
    assert process.wait(2) == -signal.SIGKILL


@needs_groups
def test_a_server_that_comes_up_after_its_lease_is_killed_as_well(
    path: str, group: str, fuse: subprocess.Popen[bytes]
) -> None:
    lease.write(path, soon(-1))
    for _ in range(3):
        assert server(group).wait(2) == -signal.SIGKILL


@needs_groups
def test_the_fuse_takes_little(path: str, group: str, fuse: subprocess.Popen[bytes]) -> None:
    lease.write(path, lease.NEVER)
    before = _ticks(fuse.pid)
    time.sleep(1.0)
    assert (_ticks(fuse.pid) - before) / os.sysconf("SC_CLK_TCK") < 0.05
    with open(f"/proc/{fuse.pid}/status") as status:
        resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
    assert resident < 16 * 1024


def _ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as stat:
        values = stat.read().rpartition(")")[2].split()
    return int(values[11]) + int(values[12])


EXHAUSTED = """
import os, resource, sys
sys.path.insert(0, sys.argv[1])
from hasite.guard import cgroup, lease
group = (sys.argv[3],)
file = lease.Writer(sys.argv[2])
file.write(1)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
try:
    while True:
        os.open("/dev/null", os.O_RDONLY)
except OSError:
    pass
try:
    print(cgroup.pids(group))
except OSError as error:
    print(error.strerror)
print(cgroup.runs(group), cgroup.kill(group, patience=0.0))
file.write(2)
"""


@needs_groups
def test_without_descriptors_a_server_is_taken_to_run_and_the_lease_can_be_written(path: str, group: str) -> None:
    running = server(group)
    command = [sys.executable, "-c", EXHAUSTED, str(OPERATOR), path, group]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said == ["Too many open files", "True False"]
    assert lease.read(path) == 2
    running.kill()


def test_a_lease_file_that_was_replaced_is_opened_anew(path: str) -> None:
    file = lease.Writer(path)
    file.write(1)
    os.unlink(path)
    file.write(2)
    assert lease.read(path) == 2
    file.close()


def test_what_hangs_in_the_kernel_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    dies = False

    def kill(_: tuple[str, ...], patience: float) -> bool:
        waited.append(patience)
        return dies

    monkeypatch.setattr(cgroup, "kill", kill)
    service = SystemdService()
    for dies in (False, False, True, True):  # noqa: B007
        service.kill()
    assert waited == [0.4, 0.0, 0.0, 0.4]
