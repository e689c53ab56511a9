"""The interface of a provider of machines.

No policy here: what is asked is done, once, or an error says what may be done next.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hasite.plan.world import Droplet, Firewall


@dataclass(frozen=True)
class DropletSpec:
    """What a create asks for. ``tags`` match ``[A-Za-z0-9_:-]{1,255}``; ``image`` is a slug or a snapshot's ID."""

    name: str
    region: str
    size: str
    image: str
    user_data: str
    tags: tuple[str, ...]
    ssh_key_fingerprints: tuple[str, ...]
    ipv6: bool = True


class Cloud(Protocol):
    """One account at a provider.

    Every method raises ``Transient``/``RateLimited``/``Unreachable``, ``Unauthorized`` or ``Permanent``;
    those that create also ``Unclear``. A response without its expected root key is an error.
    """

    async def droplets(self, max_age: float) -> Sequence[Droplet]:
        """All droplets with the tag ``hasite``, from an inventory of the account no older than ``max_age`` seconds."""
        ...

    async def droplet(self, droplet_id: int) -> Droplet | None:
        """One droplet by a fresh read; None only for a definite 404."""
        ...

    async def find_droplets(self, name: str) -> Sequence[Droplet]:
        """All droplets of exactly this name, tagged or not, by a fresh read."""
        ...

    async def create_droplet(self, spec: DropletSpec) -> Droplet:
        """One POST, never repeated by the transport. ``Unclear`` when it may have been done."""
        ...

    async def destroy_droplet(self, droplet_id: int) -> None:
        """By ID. A droplet that is already gone is a success."""
        ...

    async def power_on(self, droplet_id: int) -> None:
        """Asks for it. One that is gone is a ``Conflict``, here and in all that act on a given object."""
        ...

    async def rename(self, droplet_id: int, name: str) -> None:
        """Asks for it."""
        ...

    async def tag(self, droplet_id: int, tags: Sequence[str]) -> None:
        """Adds tags, creating them where they don't exist."""
        ...

    async def ensure_ssh_key(self, public_key: str, name: str) -> str:
        """Registers an OpenSSH public key once; returns its fingerprint (MD5, colon-separated)."""
        ...

    async def firewalls(self, max_age: float) -> Sequence[Firewall]:
        """All firewalls of the account, from an inventory no older than ``max_age`` seconds."""
        ...

    async def create_firewall(self, firewall: Firewall) -> Firewall:
        """``Unclear`` when it may have been done. Tags in it are created first where they don't exist."""
        ...

    async def update_firewall(self, firewall: Firewall) -> None:
        """Replaces all of the firewall with this ID."""
        ...

    async def destroy_firewall(self, firewall_id: str) -> None:
        """One that is already gone is a success."""
        ...

    async def close(self) -> None:
        """Closes the connections."""
        ...
