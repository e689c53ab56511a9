"""What README and the pages beside it tell people to type, and say of defaults, is so."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hasite.api import HASite
from hasite.cli import main as plugin

from e2e.demo.__main__ import main as demo
from e2e.world.__main__ import main as world

ROOT = Path(__file__).resolve().parent.parent.parent
README, LOCAL_WORLD, ARCHITECTURE = ROOT / "README.md", ROOT / "docs/local-world.md", ROOT / "docs/architecture.md"
PAGES = (README, LOCAL_WORLD, ARCHITECTURE, ROOT / "docs/performance.md")


def defaults() -> dict[str, Any]:
    """A spec of which a person wrote no more than must be, in wire form."""
    spec = {
        "domain": "shop.example.com",
        "credentialsRef": {"name": "digitalocean"},
        "locations": [{"name": "new-york", "region": "nyc3"}, {"name": "amsterdam", "region": "ams3"}],
        "app": {"port": 8080, "userData": "#!/bin/sh\n"},
    }
    return HASite.model_validate({"kind": "HASite", "metadata": {}, "spec": spec}).spec.wire()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_leads_to_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_that_a_page_names_is_there(page: Path) -> None:
    named = set(re.findall(r"(?:^|`)make ([a-z][a-z0-9-]*)", page.read_text(), re.MULTILINE))
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named - targets == set()


def test_make_alone_lists_the_targets() -> None:
    listed = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True).stdout
    assert {"make setup", "make test", "make e2e", "make demo", "make down"} <= set(
        re.findall(r"make [a-z0-9-]+", listed)
    )


@pytest.mark.parametrize("command", ["kill", "fill-disk", "free-disk", "loss", "info", "drop", "restore", "down"])
def test_every_command_of_the_local_world_s_page_is_one(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        world([command, "--help"])
    assert (ended.value.code, command in capsys.readouterr().out) == (0, True)


@pytest.mark.parametrize(("program", "command"), [(plugin, "status"), (plugin, "plan"), (demo, "up"), (demo, "watch")])
def test_every_command_of_the_plugin_and_the_demo_is_one(program: Any, command: str) -> None:
    with pytest.raises(SystemExit) as ended:
        program([command, "--help"])
    assert ended.value.code == 0


def test_the_site_in_the_readme_is_a_valid_one() -> None:
    written = re.search(r"```yaml\n(apiVersion.*?)```", README.read_text(), re.DOTALL)
    assert written
    assert len(HASite.model_validate(yaml.safe_load(written[1])).spec.locations) == 2


def test_the_defaults_that_the_readme_names_are_those_of_the_model() -> None:
    rows = re.findall(r"^\| (`.+?`.*?) \| (.+?) \|", README.read_text().partition("## Defaults")[2], re.MULTILINE)
    said = {re.sub("`", "", fields): re.sub("`", "", values) for fields, values in rows}
    spec = defaults()
    balancers, app, failure, dns = (spec[key] for key in ("loadBalancers", "app", "failureDetection", "dns"))
    check = app["healthCheck"]
    assert said == {
        "loadBalancers.engine, replicasPerLocation": f"{balancers['engine']}, {balancers['replicasPerLocation']}",
        "loadBalancers.size, image": f"{balancers['size']}, {balancers['image']}",
        "loadBalancers.routing": balancers["routing"],
        "app.replicasPerLocation": str(app["replicasPerLocation"]),
        "app.healthCheck": (
            f"{check['path']}, every {spaced(check['interval'])}, {check['rise']} up, {check['fall']} down"
        ),
        "app.drain": spaced(app["drain"]),
        "app.progressDeadline": spaced(app["progressDeadline"]),
        "dns.ttlSeconds, degradedTtlSeconds": f"{dns['ttlSeconds']}, {dns['degradedTtlSeconds']}",
        "failureDetection": (
            f"{spaced(failure['interval'])}, {spaced(failure['timeout'])}, {failure['failureThreshold']} down, "
            f"{failure['recoveryThreshold']} up, hold-down {spaced(failure['holdDown'])}"
        ),
        "managementPolicy, deletionPolicy": f"{spec['managementPolicy']}, {spec['deletionPolicy']}",
    }


def spaced(duration: str) -> str:
    """``10m`` as a person writes it: ``10 m``."""
    return re.sub(r"(\d)([a-z])", r"\1 \2", duration)
