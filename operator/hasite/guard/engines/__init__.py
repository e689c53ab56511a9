"""Database servers that the guard can hold: one module each, imported when it is chosen."""

from importlib import import_module

from hasite.guard.engines.base import Engine, Layout, Service
from hasite.guard.model import Settings

ENGINES = {
    "postgresql": "hasite.guard.engines.postgresql:PostgreSQL",
    "mysql": "hasite.guard.engines.mysql:MySQL",
    "mariadb": "hasite.guard.engines.mariadb:MariaDB",
}


def make(settings: Settings, layout: Layout, service: Service) -> Engine:
    """The driver for ``settings.engine``."""
    module, name = ENGINES[settings.engine].split(":")
    engine: Engine = getattr(import_module(module), name)(settings, layout, service)
    return engine


def unit_file(engine: str, version: str) -> str:
    """The text of ``hasite-db.service`` for this engine."""
    text: str = import_module(ENGINES[engine].split(":")[0]).unit_file(version)
    return text
