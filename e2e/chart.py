"""Helm and the chart, for the tests of both."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from e2e.world.controlplane import ControlPlane

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "helm/hasite-operator"
RELEASE, HERE = "hasite", "hasite-system"
NAME = "hasite-hasite-operator"
"""Of the release's objects."""
CRDS = {f"{kind}.hasite.dev" for kind in ("hasites", "loadbalancerpools", "replicateddatabases")}

Values = Mapping[str, Any]
Run = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Helm:
    """Helm with its own files in `home`, and a control plane for what needs one.

    Each call but `run` fails the test with the words of the program that failed.
    """

    argv: tuple[str, ...]
    home: Path
    plane: ControlPlane | None = None

    def run(self, *arguments: str, values: Values | None = None) -> Run:
        file = self.home / "values.json"
        file.write_text(json.dumps(values or {}))
        environment = {**os.environ, **{f"HELM_{kind}_HOME": str(self.home) for kind in ("CACHE", "CONFIG", "DATA")}}
        command = [*self.argv, *arguments]
        if arguments[0] in ("lint", "template", "install", "upgrade"):
            command.append(f"--values={file}")
        if self.plane:
            command.append(f"--kubeconfig={self.plane.kubeconfig}")
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    def rendered(self, values: Values | None = None) -> list[dict[str, Any]]:
        result = self.run("template", RELEASE, str(CHART), "--namespace", HERE, values=values)
        assert result.returncode == 0, result.stderr
        return [document for document in yaml.safe_load_all(result.stdout) if document]

    def install(self, verb: str = "install", values: Values | None = None, chart: Path = CHART) -> None:
        arguments = (verb, RELEASE, str(chart), "--namespace", HERE, "--create-namespace")
        result = self.run(*arguments, values=values)
        assert result.returncode == 0, result.stderr
        # A CRD that is deleted before it is established may take minutes to go.
        self.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", *CRDS)

    def uninstall(self) -> None:
        result = self.run("uninstall", RELEASE, "--namespace", HERE, "--ignore-not-found")
        assert result.returncode == 0, result.stderr

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        assert self.plane
        command = [*self.plane.kubectl, *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=False, input=stdin)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def live(self, kind: str, name: str) -> dict[str, Any]:
        return dict(json.loads(self.kubectl("get", kind, name, "-n", HERE, "-o", "json")))

    def names(self, kind: str) -> set[str]:
        return set(self.kubectl("get", kind, "-n", HERE, "-o", "jsonpath={.items[*].metadata.name}").split())


def say(message: str) -> None:
    """Progress, for pytest to show with a failure."""
    print(message, file=sys.stderr)


def of_kind(documents: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """In their order."""
    return [document for document in documents if document["kind"] == kind]


def deployment(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """The only one."""
    (found,) = of_kind(documents, "Deployment")
    return found


def container(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """The only one of the only Deployment."""
    (found,) = deployment(documents)["spec"]["template"]["spec"]["containers"]
    return dict(found)


def settings(documents: list[dict[str, Any]]) -> dict[str, str]:
    """The container's environment, without what kubelet fills in."""
    return {each["name"]: each["value"] for each in container(documents)["env"] if "value" in each}
