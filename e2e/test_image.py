"""The container image: built from the Dockerfile by a real builder, and run as the pod of the manifests runs it.

Needs root, and pip's package index.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.container import ROOT, Image, built_image
from e2e.operator_cluster import NAMESPACE
from e2e.world.controlplane import ControlPlane, tools

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes a root tree and mounts: needs root"),
]

POD = "hasite-operator-0"
RESIDENT = 150
"""MiB that the operator may hold when it has started: the container's limit leaves room above it."""

SSH = """
import asyncio, asyncssh
from hasite.machines.base import Target
from hasite.machines.ssh import SshMachines, public_key_line

class Server(asyncssh.SSHServer):
    def begin_auth(self, username): return True
    def public_key_auth_supported(self): return True
    def validate_public_key(self, username, key): return True

def serve(process):
    process.stdout.write(process.command)
    process.exit(0)

async def main():
    host, client = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    server = await asyncssh.listen(
        "127.0.0.1", 0, server_factory=Server, server_host_keys=[host], process_factory=serve
    )
    machines = SshMachines(client.export_private_key().decode())
    target = Target("machine", "127.0.0.1", (public_key_line(host),), server.get_port())
    print((await (await machines.session(target)).run("it answers")).stdout)

asyncio.run(main())
"""


def say(message: str) -> None:
    print(message, file=sys.stderr)


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    with built_image(say) as image:
        yield image


@pytest.fixture
def account(tmp_path: Path) -> Path:
    """An empty service account."""
    (tmp_path / "account").mkdir()
    return tmp_path / "account"


@pytest.fixture(scope="module")
def pod() -> dict[str, Any]:
    documents = yaml.safe_load_all((ROOT / "manifests/deployment.yaml").read_text())
    deployment = next(each for each in documents if each["kind"] == "Deployment")
    return dict(deployment["spec"]["template"]["spec"])


def packages(image: Image) -> Path:
    return next(image.tree.glob("opt/hasite/lib/python3.*/site-packages"))


def distributions(image: Image) -> dict[str, str]:
    names = [each.name.removesuffix(".dist-info") for each in packages(image).glob("*.dist-info")]
    return {name.lower().replace("_", "-"): version for name, _, version in (each.rpartition("-") for each in names)}


def run(image: Image, account: Path, *argv: str, stdin: str = "") -> str:
    done = subprocess.run(image.pod(argv, {}, account), input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_image_and_the_manifests_name_the_same_user(image: Image, pod: dict[str, Any]) -> None:
    context = pod["securityContext"]
    assert image.user == f"{context['runAsUser']}:{context['runAsGroup']}"


def test_every_file_of_the_package_is_in_the_image(image: Image) -> None:
    def files(folder: Path) -> dict[str, bytes]:
        found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {str(path.relative_to(folder)): path.read_bytes() for path in found}

    assert files(packages(image) / "hasite") == files(image.source / "operator/hasite")


def test_every_library_has_the_tested_version(image: Image) -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    tested = dict(re.split(r"==", line.partition(" ;")[0]) for line in lines)
    found = distributions(image)
    del found["hasite-operator"]
    assert {name: tested.get(name) for name in found} == found


def test_nothing_of_the_build_is_in_the_image(image: Image) -> None:
    assert not {"pip", "setuptools", "wheel", "hatchling", "uv", "pytest"} & set(distributions(image))
    for path in ("src", "root/.cache", "etc/pip.conf"):
        assert not (image.tree / path).exists(), path


def test_the_bytecode_that_is_run_is_in_the_image_and_no_other(image: Image) -> None:
    """Without it the operator takes 400 MiB to start; Python must take it whatever time the source file has."""
    assert "PYTHONOPTIMIZE=2" in image.environment
    compiled = {path for path in (image.tree / "opt/hasite").rglob("*.pyc")}
    wanted = {
        path.parent / "__pycache__" / f"{path.stem}.cpython-313.opt-2.pyc" for path in packages(image).rglob("*.py")
    }
    assert compiled == wanted
    unchecked = (1).to_bytes(4, "little")
    assert {path.read_bytes()[4:8] for path in compiled} == {unchecked}


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("hasite-operator", "--help"), "run the operator"),
        (("hasite-operator", "run", "--help"), "--watch-namespaces"),
        (("kubectl-hasite", "--help"), "kubectl hasite"),
    ],
)
def test_the_commands_answer(image: Image, account: Path, argv: tuple[str, ...], says: str) -> None:
    assert says in run(image, account, *argv)


def test_its_root_can_not_be_written(image: Image, account: Path) -> None:
    script = (
        "import os; print(os.getuid(), [path for path in ('/', '/opt/hasite', '/run') if os.access(path, os.W_OK)])"
    )
    assert run(image, account, "python", "-c", script) == "65532 []\n"


def test_a_machine_is_reached_over_ssh_by_a_user_without_a_name(image: Image, account: Path) -> None:
    assert run(image, account, "python", "-", stdin=SSH) == "it answers\n"


def test_the_operator_becomes_ready_as_the_pod_of_the_manifests(
    image: Image, pod: dict[str, Any], account: Path, installed: ControlPlane
) -> None:
    (container,) = pod["containers"]
    service_account(installed, account, pod["serviceAccountName"])
    port = free_port()
    environment = {
        **dict(setting(each) for each in container["env"]),
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT": installed.url.rpartition(":")[2],
        "HASITE_LISTEN": f"127.0.0.1:{port}",
    }
    command = image.pod([*image.entrypoint, *container["args"]], environment, account)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            until(lambda: answer(port, "/readyz") == 200, process)
            until(lambda: "hasite_leader 1.0" in page(port, "/metrics"), process)
            assert answer(port, "/healthz") == 200
            assert resident_mib(process.pid) < RESIDENT
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with the manifests applied."""
    plane = ControlPlane(tmp_path_factory.mktemp("controlplane"), tools(say))
    asyncio.run(plane.start())
    kubectl(plane, "apply", "--server-side", "-k", str(ROOT / "manifests"))
    yield plane
    asyncio.run(plane.stop())


def kubectl(plane: ControlPlane, *arguments: str) -> str:
    done = subprocess.run([*plane.kubectl, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def service_account(plane: ControlPlane, folder: Path, name: str) -> None:
    """What kubelet would put into the pod."""
    view = json.loads(kubectl(plane, "config", "view", "-o", "json"))
    (folder / "token").write_text(kubectl(plane, "create", "token", name, "-n", NAMESPACE).strip())
    shutil.copy(view["clusters"][0]["cluster"]["certificate-authority"], folder / "ca.crt")
    (folder / "namespace").write_text(NAMESPACE)


def setting(entry: dict[str, Any]) -> tuple[str, str]:
    """A variable of the pod, as kubelet would fill it in."""
    if "value" in entry:
        return entry["name"], entry["value"]
    fields = {"metadata.namespace": NAMESPACE, "metadata.name": POD}
    return entry["name"], fields[entry["valueFrom"]["fieldRef"]["fieldPath"]]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def until(condition: Callable[[], object], process: "subprocess.Popen[str]", seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"it did not happen; exit status {process.poll()}:\n{process.communicate()[0]}")
        time.sleep(0.05)


def answer(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def page(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
        return str(response.read().decode())


def resident_mib(pid: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024
