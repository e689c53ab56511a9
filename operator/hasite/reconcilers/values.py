"""Small values that carrying a plan out needs."""

import hashlib
from dataclasses import dataclass

from hasite.api.common import DropletRecord
from hasite.machines.base import Target


@dataclass(frozen=True)
class Machine:
    """What droplets of a tier are made from."""

    size: str
    image: str
    packages: tuple[str, ...]
    user_data: str


@dataclass(frozen=True)
class Refused:
    """A configuration that a machine's own check turned down, with its words."""

    config_sha256: str
    words: str
    at: float


def target_of(record: DropletRecord) -> Target:
    """Where a machine is reached, and the only keys that it may show."""
    return Target(record.name, record.public_ipv4 or "", record.known_keys)


def sha256(config: bytes) -> str:
    """What a configuration is known by."""
    return hashlib.sha256(config).hexdigest()
