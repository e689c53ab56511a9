"""The cache outside the work tree that holds what takes long to make: images and package archives."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path


def cache_directory() -> Path:
    """`$HASITE_CACHE`, or `~/.cache/hasite`."""
    return Path(os.environ.get("HASITE_CACHE") or Path.home() / ".cache" / "hasite")


def built_once(target: Path, build: Callable[[Path], None]) -> Path:
    """Return `target`, a directory, after `build` has filled it if it was not there yet.

    `build` works in a directory beside it that is renamed when complete: what is in the cache is always whole. A lock
    makes other processes wait for the one that builds.
    """
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_name(f".{target.name}.lock")):
        if target.exists():
            return target
        partial = target.with_name(f".{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        build(partial)
        partial.chmod(0o755)
        partial.rename(target)
    return target


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
