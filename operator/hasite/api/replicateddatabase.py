"""ReplicatedDatabase: PostgreSQL, MySQL or MariaDB, replicated between locations."""

from typing import ClassVar, Literal

from pydantic import Field

from hasite.api.common import (
    DNS_LABEL,
    IMMUTABLE,
    Condition,
    Duration,
    LocalRef,
    Location,
    Model,
    Resource,
    list_map,
    rule,
    validations,
)

IDENTIFIER = r"^[a-z_][a-z0-9_]*$"


class MemberLocation(Location):
    """A location and how many members stand in it."""

    members: int = Field(1, ge=1, le=5, description="Database members at this location.")


class Database(Model):
    """A database to create."""

    name: str = Field(pattern=IDENTIFIER, max_length=63)
    owner: str = Field(pattern=IDENTIFIER, max_length=32)


class User(Model):
    """A database user."""

    name: str = Field(pattern=IDENTIFIER, max_length=32)
    password_ref: LocalRef | None = Field(
        None, description="Secret whose key `password` holds it; generated when absent."
    )


class Witness(Model):
    """A guard without a database, for a third vote."""

    location: str = Field(pattern=DNS_LABEL, max_length=20)
    region: str = Field(pattern=r"^[a-z]{3}[0-9]$")


class ReplicatedDatabaseSpec(Model):
    """Desired state of a replicated database."""

    engine: Literal["postgresql", "mysql", "mariadb"] = Field(json_schema_extra=validations(IMMUTABLE))
    version: str = Field(
        pattern=r"^[0-9]+(\.[0-9]+)?$", max_length=8, description="Major version, for example 17 or 10.11."
    )
    topology: Literal["PrimaryReplica", "PrimaryPrimary"] = Field(
        "PrimaryReplica", json_schema_extra=validations(IMMUTABLE)
    )
    credentials_ref: LocalRef
    locations: tuple[MemberLocation, ...] = Field(min_length=1, max_length=8, json_schema_extra=list_map("name"))
    durability: Literal["synchronous", "asynchronous"] = Field(
        "synchronous", description="synchronous: an acknowledged write survives the loss of any one location."
    )
    maximum_lag: Duration = Field("5s", description="Asynchronous: automatic failover is refused past this lag.")
    databases: tuple[Database, ...] = Field((), max_length=50, json_schema_extra=list_map("name"))
    users: tuple[User, ...] = Field((), max_length=50, json_schema_extra=list_map("name"))
    parameters: dict[str, str] = Field(default_factory=dict, max_length=100)
    primary_location: str | None = Field(
        None, max_length=20, description="A wish; changing it is a planned switchover."
    )
    witness: Witness | None = None
    write_routing: Literal["single", "local"] = "single"


class ReplicatedDatabaseStatus(Model):
    """Observed state of a replicated database."""

    observed_generation: int = -1
    conditions: tuple[Condition, ...] = Field((), json_schema_extra=list_map("type"))
    primary: str = ""
    members: str = ""


class ReplicatedDatabase(Resource):
    """A database replicated between locations."""

    KIND: ClassVar[str] = "ReplicatedDatabase"
    PLURAL: ClassVar[str] = "replicateddatabases"

    kind: str = "ReplicatedDatabase"
    spec: ReplicatedDatabaseSpec = Field(
        json_schema_extra=validations(
            rule(
                "self.topology != 'PrimaryPrimary' || self.engine != 'postgresql'",
                "PrimaryPrimary is for mysql and mariadb",
            ),
        )
    )
    status: ReplicatedDatabaseStatus = Field(default_factory=ReplicatedDatabaseStatus)
