"""ReplicatedDatabase: PostgreSQL, MySQL or MariaDB, replicated between locations."""

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from hasite.api.common import (
    AGE,
    DNS_LABEL,
    IMMUTABLE,
    READY,
    REASON,
    REGION,
    REGIONS_DIFFER,
    Column,
    Condition,
    Lag,
    LocalRef,
    Location,
    Model,
    Resource,
    list_map,
    rule,
    validations,
)

IDENTIFIER = r"^[a-z_][a-z0-9_]*$"
PARAMETER_VALUE = r"""^[^\x00-\x1f\x7f'"\\#{}]*$"""


class MemberLocation(Location):
    """A datacentre and how many members stand in it."""

    members: int = Field(1, ge=1, le=5, description="Database members at this location.")


class Database(Model):
    """A database to create."""

    name: str = Field(description="Its name.", pattern=IDENTIFIER, max_length=63)
    owner: str = Field(description="The user that owns it, one of spec.users.", pattern=IDENTIFIER, max_length=32)


class User(Model):
    """A database user to create."""

    name: str = Field(description="Its name.", pattern=IDENTIFIER, max_length=32)
    password_ref: LocalRef | None = Field(
        None, description="Secret whose key `password` holds it; generated into one when absent."
    )


class Witness(Model):
    """A guard without a database, for a third vote: with it a failover needs no operator."""

    location: str = Field(
        description="Your name for the datacentre; none of spec.locations.", pattern=DNS_LABEL, max_length=20
    )
    region: str = Field(
        description="The provider's slug of the region; none of those of spec.locations.", pattern=REGION, max_length=5
    )


_RULES = validations(
    rule("self.topology != 'PrimaryPrimary' || self.engine != 'postgresql'", "PrimaryPrimary is for mysql and mariadb"),
    rule(
        "self.writeRouting != 'local' || self.topology == 'PrimaryPrimary'",
        "writeRouting local needs topology PrimaryPrimary",
    ),
    rule(
        "!has(self.primaryLocation) || self.locations.exists(l, l.name == self.primaryLocation)",
        "primaryLocation must be one of locations",
    ),
    rule(
        "!has(self.witness) || !self.locations.exists(l, l.name == self.witness.location || "
        "l.region == self.witness.region)",
        "the witness must stand in a location and region of its own",
    ),
    rule(
        "self.databases.all(d, self.users.exists(u, u.name == d.owner))", "each database's owner must be one of users"
    ),
)


class ReplicatedDatabaseSpec(Model):
    """Desired state of the database. The operator never writes it: who is primary is in status."""

    model_config = ConfigDict(json_schema_extra=_RULES)

    engine: Literal["postgresql", "mysql", "mariadb"] = Field(
        description="The database server. Immutable.", json_schema_extra=validations(IMMUTABLE)
    )
    version: str = Field(
        pattern=r"^[0-9]+(\.[0-9]+)?$", max_length=8, description="Major version, for example 17 or 10.11."
    )
    topology: Literal["PrimaryReplica", "PrimaryPrimary"] = Field(
        "PrimaryReplica",
        description="PrimaryReplica: one member takes writes, the others follow. PrimaryPrimary (mysql, mariadb): "
        "every location has a member that can take writes. Immutable.",
        json_schema_extra=validations(IMMUTABLE),
    )
    credentials_ref: LocalRef = Field(
        description="Secret in the same namespace whose key `token` holds the DigitalOcean API token."
    )
    locations: tuple[MemberLocation, ...] = Field(
        min_length=1,
        max_length=8,
        description="Datacentres that members stand in. Two or more survive the loss of one.",
        json_schema_extra=list_map("name") | validations(REGIONS_DIFFER),
    )
    durability: Literal["synchronous", "asynchronous"] = Field(
        "synchronous",
        description="synchronous: an acknowledged write survives the loss of any one location. asynchronous: writes "
        "don't wait for another location, and the latest may be lost with it.",
    )
    maximum_lag: Lag = Field("5s", description="Asynchronous: automatic failover is refused past this lag, 0s to 1h.")
    databases: tuple[Database, ...] = Field(
        (), max_length=50, description="Databases to create.", json_schema_extra=list_map("name")
    )
    users: tuple[User, ...] = Field(
        (), max_length=50, description="Database users to create.", json_schema_extra=list_map("name")
    )
    parameters: dict[str, Annotated[str, Field(pattern=PARAMETER_VALUE, max_length=256)]] = Field(
        default_factory=dict,
        max_length=100,
        description="Settings of the server, by name. No quotes, backslashes, braces, # or line breaks.",
        json_schema_extra=validations(
            rule(
                "self.all(k, k.matches('^[a-z_][a-z0-9_.]{0,62}$'))", "a parameter's name must be a word in lower case"
            )
        ),
    )
    primary_location: str | None = Field(
        None,
        pattern=DNS_LABEL,
        max_length=20,
        description="The location that should have the primary. A wish: changing it is a planned switchover.",
    )
    witness: Witness | None = Field(
        None, description="A guard without a database in a third location, so that a failover needs no operator."
    )
    write_routing: Literal["single", "local"] = Field(
        "single",
        description="PrimaryPrimary: single leads all writes to one primary, local to that of the app's own location.",
    )


class ReplicatedDatabaseStatus(Model):
    """Observed state of the database."""

    observed_generation: int = Field(-1, description="Generation of the spec that this status speaks of.")
    conditions: tuple[Condition, ...] = Field(
        (), description="What holds now. Ready is the one to wait for.", json_schema_extra=list_map("type")
    )
    primary: str = Field("", description="Name of the member that takes writes.")
    members: str = Field("", description="Members that replicate, of those wanted: `2/2`.")


class ReplicatedDatabase(Resource):
    """A database replicated between locations, with failover."""

    KIND: ClassVar[str] = "ReplicatedDatabase"
    PLURAL: ClassVar[str] = "replicateddatabases"
    SHORT: ClassVar[str] = "rdb"
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("Engine", ".spec.engine", description="The database server."),
        Column("Topology", ".spec.topology", description="Which members take writes."),
        Column("Primary", ".status.primary", description="The member that takes writes."),
        Column("Members", ".status.members", description="Members that replicate, of those wanted."),
        READY,
        AGE,
        REASON,
    )

    kind: str = "ReplicatedDatabase"
    spec: ReplicatedDatabaseSpec
    status: ReplicatedDatabaseStatus = Field(default_factory=ReplicatedDatabaseStatus)
