"""The control plane is a real one: schemas, rights, conflicts, garbage collection; and it ends cleanly.

Needs no root. The first run builds the programs (some ten minutes).
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from e2e.controlplane.build import build
from e2e.controlplane.tools import Tools, tools, tools_in
from e2e.world.cluster import ExistingCluster, KubectlError, NotOurs, run_kubectl, service_account_kubeconfig
from e2e.world.controlplane import ControlPlane, StartError
from e2e.world.processes import start_time

pytestmark = [pytest.mark.timeout(1800), pytest.mark.asyncio(loop_scope="module")]

WIDGETS = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              size: {type: integer}
            x-kubernetes-validations:
            - {rule: "self.size < 10", message: "a widget is smaller than ten"}
"""
WIDGET = '{{"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {{"name": "w"}}, "spec": {{"size": {size}}}}}'


@pytest.fixture(scope="module")
def programs() -> Tools:
    return tools(lambda message: print(message, file=sys.stderr))


@asynccontextmanager
async def running(directory: Path, programs: Tools) -> AsyncIterator[ControlPlane]:
    control_plane = ControlPlane(directory, programs)
    await control_plane.start()
    try:
        yield control_plane
    finally:
        await control_plane.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def control_plane(programs: Tools, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ControlPlane]:
    async with running(tmp_path_factory.mktemp("control-plane"), programs) as started:
        yield started


async def until(condition: Callable[[], object], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (the world outside sets no event)
            await asyncio.sleep(0.05)


async def create(control_plane: ControlPlane, manifest: str) -> dict[str, object]:
    created: dict[str, object] = json.loads(await run_kubectl(control_plane, "create", "-f-", "-ojson", stdin=manifest))
    return created


def config_map(name: str, owner: dict[str, object] | None = None) -> str:
    owners = [owner] if owner else []
    metadata = {"name": name, "ownerReferences": owners}
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})


async def test_server_and_client_are_of_the_same_release(control_plane: ControlPlane) -> None:
    version = json.loads(await run_kubectl(control_plane, "version", "-ojson"))
    assert version["serverVersion"]["gitVersion"].startswith("v1.")
    assert version["clientVersion"]["minor"] == version["serverVersion"]["minor"]


async def test_a_custom_resource_is_held_to_its_rules(control_plane: ControlPlane) -> None:
    await create(control_plane, WIDGETS)
    await run_kubectl(control_plane, "wait", "--for=condition=Established", "crd/widgets.example.com")
    with pytest.raises(KubectlError, match="a widget is smaller than ten"):
        await create(control_plane, WIDGET.format(size=10))
    await create(control_plane, WIDGET.format(size=9))


async def test_what_an_object_owns_is_collected_after_it(control_plane: ControlPlane) -> None:
    owner = await create(control_plane, config_map("owner"))
    metadata = owner["metadata"]
    assert isinstance(metadata, dict)
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": metadata["uid"]}
    await create(control_plane, config_map("owned", reference))
    await run_kubectl(control_plane, "delete", "configmap", "owner")
    await run_kubectl(control_plane, "wait", "--for=delete", "configmap/owned", "--timeout=30s")


async def test_a_namespace_is_emptied_and_ends(control_plane: ControlPlane) -> None:
    await run_kubectl(control_plane, "create", "namespace", "short-lived")
    await run_kubectl(control_plane, "create", "configmap", "inside", "--namespace=short-lived")
    await run_kubectl(control_plane, "delete", "namespace", "short-lived", "--timeout=60s")


async def test_a_user_may_do_what_a_role_grants_and_no_more(control_plane: ControlPlane) -> None:
    operator = ExistingCluster(control_plane.kubeconfig_for("hasite-operator"), control_plane.kubectl[:-1])
    with pytest.raises(KubectlError, match='User "hasite-operator" cannot list'):
        await run_kubectl(operator, "get", "configmaps")
    await run_kubectl(control_plane, "create", "role", "look", "--verb=list", "--resource=configmaps")
    await run_kubectl(control_plane, "create", "rolebinding", "look", "--role=look", "--user=hasite-operator")
    await run_kubectl(operator, "get", "configmaps")
    with pytest.raises(KubectlError, match="cannot list"):
        await run_kubectl(operator, "get", "secrets")


async def test_a_service_account_logs_in_with_a_token(control_plane: ControlPlane, tmp_path: Path) -> None:
    path = await service_account_kubeconfig(control_plane, "default", "default", tmp_path / "default.kubeconfig")
    account = ExistingCluster(path, control_plane.kubectl[:-1])
    identity = await run_kubectl(account, "auth", "whoami", "-ojsonpath={.status.userInfo.username}")
    assert identity == "system:serviceaccount:default:default"


