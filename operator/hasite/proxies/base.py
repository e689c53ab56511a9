"""The interface of a reverse proxy engine, and the one model that every engine renders into its own configuration."""

from dataclasses import dataclass
from typing import Literal, Protocol

from hasite.machines.base import Session
from hasite.plan.connection import Environment
from hasite.plan.proxies import DatabaseProxyModel, ProxyModel
from hasite.plan.world import ProxyView


@dataclass(frozen=True)
class Delivered:
    """The configuration is in force."""


@dataclass(frozen=True)
class Rejected:
    """The engine's own check, or the machine, refused it; the running configuration is untouched."""

    stage: Literal["term", "write", "check", "reload", "verify"]
    """``term``: a later leader has delivered to this machine; whoever asked may not act any more."""
    words: str


class Engine(Protocol):
    """What runs on a machine by a configuration. Stateless: everything it knows is on the machine."""

    packages: tuple[str, ...]
    """Debian packages that the bootstrap installs."""

    async def observe(self, session: Session) -> ProxyView:
        """Everything: package, configuration's hash, unit state, servers, peers."""
        ...

    async def health(self, session: Session, last: ProxyView) -> ProxyView:
        """The cheap part, for every second: servers and peers anew, the rest from ``last``."""
        ...

    async def deliver(self, session: Session, config: bytes, term: tuple[str, int] = ("", 0)) -> Delivered | Rejected:
        """Write aside → check → atomic rename → enable, start or reload without dropping connections → verify.

        ``term`` is that of the ``Leadership``: after a delivery of a later term of the same Lease, it is refused.
        """
        ...


class Proxy(Engine, Protocol):
    """The engine of a load balancer."""

    def render(self, model: ProxyModel) -> bytes:
        """Deterministic. Raises ``Permanent`` for a value that cannot be written safely."""
        ...


class DatabaseProxy(Engine, Protocol):
    """The engine that leads from an app server to a database. Its ``observe`` shows a configuration in force only while
    the files of ``equip`` are there as well, as they were when it was rendered."""

    def render(self, model: DatabaseProxyModel) -> bytes:
        """Deterministic. Raises ``Permanent`` for a value that cannot be written safely."""
        ...

    async def equip(self, session: Session, environment: Environment) -> None:
        """Writes the environment file, for root alone, and the certificate beside it, for everybody.

        Idempotent. Raises ``Permanent`` with the machine's own words, for example when the disk is full.
        """
        ...
