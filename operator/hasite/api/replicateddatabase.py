"""ReplicatedDatabase: PostgreSQL, MySQL or MariaDB, replicated between locations."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal

from pydantic import ConfigDict, Field

from hasite.api.common import (
    AGE,
    DNS_LABEL,
    DURATION,
    IMMUTABLE,
    READY,
    REASON,
    REGION,
    REGIONS_DIFFER,
    Between,
    Column,
    Deadline,
    Image,
    Lag,
    LocalRef,
    Location,
    Model,
    Resource,
    Size,
    list_map,
    rule,
    validations,
)
from hasite.api.databasebackup import BACKUP_RULES, BackupPlan, Bootstrap
from hasite.api.databasestatus import ReplicatedDatabaseStatus

IDENTIFIER = r"^[a-z_][a-z0-9_]*$"
PARAMETER_VALUE = r"""^[^\x00-\x1f\x7f'"\\#{}]*$"""
CIDR = r"^[0-9a-f.:]+/[0-9]{1,3}$"
TAG = r"^[A-Za-z0-9_:-]+$"
APT_SOURCE = r"^deb( \[[A-Za-z0-9=._,:/+-]+( [A-Za-z0-9=._,:/+-]+)*\])? [A-Za-z0-9.:/_~+-]+( [A-Za-z0-9._/-]+)+$"
APT_PACKAGES = r"^[a-z0-9*][a-z0-9+.*-]*( [a-z0-9*][a-z0-9+.*-]*)*$"
APT_PIN = r"^(release|origin|version) [A-Za-z0-9=,.*:_~+-]+$"
BASE64 = r"^[A-Za-z0-9+/]+={0,2}$"

Ttl = Annotated[str, Field(pattern=DURATION, max_length=20), Between("2s", "1m")]
"""``guard.model.Timing.check`` holds the lower bound: three tries to renew must fit in."""

DISTRIBUTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "debian-12-x64": {"postgresql": "15", "mariadb": "10.11"},
    "debian-13-x64": {"postgresql": "17", "mariadb": "11.8"},
}
"""Which version of each engine a distribution's own packages have."""

OUR_USERS: Final = ("hasite_operator", "hasite_replication", "postgres", "root", "mysql", "mariadb_sys")


OUR_DATABASES: Final = (
    "hasite",
    "information_schema",
    "mysql",
    "performance_schema",
    "postgres",
    "sys",
    "template0",
    "template1",
)
"""Who owns one of these is as good as root."""


class MemberLocation(Location):
    """A datacentre and how many members stand in it."""

    members: int = Field(1, ge=1, le=5, description="Database members at this location.")


class Database(Model):
    """A database to create."""

    name: str = Field(
        description="Its name.",
        pattern=IDENTIFIER,
        max_length=63,
        json_schema_extra=validations(
            rule(f"!(self in {sorted(OUR_DATABASES)})".replace('"', "'"), "this database's name is kept for the system")
        ),
    )
    owner: str = Field(description="The user that owns it, one of spec.users.", pattern=IDENTIFIER, max_length=32)


class User(Model):
    """A database user to create."""

    name: str = Field(
        description="Its name.",
        pattern=IDENTIFIER,
        max_length=32,
        json_schema_extra=validations(
            rule(f"!(self in {sorted(OUR_USERS)})".replace('"', "'"), "this user's name is kept for the system")
        ),
    )
    password_ref: LocalRef | None = Field(
        None,
        description="Secret whose key `password` holds it. When absent one is generated, under the user's name, into "
        "the Secret `NAME-users`.",
    )


class Witness(Model):
    """A guard without a database, for a third vote: with it a failover needs no operator."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "self.location != oldSelf.location || self.region == oldSelf.region",
                "a location's region is immutable: name another location",
            )
        )
    )

    location: str = Field(
        description="Your name for the datacentre; none of spec.locations.", pattern=DNS_LABEL, max_length=20
    )
    region: str = Field(
        description="The provider's slug of the region; none of those of spec.locations.", pattern=REGION, max_length=5
    )


class Failover(Model):
    """When a primary counts as lost."""

    model_config = ConfigDict(json_schema_extra=validations(rule("self.ttl == oldSelf.ttl", "ttl is immutable")))

    ttl: Ttl = Field(
        "3s",
        description="A primary stops taking writes when no majority has vouched for it for so long, and only then is "
        "another one promoted. 2s to 1m. Immutable: voters that know another value than the primary would not wait "
        "for long enough.",
    )


class Access(Model):
    """Who may connect to the database, besides the members and the operator."""

    cidrs: tuple[Annotated[str, Field(pattern=CIDR, max_length=49)], ...] = Field(
        (), max_length=50, description="Networks, for example 192.0.2.0/24."
    )
    tags: tuple[Annotated[str, Field(pattern=TAG, max_length=255)], ...] = Field(
        (), max_length=5, description="Tags of droplets of the same account."
    )


class Promote(Model):
    """A person's order to make a member at a location the primary. It holds for one epoch, and is void after that."""

    location: str = Field(description="One of spec.locations.", pattern=DNS_LABEL, max_length=20)
    epoch: int = Field(
        ge=1, le=2**53, description="The value of status.epoch that the order is for: so it is carried out once."
    )
    accept_data_loss: bool = Field(
        False,
        description="Promote even if the newest writes may be missing there: past maximumLag, or when it is not known.",
    )


