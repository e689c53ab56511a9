"""What is generated from the models is up to date, and the examples are what the models say."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import yaml
from hasite.api import HASite, LoadBalancerPool, ReplicatedDatabase
from hasite.api.common import seconds
from hasite.plan.connection import ENVIRONMENT_PATH
from pydantic import ValidationError

from tools.crds import KINDS, definition
from tools.generate import ROOT, generated, stale


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "examples" / name).read_text()))


def test_no_generated_file_is_stale() -> None:
    assert stale() == [], "run: python tools/generate.py"


def test_a_file_that_differs_or_is_missing_is_stale(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    texts = generated(tmp_path)
    paths = list(texts)
    for path in paths[1:]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(texts[path])
    (tmp_path / paths[1]).write_text("edited by hand")
    assert stale(tmp_path) == paths[:2]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.KIND))
def test_a_schema_is_structural(kind: Any) -> None:
    schema = definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    text = yaml.dump(schema)
    assert not re.search(r"\$ref|anyOf|oneOf|allOf|\btitle:|nullable|preserve-unknown", text)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.KIND))
def test_an_unobserved_status_is_that_of_no_generation(kind: Any) -> None:
    schema = definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert schema["properties"]["status"]["default"] == {"observedGeneration": -1}


def test_the_site_example_is_a_valid_site_at_two_datacentres() -> None:
    namespace, secret, site = documents("site.yaml")
    spec = HASite.model_validate(site).spec
    assert [location.region for location in spec.locations] == ["nyc3", "ams3"]
    assert spec.credentials_ref.name == secret["metadata"]["name"]
    assert {secret["metadata"]["namespace"], site["metadata"]["namespace"]} == {namespace["metadata"]["name"]}


def test_the_database_example_is_a_site_that_uses_the_database_beside_it() -> None:
    namespace, secret, database, site = documents("database.yaml")
    spec, used = ReplicatedDatabase.model_validate(database).spec, HASite.model_validate(site).spec.database
    assert used is not None
    assert used.name == database["metadata"]["name"]
    assert used.database in {each.name for each in spec.databases}
    assert used.user in {each.name for each in spec.users}
    assert {each["metadata"]["namespace"] for each in (secret, database, site)} == {namespace["metadata"]["name"]}


def test_the_app_of_the_database_example_waits_for_its_environment_file_and_is_valid_python() -> None:
    user_data = yaml.safe_load(documents("database.yaml")[3]["spec"]["app"]["userData"])
    files = {file["path"]: file["content"] for file in user_data["write_files"]}
    compile(files["/usr/local/lib/orders/server.py"], "server.py", "exec")
    assert f"PathExists={ENVIRONMENT_PATH}" in files["/etc/systemd/system/orders.path"]
    assert f"EnvironmentFile={ENVIRONMENT_PATH}" in files["/etc/systemd/system/orders.service"]


def test_the_pool_example_is_a_valid_pool_with_given_servers() -> None:
    namespace, secret, pool = documents("pool.yaml")
    spec = LoadBalancerPool.model_validate(pool).spec
    assert len(spec.backends.servers) == 2
    assert spec.credentials_ref.name == secret["metadata"]["name"]
    assert {secret["metadata"]["namespace"], pool["metadata"]["namespace"]} == {namespace["metadata"]["name"]}


def test_the_app_of_the_site_example_answers(tmp_path: Path) -> None:
    app = HASite.model_validate(documents("site.yaml")[2]).spec.app
    files = {file["path"]: file["content"] for file in yaml.safe_load(app.user_data)["write_files"]}
    script = files["/usr/local/lib/shop/server.py"]
    assert f'("0.0.0.0", {app.port})' in script
    any_port = script.replace(f'Server(("0.0.0.0", {app.port}), Shop).serve_forever()', "server = Server")
    any_port += (
        'server = Server(("127.0.0.1", 0), Shop)\nprint(server.server_port, flush=True)\nserver.serve_forever()\n'
    )
    (tmp_path / "server.py").write_text(any_port)
    with subprocess.Popen([sys.executable, "-I", tmp_path / "server.py"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            base = f"http://127.0.0.1:{int(process.stdout.readline())}"
            assert answer(f"{base}{app.health_check.path}")[0] == 200
            status, body = answer(f"{base}/")
            assert (status, "served by" in body) == (200, True)
            assert answer(f"{base}/nothing")[0] == 404
        finally:
            process.kill()


def answer(url: str) -> tuple[int, str]:
    try:
        with urlopen(url, timeout=5) as response:
            return response.status, response.read().decode()
    except HTTPError as error:
        return error.code, ""


@pytest.mark.parametrize(
    ("duration", "expected"), [("250ms", 0.25), ("0s", 0), ("1m30s", 90), ("24h", 86400), ("1h1m1s1ms", 3661.001)]
)
def test_a_duration_is_a_number_of_seconds(duration: str, expected: float) -> None:
    assert seconds(duration) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "1", "1.5s", "-1s", "1d", "1s\n", " 1s"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        seconds(text)


def test_a_duration_too_long_to_count_is_refused_and_no_crash() -> None:
    site = documents("site.yaml")[2]
    site["spec"]["failureDetection"] = {"holdDown": "9999999999999999999h"}
    with pytest.raises(ValidationError):
        HASite.model_validate(site)