async def test_an_existing_cluster_is_used_and_left_running(control_plane: ControlPlane) -> None:
    existing = ExistingCluster(control_plane.kubeconfig, control_plane.kubectl[:-1])
    await existing.start()
    with pytest.raises(NotOurs):
        await existing.restart_apiserver()
    await existing.stop()
    assert all(control_plane.status().values())


async def test_a_user_who_comes_too_late_is_refused(control_plane: ControlPlane) -> None:
    with pytest.raises(ValueError, match="declared before"):
        control_plane.kubeconfig_for("latecomer")


async def test_nothing_listens_or_talks_beyond_loopback(control_plane: ControlPlane) -> None:
    process = await asyncio.create_subprocess_exec("ss", "-tuanpH", stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    pids = [f"pid={pid}," for pid in control_plane.status().values()]
    sockets = [line.split() for line in output.decode().splitlines() if any(pid in line for pid in pids)]
    assert sockets
    addresses = {address.rpartition(":")[0] for fields in sockets for address in fields[4:6]}
    assert addresses <= {"127.0.0.1", "0.0.0.0"}
    assert all(fields[4].startswith("127.0.0.1:") for fields in sockets)


async def test_objects_and_kubeconfigs_outlive_a_restart_of_the_api_server(control_plane: ControlPlane) -> None:
    await create(control_plane, config_map("kept"))
    before = control_plane.status()
    await control_plane.restart_apiserver(down_for=0.2)
    after = control_plane.status()
    assert after["kube-apiserver"] != before["kube-apiserver"]
    assert after["etcd"] == before["etcd"]
    await run_kubectl(control_plane, "get", "configmap", "kept")


async def test_an_open_watch_does_not_hold_up_a_restart_of_the_api_server(control_plane: ControlPlane) -> None:
    await create(control_plane, config_map("watched"))
    watcher = await asyncio.create_subprocess_exec(
        *control_plane.kubectl, "get", "configmaps", "--watch", stdout=asyncio.subprocess.PIPE
    )
    assert watcher.stdout is not None
    async with asyncio.timeout(30):
        await watcher.stdout.readline()
        await control_plane.restart_apiserver()
        await watcher.wait()


async def test_a_second_start_ends_the_crashed_run_and_keeps_its_objects(programs: Tools, tmp_path: Path) -> None:
    crashed = ControlPlane(tmp_path, programs)
    await crashed.start(detach=True)
    await create(crashed, config_map("kept"))
    before = crashed.status()
    async with running(tmp_path, programs) as again:
        assert again.url == crashed.url
        assert all(pid not in before.values() for pid in again.status().values())
        await run_kubectl(again, "get", "configmap", "kept")
    assert not any(pid is not None and start_time(pid) for pid in before.values())


async def test_two_control_planes_live_side_by_side(
    control_plane: ControlPlane, programs: Tools, tmp_path: Path
) -> None:
    async with running(tmp_path, programs) as other:
        assert other.url != control_plane.url
        await run_kubectl(other, "get", "namespaces")


async def test_programs_die_with_the_process_that_started_them(programs: Tools, tmp_path: Path) -> None:
    script = (
        "import asyncio, sys; from pathlib import Path; from e2e.controlplane.tools import Tools;"
        "from e2e.world.controlplane import ControlPlane\n"
        "async def main():\n"
        f"    await ControlPlane(Path({str(tmp_path)!r}), {programs!r}).start()\n"
        "    print('up', flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    starter = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, env=environment, stdout=asyncio.subprocess.PIPE
    )
    assert starter.stdout is not None
    assert await starter.stdout.readline() == b"up\n"
    control_plane = ControlPlane(tmp_path, programs)
    assert all(control_plane.status().values())
    starter.send_signal(signal.SIGKILL)
    await starter.wait()
    await until(lambda: not any(control_plane.status().values()))


async def test_a_program_that_cannot_start_says_why_and_leaves_nothing_running(
    programs: Tools, control_plane: ControlPlane, tmp_path: Path
) -> None:
    taken = int(control_plane.url.rpartition(":")[2])
    unlucky = ControlPlane(tmp_path, programs, port=taken)
    with pytest.raises(StartError, match="address already in use"):
        await unlucky.start()
    assert not any(unlucky.status().values())


async def test_programs_laid_out_as_kubebuilder_assets_work_the_same(programs: Tools, tmp_path: Path) -> None:
    if os.environ.get("KUBEBUILDER_ASSETS"):
        pytest.skip("the other tests have shown it already")
    assets = tmp_path / "assets"
    assets.mkdir()
    for name in ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl"):
        (assets / name).symlink_to(build(print))
    async with running(tmp_path / "data", tools_in(assets)) as started:
        await run_kubectl(started, "get", "namespaces")
