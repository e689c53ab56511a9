"""Targets for backups: a bucket in a real S3 server, for the tests of each engine."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hasite.guard.backup import Target

from e2e.objectstore import ObjectStore, free_port, serving


@dataclass
class Bucket:
    """``folder``: where its objects are, as files."""

    target: Target
    folder: Path
    credentials: dict[str, str]


def s3_missing() -> str:
    """What this machine lacks for an S3 server of its own; empty: nothing."""
    return "" if shutil.which("go") else "needs Go to build an S3 server"


@contextmanager
def bucket(folder: Path, name: str = "backups") -> Iterator[Bucket]:
    """An empty one, in a server that checks signatures, over TLS."""
    with serving(folder, "127.0.0.1", free_port(), name) as store:
        yield _bucket(store, name)


def _bucket(store: ObjectStore, name: str) -> Bucket:
    target = Target(endpoint=store.endpoint, bucket=name, region="us-east-1", prefix="hasite/test")
    return Bucket(target, store.objects / name, store.credentials)