class Pin(Model):
    """Which packages a source may give, after apt_preferences(5)."""

    packages: str = Field(description="Names with *, separated by spaces.", pattern=APT_PACKAGES, max_length=512)
    pin: str = Field(description="For example `release a=unstable`.", pattern=APT_PIN, max_length=128)
    priority: int = Field(ge=-1, le=1001, description="Below 0: never; 990: before others; 1001: even a downgrade.")


class Installation(Model):
    """Where the server's packages come from, when not from the image's own distribution."""

    sources: tuple[Annotated[str, Field(pattern=APT_SOURCE, max_length=512)], ...] = Field(
        (), max_length=10, description="Lines of sources.list(5)."
    )
    keys: tuple[Annotated[str, Field(pattern=BASE64, max_length=16384)], ...] = Field(
        (), max_length=5, description="Public keys of these sources, binary or ASCII-armoured, in base64."
    )
    pins: tuple[Pin, ...] = Field((), max_length=20, description="Which packages may come from where.")


def _available() -> str:
    """CEL: the image's distribution has the version. Other images are the user's own affair."""
    every = {(engine, version) for has in DISTRIBUTIONS.values() for engine, version in has.items()}
    alone = " || ".join(f"(self.engine == '{e}' && self.version == '{v}')" for e, v in sorted(every))
    given = " && ".join(
        f"(self.image != '{image}' || "
        + " || ".join(f"(self.engine == '{e}' && self.version == '{v}')" for e, v in sorted(has.items()))
        + ")"
        for image, has in DISTRIBUTIONS.items()
    )
    return f"has(self.installation) ? has(self.image) : has(self.image) ? ({given}) : ({alone})"


_RULES = validations(
    rule("self.topology != 'PrimaryPrimary' || self.engine != 'postgresql'", "PrimaryPrimary is for mysql and mariadb"),
    rule(
        "self.topology != 'PrimaryPrimary' || self.durability == 'asynchronous'",
        "PrimaryPrimary needs durability asynchronous: no member waits for another before it acknowledges a write",
    ),
    rule(
        "self.topology != 'PrimaryPrimary' || self.locations.map(l, l.members).sum() <= 8",
        "PrimaryPrimary: at most 8 members in all",
    ),
    rule(
        "self.writeRouting != 'local' || self.topology == 'PrimaryPrimary'",
        "writeRouting local needs topology PrimaryPrimary",
    ),
    rule(
        "!has(self.primaryLocation) || self.locations.exists(l, l.name == self.primaryLocation)",
        "primaryLocation must be one of locations",
    ),
    rule(
        "!has(self.promote) || self.locations.exists(l, l.name == self.promote.location)",
        "promote.location must be one of locations",
    ),
    rule(
        "!has(self.witness) || !self.locations.exists(l, l.name == self.witness.location || "
        "l.region == self.witness.region)",
        "the witness must stand in a location and region of its own",
    ),
    rule(
        "self.databases.all(d, self.users.exists(u, u.name == d.owner))", "each database's owner must be one of users"
    ),
    rule(
        _available(),
        "the distribution must have this version: postgresql 15 or mariadb 10.11 (debian-12-x64), postgresql 17 or "
        "mariadb 11.8 (debian-13-x64); anything else needs an image and an installation",
    ),
    *BACKUP_RULES,
)


