"""The two ways to install the operator, manifests and chart, say the same; nothing more is allowed than it uses."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from hasite.config import Config

from e2e.world.world import OPERATOR_ALLOCATOR

ROOT = Path(__file__).resolve().parent.parent.parent
MANIFESTS, CHART = ROOT / "manifests", ROOT / "helm/hasite-operator"


def manifest(kind: str, file: str) -> dict[str, Any]:
    return next(document for document in yaml.safe_load_all((MANIFESTS / file).read_text()) if document["kind"] == kind)


def rules(path: Path) -> list[str]:
    """The text of every `rules:` block; comments and templates end it."""
    return re.findall(r"^rules:\n((?:  .*\n)+)", path.read_text(), re.MULTILINE)


def test_the_chart_grants_what_the_manifests_grant() -> None:
    granted = rules(MANIFESTS / "rbac.yaml")
    assert len(granted) == 2
    assert rules(CHART / "templates/rbac.yaml") == granted


def test_no_right_is_a_wildcard_and_secrets_are_never_listed() -> None:
    for rule in manifest("ClusterRole", "rbac.yaml")["rules"] + manifest("Role", "rbac.yaml")["rules"]:
        assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])
        if "secrets" in rule["resources"]:
            assert rule["verbs"] == ["get", "create", "patch"]


@pytest.mark.parametrize("path", [MANIFESTS / "deployment.yaml", CHART / "templates/deployment.yaml"])
def test_every_setting_of_the_deployment_is_one_that_the_operator_reads(path: Path) -> None:
    known = {f"HASITE_{field.name.upper()}" for field in fields(Config)}
    used = set(re.findall(r"name: (HASITE_\w+)", path.read_text()))
    assert used <= known
    assert {"HASITE_NAMESPACE", "HASITE_IDENTITY"} <= used


def test_image_manifests_chart_and_local_world_set_the_same_allocator() -> None:
    image = dict(re.findall(r"\b(MALLOC_\w+)=(\S+)", (ROOT / "Dockerfile").read_text()))
    assert len(image) == 3
    for path in (MANIFESTS / "deployment.yaml", CHART / "templates/deployment.yaml"):
        assert dict(re.findall(r'- name: (MALLOC_\w+)\n +value: "(.+)"', path.read_text())) == image
    assert image == OPERATOR_ALLOCATOR


def test_the_operator_runs_as_two_replicas_without_privileges() -> None:
    spec = manifest("Deployment", "deployment.yaml")["spec"]
    pod, container = spec["template"]["spec"], spec["template"]["spec"]["containers"][0]
    assert spec["replicas"] == 2
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_chart_the_image_and_the_package_have_one_version() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    image = yaml.safe_load((MANIFESTS / "kustomization.yaml").read_text())["images"][0]
    assert {chart["version"], chart["appVersion"], image["newTag"]} == {version[1]}


def test_every_value_of_the_chart_is_in_its_schema_and_no_other() -> None:
    def keys(schema: dict[str, Any]) -> dict[str, Any]:
        """The objects whose keys the chart fixes."""
        if schema.get("additionalProperties") is not False:
            return {}
        return {name: keys(each) for name, each in schema["properties"].items() if name != "global"}

    def shape(value: Any, like: dict[str, Any]) -> dict[str, Any]:
        return {name: shape(value[name], like.get(name, {})) for name in value} if like else {}

    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert shape(values, keys(schema)) == keys(schema)
