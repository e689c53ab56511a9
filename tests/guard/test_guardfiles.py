"""What is delivered to a member."""

import configparser
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hasite.databases import guardfiles
from hasite.guard import agent
from hasite.guard.model import Member, Membership, Settings
from hasite.guard.storage import read_settings

SETTINGS = Settings(
    "shop",
    "a",
    "postgresql",
    "15",
    "PrimaryReplica",
    "synchronous",
    degraded_writes=False,
    maximum_lag=5.0,
    membership=Membership(3, (Member("a", "here", "192.0.2.1"),), ("a",)),
)


def test_the_same_release_gives_the_same_bytes() -> None:
    first = guardfiles.archive()
    guardfiles.archive.cache_clear()
    assert guardfiles.archive() == first


def test_the_archive_holds_the_guard_and_nothing_of_the_operator() -> None:
    names = zipfile.ZipFile(io.BytesIO(guardfiles.archive())).namelist()
    assert all(name in ("__main__.py", "hasite/__init__.py") or name.startswith("hasite/guard/") for name in names)
    assert {"hasite/guard/fuse.py", "hasite/guard/agent.py", "hasite/guard/engines/base.py"} <= set(names)
    assert names == sorted(names)


def test_settings_are_read_by_the_guard_as_the_operator_meant_them(tmp_path: Path) -> None:
    path = tmp_path / "guard.json"
    path.write_bytes(guardfiles.settings_file(SETTINGS))
    assert read_settings(path) == SETTINGS


@pytest.mark.parametrize("unit", [guardfiles.GUARD_UNIT, guardfiles.FUSE_UNIT])
def test_a_unit_is_kept_alive_and_watched(unit: str) -> None:
    files = guardfiles.program_files("postgresql", "15")
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(files[f"/etc/systemd/system/{unit}"].decode())
    service = parser["Service"]
    assert (service["Type"], service["Restart"]) == ("notify", "always")
    assert float(service["WatchdogSec"]) > 0
    assert parser["Unit"]["StartLimitIntervalSec"] == "0"
    assert guardfiles.PROGRAM in service["ExecStart"]


def test_the_guard_does_not_run_out_of_descriptors() -> None:
    unit = guardfiles.program_files("postgresql", "15")[f"/etc/systemd/system/{guardfiles.GUARD_UNIT}"].decode()
    assert "LimitNOFILE=65536" in unit.splitlines()


def test_a_shutdown_leaves_the_guard_the_time_to_hand_over_before_it_ends_the_server_and_then_the_fuse() -> None:
    files = guardfiles.program_files("mariadb", "10.11")
    guard, fuse = (
        files[f"/etc/systemd/system/{unit}"].decode().splitlines()
        for unit in (guardfiles.GUARD_UNIT, guardfiles.FUSE_UNIT)
    )
    assert "After=network.target hasite-fuse.service hasite-db.service" in guard
    assert "Before=hasite-guard.service hasite-db.service" in fuse
    (limit,) = (line.removeprefix("TimeoutStopSec=") for line in guard if line.startswith("TimeoutStopSec="))
    assert float(limit) > agent.LEAVE


def test_the_servers_unit_is_never_started_by_a_boot_nor_restarted_by_systemd() -> None:
    files = guardfiles.program_files("postgresql", "15")
    text = files["/etc/systemd/system/hasite-db.service"].decode()
    assert "[Install]" not in text
    assert "Restart=always" not in text
    assert "Wants=hasite-fuse.service" in files["/etc/systemd/system/hasite-db.service.d/hasite.conf"].decode()


def test_a_guard_without_settings_says_so_and_ends(tmp_path: Path) -> None:
    program = tmp_path / "guard.pyz"
    program.write_bytes(guardfiles.archive())
    done = subprocess.run([sys.executable, "-I", program], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "<2>hasite: the guard can't go on" in done.stderr
    assert "guard.json" in done.stderr
