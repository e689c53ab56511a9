"""Backups of a ReplicatedDatabase: when and where they are made, what a new one begins with, what is known of them."""

from pydantic import ConfigDict, Field

from hasite.api.common import DNS_SUBDOMAIN, LocalRef, Model, rule, validations


def _field(*numbers: str) -> str:
    number = f"({'|'.join(numbers)})"
    item = rf"(\*|{number}(-{number})?)(/[1-9][0-9]?)?"
    return f"{item}(,{item})*"


SCHEDULE = (
    "^"
    + " ".join(
        (
            _field("[0-5]?[0-9]"),
            _field("[01]?[0-9]", "2[0-3]"),
            _field("0?[1-9]", "[12][0-9]", "3[01]"),
            _field("0?[1-9]", "1[0-2]"),
            _field("[0-7]"),
        )
    )
    + "$"
)
"""What ``guard.cron`` reads; a range that goes backwards only that refuses."""

ENDPOINT = r"^https://[A-Za-z0-9.-]+(:[0-9]{1,5})?$"
BUCKET = r"^[a-z0-9][a-z0-9.-]*[a-z0-9]$"
S3_REGION = r"^[a-z0-9-]+$"
PREFIX = r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$"
FOLDER = r"^(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$"
LABEL = r"^[A-Za-z0-9_-]+$"
MOMENT = r"^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?Z$"


class S3(Model):
    """A bucket of any store that speaks S3."""

    endpoint: str = Field(
        description="For example https://ams3.digitaloceanspaces.com.", pattern=ENDPOINT, max_length=255
    )
    bucket: str = Field(
        description="Its name; it exists already. It is asked for by path, not as a part of the host's name.",
        pattern=BUCKET,
        max_length=63,
    )
    region: str = Field("us-east-1", description="What signatures are made for.", pattern=S3_REGION, max_length=40)
    prefix: str | None = Field(None, description="A folder within the bucket.", pattern=PREFIX, max_length=200)
    credentials_ref: LocalRef = Field(
        description="Secret with the keys `accessKeyId` and `secretAccessKey`, and `ca.crt` where the endpoint's "
        "certificate is of an authority of your own."
    )


class BackupTarget(Model):
    """A bucket, or else a folder."""

    model_config = ConfigDict(json_schema_extra=validations(rule("has(self.s3) || has(self.path)", "give s3 or path")))

    s3: S3 | None = Field(None, description="A bucket.")
    path: str | None = Field(
        None,
        description="Without s3: a folder that is mounted on every member, the same for all (NFS, for example), and "
        "writable by the server's user. You mount it; a folder on the database's own disk is refused.",
        pattern=FOLDER,
        max_length=200,
    )


class BackupPlan(Model):
    """Backups that the members make by themselves."""

    schedule: str = Field(
        description="When, as cron writes it, in UTC: `0 3 * * *` is every night at three. Numbers only.",
        pattern=SCHEDULE,
        max_length=100,
    )
    retention: int = Field(7, ge=1, le=100, description="How many full backups are kept; older ones are deleted.")
    target: BackupTarget = Field(description="Where they are kept, in a folder of this database's own.")


class FromBackup(Model):
    """A backup to begin with."""

    target: BackupTarget = Field(description="Where it is. Nothing is written there.")
    name: str = Field(
        description="Name of the database that made it; or status.backup.repository of it, when there were several "
        "of that name.",
        pattern=DNS_SUBDOMAIN,
        max_length=253,
    )
    backup: str = Field(
        "latest",
        description="Its label; that database is restored as it was at its end. latest: the newest one, and "
        "(postgresql) all that was archived after it.",
        pattern=LABEL,
        max_length=64,
    )
    point_in_time: str | None = Field(
        None,
        description="postgresql: the moment to restore, in UTC, for example 2026-11-24T13:00:00Z. With latest, the "
        "backup before it is taken.",
        pattern=MOMENT,
        max_length=30,
    )


class Bootstrap(Model):
    """What a new database begins with, in place of nothing."""

    from_backup: FromBackup = Field(description="A backup of this or another database of the same engine and version.")


BACKUP_RULES = (
    rule(
        "!has(self.bootstrap) || self.engine == 'postgresql' || !has(self.bootstrap.fromBackup.pointInTime)",
        "pointInTime is for postgresql",
    ),
    rule("has(self.bootstrap) == has(oldSelf.bootstrap)", "bootstrap is immutable"),
)
"""Of the spec."""


class BackupStatus(Model):
    """What the members say of backups."""

    repository: str = Field("", description="This database's own folder within the target.")
    last_successful: str = Field("", description="When the newest good backup was begun.")
    label: str = Field("", description="Its name, for bootstrap.fromBackup.backup.")
    member: str = Field("", description="Who made it.")
    size_bytes: int = Field(0, description="What it takes in the target.")
    duration_seconds: int = Field(0, description="How long it took.")
    last_failure: str = Field("", description="When the newest backup that failed was begun.")
    reason: str = Field("", description="Why it failed, in the tool's words.")
