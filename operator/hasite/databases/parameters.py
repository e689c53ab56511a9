"""Which parameters of its server a user may set: each engine's driver knows what replication and fencing rest on."""

from collections.abc import Mapping

from hasite.guard.engines import mariadb_settings, mysql_settings, postgresql_settings

REFUSALS = {
    "postgresql": postgresql_settings.refusal,
    "mysql": mysql_settings.refusal,
    "mariadb": mariadb_settings.refusal,
}


def parameters_error(engine: str, parameters: Mapping[str, str]) -> str | None:
    """Why the first of them, by name, may not be set; None when all may."""
    refuse = REFUSALS[engine]
    return next((words for name, value in sorted(parameters.items()) if (words := refuse(name, value))), None)
