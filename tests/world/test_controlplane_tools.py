"""How the control plane's programs are found, and what is remembered between two starts."""

import stat
from pathlib import Path

import pytest

from e2e.controlplane import build as build_module
from e2e.controlplane.build import built_program
from e2e.controlplane.credentials import Settings, can_bind, free_ports, token_file, write_private
from e2e.controlplane.toolchain import BuildError, parse_version, required_version
from e2e.controlplane.tools import tools, tools_in
from e2e.world.cluster import cluster
from e2e.world.controlplane import ControlPlane

ASSETS = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    directory = tmp_path / "assets"
    directory.mkdir()
    for name in ASSETS:
        (directory / name).touch(mode=0o755)
    return directory


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26)),
        ("go version go1.9 linux/amd64", (1, 9)),
        ("go version devel go1.27-abcdef linux/arm64", (1, 27)),
        ("command not found", None),
    ],
)
def test_a_toolchain_is_known_by_the_version_it_prints(printed: str, version: tuple[int, int] | None) -> None:
    assert parse_version(printed) == version


def test_the_module_says_which_go_it_needs() -> None:
    assert required_version(build_module.SOURCE / "go.mod") == (1, 26)


def test_a_module_without_a_go_line_is_refused(tmp_path: Path) -> None:
    (tmp_path / "go.mod").write_text("module example.com/none\n")
    with pytest.raises(BuildError, match="names no Go version"):
        required_version(tmp_path / "go.mod")


def test_the_built_program_lies_in_the_cache_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HASITE_CACHE", str(tmp_path))
    assert built_program().parent.parent == tmp_path / "controlplane"


def test_another_source_is_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("go.mod", "go.sum", "main.go"):
        (tmp_path / name).write_text("first")
    monkeypatch.setattr(build_module, "SOURCE", tmp_path)
    first = built_program()
    (tmp_path / "main.go").write_text("second")
    assert built_program() != first


def test_programs_under_kubebuilder_assets_are_taken_before_anything_is_built(
    assets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    found = tools(pytest.fail)
    assert found.etcd == (str(assets / "etcd"),)
    assert found.controller_manager == (str(assets / "kube-controller-manager"),)


def test_assets_may_lack_the_controller_manager(assets: Path) -> None:
    (assets / "kube-controller-manager").unlink()
    assert tools_in(assets).controller_manager is None


def test_assets_without_an_api_server_are_an_error_that_names_it(assets: Path) -> None:
    (assets / "kube-apiserver").unlink()
    with pytest.raises(FileNotFoundError, match="no program kube-apiserver"):
        tools_in(assets)


def test_a_persons_own_cluster_is_never_taken_unasked(
    assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "production.kubeconfig"))
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    monkeypatch.delenv("HASITE_WORLD_USE_KUBECONFIG", raising=False)
    assert isinstance(cluster(tmp_path, pytest.fail), ControlPlane)


def test_asking_for_an_existing_cluster_without_a_kubeconfig_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HASITE_WORLD_USE_KUBECONFIG", "1")
    with pytest.raises(FileNotFoundError, match="KUBECONFIG"):
        cluster(tmp_path, pytest.fail)


def test_ports_and_tokens_outlive_a_restart(tmp_path: Path) -> None:
    first = Settings.load(tmp_path / "settings.json", 0).with_tokens_for(["admin"])
    first.save(tmp_path / "settings.json")
    again = Settings.load(tmp_path / "settings.json", 0).with_tokens_for(["admin", "reader"])
    assert again.port == first.port
    assert again.tokens["admin"] == first.tokens["admin"]
    assert again.tokens["reader"]


def test_a_port_that_is_asked_for_is_taken_instead_of_the_remembered_one(tmp_path: Path) -> None:
    Settings.load(tmp_path / "settings.json", 0).save(tmp_path / "settings.json")
    assert Settings.load(tmp_path / "settings.json", 6443).port == 6443


def test_free_ports_are_free_and_different() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    assert all(can_bind(port) for port in ports)


def test_the_token_file_quotes_a_list_of_groups() -> None:
    content = token_file({"admin": ["system:masters", "staff"], "reader": []}, {"admin": "a", "reader": "b"})
    assert content == 'a,admin,admin,"system:masters,staff"\nb,reader,reader,""\n'


def test_a_file_with_a_secret_is_its_owners_alone(tmp_path: Path) -> None:
    (tmp_path / "secret").touch(mode=0o644)
    write_private(tmp_path / "secret", "token")
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
