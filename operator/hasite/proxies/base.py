"""The interface of a reverse proxy engine, and the one model that every engine renders into its own configuration."""

from dataclasses import dataclass
from typing import Literal, Protocol

from hasite.machines.base import Session
from hasite.plan.proxies import ProxyModel
from hasite.plan.world import ProxyView


@dataclass(frozen=True)
class Delivered:
    """The configuration is in force."""


@dataclass(frozen=True)
class Rejected:
    """The engine's own check, or the machine, refused it; the running configuration is untouched."""

    stage: Literal["write", "check", "reload", "verify"]
    words: str


class Proxy(Protocol):
    """One engine. Stateless: everything it knows is on the machine."""

    packages: tuple[str, ...]
    """Debian packages that the bootstrap installs."""

    def render(self, model: ProxyModel) -> bytes:
        """Deterministic. Raises ``Permanent`` for a value that cannot be written safely."""
        ...

    async def observe(self, session: Session) -> ProxyView:
        """Everything: package, configuration's hash, unit state, servers, peers."""
        ...

    async def health(self, session: Session, last: ProxyView) -> ProxyView:
        """The cheap part, for every second: servers and peers anew, the rest from ``last``."""
        ...

    async def deliver(self, session: Session, config: bytes) -> Delivered | Rejected:
        """Write aside → check → atomic rename → enable, start or reload without dropping connections → verify."""
        ...
