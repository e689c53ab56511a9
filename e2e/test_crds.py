"""The custom resources on a real API server: what it takes, what it refuses and in which words, what it fills in.

Needs no root.
"""

import asyncio
import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import config
from kubernetes.client import ApiException, ApiextensionsV1Api, CoreV1Api, CustomObjectsApi

from e2e.world.controlplane import ControlPlane, tools
from tests.api.case import GONE, Case
from tests.api.cases import BASE, TABLE, manifest, spec_with, titles
from tests.api.nasty import STRINGS, injections
from tools.crds import KINDS

pytestmark = pytest.mark.timeout(1800)

ROOT = Path(__file__).resolve().parent.parent
PLURALS = {kind.KIND: kind.PLURAL for kind in KINDS}
AT_ONCE = [(kind, case) for kind, case in TABLE if case.before is GONE]
TRANSITIONS = [(kind, case) for kind, case in TABLE if case.before is not GONE]


class Server:
    """The API server with the project's CRDs, as a cluster admin sees it."""

    def __init__(self, plane: ControlPlane) -> None:
        self._kubectl = plane.kubectl
        client = config.new_client_from_config(str(plane.kubeconfig))
        self.objects, self.crds, self.core = CustomObjectsApi(client), ApiextensionsV1Api(client), CoreV1Api(client)

    def kubectl(self, *arguments: str) -> str:
        """Its output; fails the test with its error."""
        run = subprocess.run([*self._kubectl, *arguments], capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        return run.stdout

    def create(self, kind: str, spec: dict[str, Any], name: str = "case", dry_run: bool = True) -> dict[str, Any]:
        """Creates an object, with unknown fields refused. Raises ApiException."""
        options = {"dry_run": "All"} if dry_run else {}
        created: dict[str, Any] = self.objects.create_namespaced_custom_object(
            *self._at(kind), manifest(kind, spec, name), field_validation="Strict", **options
        )
        return created

    def refusal(self, kind: str, spec: dict[str, Any]) -> str:
        """The words with which a new object of that spec is refused; empty when it isn't."""
        try:
            self.create(kind, spec)
        except ApiException as error:
            return _message(error)
        return ""

    def refusal_of_update(self, live: dict[str, Any], spec: dict[str, Any]) -> str:
        """The words with which the object may not become that spec; empty when it may."""
        metadata = live["metadata"]
        try:
            self.objects.replace_namespaced_custom_object(
                *self._at(live["kind"]), metadata["name"], {**live, "spec": spec}, dry_run="All"
            )
        except ApiException as error:
            return _message(error)
        return ""

    def delete(self, live: dict[str, Any]) -> None:
        self.objects.delete_namespaced_custom_object(*self._at(live["kind"]), live["metadata"]["name"])

    @staticmethod
    def _at(kind: str) -> tuple[str, str, str, str]:
        return "hasite.dev", "v1alpha1", "default", PLURALS[kind]


def _message(error: ApiException) -> str:
    assert error.status == 422, error
    return str(json.loads(error.body)["message"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    plane = ControlPlane(
        tmp_path_factory.mktemp("controlplane"), tools(lambda message: print(message, file=sys.stderr))
    )
    asyncio.run(plane.start())
    server = Server(plane)
    server.kubectl("apply", "-f", str(ROOT / "crds"))
    server.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(ROOT / "crds"))
    yield server
    asyncio.run(plane.stop())


@pytest.mark.parametrize("kind", PLURALS)
def test_the_definition_is_established_and_structural(server: Server, kind: str) -> None:
    live = server.crds.read_custom_resource_definition(f"{PLURALS[kind]}.hasite.dev")
    conditions = {condition.type: condition.status for condition in live.status.conditions}
    assert conditions["Established"] == conditions["NamesAccepted"] == "True"
    assert "NonStructuralSchema" not in conditions


@pytest.mark.parametrize(("kind", "case"), AT_ONCE, ids=titles(AT_ONCE))
def test_a_new_object_is_held_to_the_constraint(server: Server, kind: str, case: Case) -> None:
    assert server.refusal(kind, spec_with(kind, case.path, case.accepted)) == ""
    refusal = server.refusal(kind, spec_with(kind, case.path, case.rejected))
    assert case.words in refusal
    assert case.reported in refusal


@pytest.mark.parametrize(("kind", "case"), TRANSITIONS, ids=titles(TRANSITIONS))
def test_an_update_is_held_to_the_constraint(server: Server, kind: str, case: Case) -> None:
    live = server.create(kind, spec_with(kind, case.path, case.before), "before", dry_run=False)
    try:
        assert server.refusal_of_update(live, spec_with(kind, case.path, case.accepted)) == ""
        refusal = server.refusal_of_update(live, spec_with(kind, case.path, case.rejected))
    finally:
        server.delete(live)
    assert case.words in refusal
    assert case.reported in refusal


def test_a_location_may_be_added_and_taken_away(server: Server) -> None:
    live = server.create("HASite", BASE["HASite"], "moves", dry_run=False)
    first, second = BASE["HASite"]["locations"]
    third = {"name": "c", "region": "fra1"}
    assert server.refusal_of_update(live, BASE["HASite"] | {"locations": [third, first, second]}) == ""
    assert server.refusal_of_update(live, BASE["HASite"] | {"locations": [second]}) == ""
    server.delete(live)


@pytest.mark.parametrize(("kind", "case"), STRINGS, ids=titles(STRINGS))
def test_no_string_takes_what_could_end_a_line_or_a_word_of_a_configuration(
    server: Server, kind: str, case: Case
) -> None:
    taken = [
        injection
        for injection in injections(case.where)
        if not server.refusal(kind, spec_with(kind, case.path, f"{case.accepted}{injection}"))
    ]
    assert taken == []


def test_a_duration_too_long_to_count_is_refused(server: Server) -> None:
    refusal = server.refusal("HASite", spec_with("HASite", "failureDetection.holdDown", "9999999999999999999h"))
    assert "spec.failureDetection.holdDown" in refusal


def test_an_unknown_field_is_refused_by_name(server: Server) -> None:
    with pytest.raises(ApiException, match=r"unknown field .*spec[.]app[.]prot"):
        server.create("HASite", spec_with("HASite", "app.prot", 80))


def test_what_was_left_out_is_shown_with_its_default(server: Server) -> None:
    spec = {**BASE["HASite"], "app": {"port": 80, "image": "123"}}
    live = server.create("HASite", spec, "defaults", dry_run=False)
    server.delete(live)
    assert live["spec"]["app"] == {
        "port": 80,
        "image": "123",
        "replicasPerLocation": 1,
        "size": "s-1vcpu-1gb",
        "userData": "",
        "drain": "10s",
        "progressDeadline": "10m",
        "healthCheck": {"path": "/", "interval": "2s", "timeout": "1s", "rise": 2, "fall": 2},
    }
    assert live["spec"]["failureDetection"]["holdDown"] == "15s"
    assert live["spec"]["loadBalancers"]["engine"] == "haproxy"


@pytest.mark.parametrize("kind", PLURALS)
def test_a_new_object_says_that_nothing_was_observed_yet(server: Server, kind: str) -> None:
    name = f"new-{kind.lower()}"
    live = server.create(kind, BASE[kind], name, dry_run=False)
    seen = json.loads(server.kubectl("get", PLURALS[kind], name, "-o", "json"))
    server.delete(live)
    assert seen["status"] == {"observedGeneration": -1}


def test_an_object_that_an_older_schema_let_in_can_still_be_let_go(server: Server) -> None:
    """New constraints must not hold up a finalizer, a label or the status."""
    name = f"{PLURALS['HASite']}.hasite.dev"
    strict = yaml.safe_load((ROOT / "crds/hasite.dev_hasites.yaml").read_text())
    loose = copy.deepcopy(strict)
    loose["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"] = {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
    }
    server.crds.patch_custom_resource_definition(name, loose | {"metadata": {"name": name}})
    bad = spec_with("HASite", "failureDetection.interval", "1h") | {"domain": "Not a name", "locations": []}
    live = _until_taken(server, bad)
    body = [
        {"op": "replace", "path": "/spec/versions", "value": strict["spec"]["versions"]},
    ]
    server.crds.patch_custom_resource_definition(name, body)
    _until_refused(server, bad)
    with_finalizer = server.kubectl(
        "patch", "hasites", "old", "--type=merge", "-o", "json",
        "-p", '{"metadata": {"finalizers": ["hasite.dev/cleanup"], "labels": {"a": "b"}}}',
    )  # fmt: skip
    assert json.loads(with_finalizer)["metadata"]["finalizers"] == ["hasite.dev/cleanup"]
    server.kubectl(
        "patch", "hasites", "old", "--subresource=status", "--type=merge", "-p", '{"status": {"published": ""}}'
    )
    server.delete(live)
    server.kubectl("patch", "hasites", "old", "--type=merge", "-p", '{"metadata": {"finalizers": []}}')
    server.kubectl("wait", "--for=delete", "--timeout=10s", "hasites/old")


def _until_taken(server: Server, spec: dict[str, Any]) -> dict[str, Any]:
    """A changed definition takes a moment to be in force."""
    for _ in range(100):
        if not server.refusal("HASite", spec):
            return server.create("HASite", spec, "old", dry_run=False)
    raise AssertionError("the looser definition did not come into force")


def _until_refused(server: Server, spec: dict[str, Any]) -> None:
    for _ in range(100):
        if server.refusal("HASite", spec):
            return
    raise AssertionError("the stricter definition did not come into force")


@pytest.mark.parametrize("example", ["site", "pool"])
def test_the_example_is_accepted(server: Server, example: str) -> None:
    path = str(ROOT / f"examples/{example}.yaml")
    server.kubectl("apply", "-f", path)
    server.kubectl("delete", "--wait=false", "-f", path)


def test_a_site_is_told_in_columns(server: Server) -> None:
    live = server.create("HASite", BASE["HASite"], "columns", dry_run=False)
    status = {
        "observedGeneration": 1,
        "conditions": [{"type": "Ready", "status": "False", "reason": "LocationDown", "message": "a is down"}],
        "locationsReady": "1/2",
        "loadBalancersReady": "1/2",
        "appsReady": "2/4",
        "published": "192.0.2.1",
    }
    server.kubectl(
        "patch", "hasites", "columns", "--subresource=status", "--type=merge", "-p", json.dumps({"status": status})
    )
    heads, cells = server.kubectl("get", "has", "columns").splitlines()
    wide = server.kubectl("get", "has", "columns", "-o", "wide").splitlines()
    everything = server.kubectl("get", "hasite")
    server.delete(live)
    assert heads.split() == ["NAME", "DOMAIN", "READY", "LOCATIONS", "LOAD-BALANCERS", "APPS", "ADDRESSES", "AGE"]
    assert cells.split()[:-1] == ["columns", "shop.example.com", "False", "1/2", "1/2", "2/4", "192.0.2.1"]
    assert (wide[0].split()[-1], wide[1].split()[-1]) == ("REASON", "LocationDown")
    assert "columns" in everything


@pytest.mark.parametrize(
    ("short", "heads"),
    [
        ("lbp", "NAME DOMAIN READY LOCATIONS LOAD-BALANCERS ADDRESSES AGE REASON"),
        ("rdb", "NAME ENGINE TOPOLOGY PRIMARY MEMBERS LAG READY AGE REASON"),
    ],
)
def test_the_other_kinds_have_columns_too(server: Server, short: str, heads: str) -> None:
    kind = {"lbp": "LoadBalancerPool", "rdb": "ReplicatedDatabase"}[short]
    live = server.create(kind, BASE[kind], "columns", dry_run=False)
    shown = server.kubectl("get", short, "columns", "-o", "wide").splitlines()[0]
    server.delete(live)
    assert shown.split() == heads.split()


def test_explain_reads_like_documentation(server: Server) -> None:
    text = server.kubectl("explain", "hasite.spec.app")
    assert "cloud-init user data that installs and starts the app" in " ".join(text.split())
    assert "<no description>" not in text