class ReplicatedDatabaseSpec(Model):
    """Desired state of the database. The operator never writes it: who is primary is in status."""

    model_config = ConfigDict(json_schema_extra=_RULES)

    engine: Literal["postgresql", "mysql", "mariadb"] = Field(
        description="The database server. Immutable.", json_schema_extra=validations(IMMUTABLE)
    )
    version: str = Field(
        pattern=r"^[0-9]+(\.[0-9]+)?$",
        max_length=8,
        description="Major version, for example 17 or 10.11. Immutable: the data's format belongs to it.",
        json_schema_extra=validations(IMMUTABLE),
    )
    topology: Literal["PrimaryReplica", "PrimaryPrimary"] = Field(
        "PrimaryReplica",
        description="PrimaryReplica: one member takes writes, the others follow. PrimaryPrimary (mysql, mariadb): "
        "every member takes writes and receives those of all others, in a ring; at most 8 members, durability "
        "asynchronous. Immutable.",
        json_schema_extra=validations(IMMUTABLE),
    )
    credentials_ref: LocalRef = Field(
        description="Secret in the same namespace whose key `token` holds the DigitalOcean API token."
    )
    management_policy: Literal["Manage", "Observe"] = Field(
        "Manage",
        description="Manage: make it so. Observe: plan and report, change nothing; `kubectl hasite plan` shows "
        "what would be done.",
    )
    deletion_policy: Literal["Delete", "Retain"] = Field(
        "Retain",
        description="What becomes of the droplets, and with them of the data, when this object is deleted. Retain, "
        "the default for databases: all stay, and serve on. Delete: they are destroyed.",
    )
    locations: tuple[MemberLocation, ...] = Field(
        min_length=1,
        max_length=8,
        description="Datacentres that members stand in. Two or more survive the loss of one.",
        json_schema_extra=list_map("name") | validations(REGIONS_DIFFER),
    )
    size: Size = Field("s-1vcpu-2gb", description="The provider's slug of the droplet size.")
    image: Image | None = Field(
        None,
        description="Slug of a distribution image with Python 3.11 or later, or the ID of a snapshot. Default: the "
        "Debian release that has this version.",
    )
    installation: Installation | None = Field(
        None, description="Where the server's packages come from, when not from the image's own distribution."
    )
    durability: Literal["synchronous", "asynchronous"] = Field(
        "synchronous",
        description="synchronous: an acknowledged write survives the loss of any one location. asynchronous: writes "
        "don't wait for another location, and the latest may be lost with it.",
    )
    degraded_writes: Literal["deny", "allow"] = Field(
        "deny",
        description="Synchronous, with no standby left at another location: deny lets writes wait until there is one; "
        "allow goes on without, and says so in the condition DegradedWrites.",
    )
    maximum_lag: Lag = Field("5s", description="Asynchronous: automatic failover is refused past this lag, 0s to 1h.")
    failover: Failover = Field(default_factory=Failover, description="When a primary counts as lost.")
    databases: tuple[Database, ...] = Field(
        (), max_length=50, description="Databases to create.", json_schema_extra=list_map("name")
    )
    users: tuple[User, ...] = Field(
        (), max_length=50, description="Database users to create.", json_schema_extra=list_map("name")
    )
    access: Access = Field(
        default_factory=Access, description="Who may connect, besides the members and the operator. Default: nobody."
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
        description="The location that should have the primary. A wish: changing it is a planned switchover. After a "
        "failover the primary stays where it is, until this is changed or promote says otherwise.",
    )
    promote: Promote | None = Field(None, description="A person's order to make another member the primary.")
    witness: Witness | None = Field(
        None, description="A guard without a database in a third location, so that a failover needs no operator."
    )
    write_routing: Literal["single", "local"] = Field(
        "single",
        description="PrimaryPrimary: single leads all apps to one member, and to another when that is lost; local "
        "leads each to a member of its own location, to others only while there is none.",
    )
    backup: BackupPlan | None = Field(None, description="Scheduled backups. The members make them by themselves.")
    bootstrap: Bootstrap | None = Field(
        None,
        description="What the new database begins with, when not with nothing. Immutable.",
        json_schema_extra=validations(IMMUTABLE),
    )
    progress_deadline: Deadline = Field(
        "30m", description="A new member that does not replicate by then is reported. 1m to 24h."
    )

    @property
    def effective_image(self) -> str:
        """The image, or the distribution that has the version; "" when there is none."""
        if self.image is not None:
            return self.image
        return next((i for i, has in DISTRIBUTIONS.items() if has.get(self.engine) == self.version), "")


class ReplicatedDatabase(Resource):
    """A database replicated between locations, with failover."""

    KIND: ClassVar[str] = "ReplicatedDatabase"
    PLURAL: ClassVar[str] = "replicateddatabases"
    SHORT: ClassVar[str] = "rdb"
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("Engine", ".spec.engine", description="The database server."),
        Column("Topology", ".spec.topology", description="Which members take writes."),
        Column("Primary", ".status.writers", description="The member, or members, that apps' writes are led to."),
        Column("Members", ".status.membersReady", description="Members that replicate, of those wanted."),
        Column("Lag", ".status.lag", description="ok, lagging or unknown: the worst of all members."),
        READY,
        AGE,
        REASON,
    )

    kind: str = "ReplicatedDatabase"
    spec: ReplicatedDatabaseSpec
    status: ReplicatedDatabaseStatus = Field(default_factory=ReplicatedDatabaseStatus)
