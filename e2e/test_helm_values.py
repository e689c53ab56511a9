"""What each value of the chart does to what Helm renders, and that no value can do anything else.

Needs no root and no cluster.
"""

import json
from typing import Any

import pytest
import yaml

from e2e.chart import CHART, HERE, NAME, RELEASE, ROOT, Helm, Values, container, deployment, of_kind, say, settings
from e2e.world.controlplane import helm

pytestmark = pytest.mark.timeout(1800)

HOSTILE = "a: b\n  - c # {{ .Release.Name }} '\"\\ %s \t}]\u2028*&!|>"


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(helm(say), tmp_path_factory.mktemp("helm"))


def pod(documents: list[dict[str, Any]]) -> dict[str, Any]:
    return dict(deployment(documents)["spec"]["template"]["spec"])


TOLERATION = {"key": "dedicated", "operator": "Exists"}
ANTI: Values = {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
KNOBS: list[tuple[Values, str, Any]] = [
    ({"replicas": 5}, "spec/replicas", 5),
    ({"image": {"pullPolicy": "Always"}}, "spec/template/spec/containers/0/imagePullPolicy", "Always"),
    ({"imagePullSecrets": [{"name": "pull"}]}, "spec/template/spec/imagePullSecrets", [{"name": "pull"}]),
    ({"resources": {"limits": {"memory": "1Gi"}}}, "spec/template/spec/containers/0/resources/limits/memory", "1Gi"),
    ({"podAnnotations": {"a/b": "true"}}, "spec/template/metadata/annotations/a~b", "true"),
    ({"nodeSelector": {"disk": "ssd"}}, "spec/template/spec/nodeSelector", {"disk": "ssd"}),
    ({"affinity": ANTI}, "spec/template/spec/affinity", ANTI),
    ({"tolerations": [TOLERATION]}, "spec/template/spec/tolerations", [TOLERATION]),
]
SETTINGS: list[tuple[Values, str, str]] = [
    ({"operatorCIDRs": ["192.0.2.0/24", "2001:db8::/32"]}, "HASITE_OPERATOR_CIDRS", "192.0.2.0/24,2001:db8::/32"),
    ({"watchNamespaces": ["shop", "123"]}, "HASITE_WATCH_NAMESPACES", "shop,123"),
    ({"nameservers": ["192.0.2.53:5353"]}, "HASITE_NAMESERVERS", "192.0.2.53:5353"),
    ({"digitalOceanEndpoint": "https://cloud.example.com/a?b=c"}, "HASITE_DIGITALOCEAN_ENDPOINT", "https://cloud.example.com/a?b=c"),
    ({"leaseDuration": 30}, "HASITE_LEASE_DURATION", "30"),
    ({"leaseDuration": 2.5}, "HASITE_LEASE_DURATION", "2.5"),
    ({"logFormat": "text"}, "HASITE_LOG", "text"),
]  # fmt: skip
IMAGES: list[tuple[Values, str]] = [
    ({}, "hasite-operator:0.1.0"),
    ({"tag": "2024"}, "hasite-operator:2024"),
    ({"repository": "registry.example.com:5000/a/b"}, "registry.example.com:5000/a/b:0.1.0"),
]
REFUSED: list[Values] = [
    {"replica": 3},
    {"image": {"name": "x"}},
    {"replicas": "2\n  paused: true"},
    {"replicas": 1.5},
    {"image": {"pullPolicy": "Sometimes"}},
    {"operatorCIDRs": "192.0.2.0/24"},
    {"operatorCIDRs": ["192.0.2.0/24,0.0.0.0/0"]},
    {"watchNamespaces": ["Shop"]},
    {"watchNamespaces": ["shop", "shop"]},
    {"nameservers": ["ns.example.com"]},
    {"digitalOceanEndpoint": "ftp://example.com"},
    {"leaseDuration": 0.5},
    {"logFormat": "xml"},
    {"podAnnotations": {"prometheus.io/scrape": True}},
    {"serviceMonitor": {"interval": "often"}},
]
STRINGS = (
    "image/repository", "image/tag", "image/pullPolicy", "imagePullSecrets/0/name", "operatorCIDRs/0",
    "watchNamespaces/0", "nameservers/0", "digitalOceanEndpoint", "logFormat", "serviceAccount/annotations/key",
    "podAnnotations/key", "nodeSelector/key", "affinity/key", "tolerations/0/key", "resources/limits/memory",
    "serviceMonitor/interval", "serviceMonitor/labels/key",
)  # fmt: skip
"""Where a value is, or may hold, a string."""


@pytest.mark.parametrize(("values", "path", "expected"), KNOBS)
def test_a_value_reaches_its_place(chart: Helm, values: Values, path: str, expected: Any) -> None:
    found: Any = deployment(chart.rendered(values))
    for part in path.split("/"):
        found = found[int(part)] if isinstance(found, list) else found[part.replace("~", "/")]
    assert found == expected


@pytest.mark.parametrize(("values", "name", "expected"), SETTINGS)
def test_a_value_reaches_the_operator(chart: Helm, values: Values, name: str, expected: str) -> None:
    assert settings(chart.rendered(values))[name] == expected


@pytest.mark.parametrize(("image", "expected"), IMAGES)
def test_the_image_is_the_chart_s_version_unless_another_is_named(chart: Helm, image: Values, expected: str) -> None:
    assert container(chart.rendered({"image": image}))["image"] == expected


def test_annotations_reach_the_service_account(chart: Helm) -> None:
    (account,) = of_kind(chart.rendered({"serviceAccount": {"annotations": {"role": "arn:1"}}}), "ServiceAccount")
    assert account["metadata"]["annotations"] == {"role": "arn:1"}


@pytest.mark.parametrize(("install", "expected"), [(True, 3), (False, 0)])
def test_the_crds_come_with_the_chart_unless_they_are_not_wanted(chart: Helm, install: bool, expected: int) -> None:
    assert len(of_kind(chart.rendered({"crds": {"install": install}}), "CustomResourceDefinition")) == expected


def test_the_crds_are_those_of_the_project(chart: Helm) -> None:
    def by_name(documents: list[dict[str, Any]]) -> dict[str, Any]:
        return {each["metadata"]["name"]: each["spec"] for each in documents}

    files = (ROOT / "crds").glob("*.yaml")
    wanted = [document for file in files for document in yaml.safe_load_all(file.read_text()) if document]
    assert by_name(of_kind(chart.rendered(), "CustomResourceDefinition")) == by_name(wanted)


def test_with_watch_namespaces_no_right_holds_in_the_whole_cluster(chart: Helm) -> None:
    documents = chart.rendered({"watchNamespaces": ["shop", "123"]})
    assert of_kind(documents, "ClusterRoleBinding") == []
    assert [each["metadata"]["namespace"] for each in of_kind(documents, "RoleBinding")] == ["shop", "123", HERE]


def test_the_chart_runs_the_pod_that_the_manifests_run(chart: Helm) -> None:
    (wanted,) = of_kind(list(yaml.safe_load_all((ROOT / "manifests/deployment.yaml").read_text())), "Deployment")
    template, expected = deployment(chart.rendered())["spec"]["template"], wanted["spec"]["template"]
    assert template["metadata"]["annotations"] == expected["metadata"]["annotations"]
    for spec in (template["spec"], expected["spec"]):
        del spec["serviceAccountName"]
        for each in spec["topologySpreadConstraints"]:
            del each["labelSelector"]
        for name in ("env", "image"):
            del spec["containers"][0][name]
    assert template["spec"].pop("containers")[0] == {
        **expected["spec"].pop("containers")[0],
        "imagePullPolicy": "IfNotPresent",
    }
    assert template["spec"] == expected["spec"]


def test_the_disruption_budget_and_the_spread_count_this_release_s_pods_only(chart: Helm) -> None:
    documents = chart.rendered()
    (budget,) = of_kind(documents, "PodDisruptionBudget")
    labels = deployment(documents)["spec"]["template"]["metadata"]["labels"]
    selectors = [
        deployment(documents)["spec"]["selector"],
        budget["spec"]["selector"],
        *(each["labelSelector"] for each in pod(documents)["topologySpreadConstraints"]),
    ]
    for selector in selectors:
        assert selector["matchLabels"]["app.kubernetes.io/instance"] == RELEASE
        assert selector["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize(
    ("release", "namespace", "name"),
    [
        (RELEASE, HERE, NAME),
        ("hasite-operator", HERE, "hasite-operator"),
        ("1e3", "123", "1e3-hasite-operator"),
        ("r" * 53, "n" * 63, "r" * 50),
    ],
)
def test_any_release_and_namespace_gives_names_that_kubernetes_takes(
    chart: Helm, release: str, namespace: str, name: str
) -> None:
    result = chart.run("template", release, str(CHART), "--namespace", namespace)
    assert result.returncode == 0, result.stderr
    documents = [document for document in yaml.safe_load_all(result.stdout) if document]
    metadata = deployment(documents)["metadata"]
    assert (metadata["name"], metadata["namespace"]) == (name, namespace)
    assert all(isinstance(label, str) for label in metadata["labels"].values())
    assert all(len(each["metadata"]["name"]) <= 63 for each in documents)


@pytest.mark.parametrize("values", REFUSED, ids=json.dumps)
def test_a_value_that_makes_no_sense_is_refused(chart: Helm, values: Values) -> None:
    result = chart.run("template", RELEASE, str(CHART), values=values)
    assert result.returncode != 0
    assert "values don't meet the specifications of the schema" in result.stderr


@pytest.mark.parametrize("path", STRINGS)
def test_a_hostile_string_is_refused_or_stays_one_string(chart: Helm, path: str) -> None:
    refused = chart.run("template", RELEASE, str(CHART), values=nested(path, HOSTILE))
    if refused.returncode != 0:
        assert "values don't meet the specifications of the schema" in refused.stderr
        return
    plain = "placeholder"
    assert chart.rendered(nested(path, HOSTILE)) == replaced(chart.rendered(nested(path, plain)), plain, HOSTILE)


def nested(path: str, value: str) -> dict[str, Any]:
    """{"a": [{"b": value}]} for a/0/b. Whatever hides behind a switch is switched on."""
    result: Any = value
    for part in reversed(path.split("/")):
        result = [result] if part == "0" else {part: result}
    if path.startswith("serviceMonitor/"):
        result["serviceMonitor"]["enabled"] = True
    return dict(result)


def replaced(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {key: replaced(each, old, new) for key, each in value.items()}
    if isinstance(value, list):
        return [replaced(each, old, new) for each in value]
    return value.replace(old, new) if isinstance(value, str) else value
