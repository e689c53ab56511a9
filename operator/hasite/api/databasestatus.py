"""The status of a ReplicatedDatabase, and in it what the operator must not forget: its vote, and who takes part."""

from typing import Literal

from pydantic import Field

from hasite.api.common import Condition, DropletRecord, Model, list_map
from hasite.api.databasebackup import BackupStatus

Lagging = Literal["ok", "lagging", "unknown"]


class MemberRecord(Model):
    """One that takes part."""

    name: str = Field(description="Name of its droplet.")
    location: str = Field(description="Name of the location that it stands in.")
    address: str = Field(description="Where the others reach it.")
    witness: bool = Field(False, description="It has no database.")


class MembershipRecord(Model):
    """Who takes part, and whose vote counts."""

    version: int = Field(description="Grows with each change.")
    members: tuple[MemberRecord, ...] = Field(description="All members.", json_schema_extra=list_map("name"))
    voters: tuple[str, ...] = Field(description="Whose vote counts: one guard a location, and perhaps the operator.")


class VoteRecord(Model):
    """The operator's own vote: changed by compare-and-swap only, and never forgotten."""

    epoch: int = Field(0, description="The newest epoch that the operator has granted; 0: none yet.")
    holder: str = Field("", description="The member that it granted it to.")
    ballot: str = Field("", description="The whole vote, as the guards write theirs.")
    owner: str = Field("", description="Identity of the operator process that may speak for this vote.")
    term: int = Field(0, description="Grows whenever a process takes the vote over.")


class MemberStatus(Model):
    """One member as it was seen last."""

    name: str = Field(description="Name of its droplet.")
    location: str = Field(description="Name of the location that it stands in.")
    role: Literal["primary", "standby", "witness", "absent", "stopped", "starting", "failed", "unknown"] = Field(
        description="What its server is."
    )
    lag: Lagging = Field(description="How far it is behind the primary.")
    saved: tuple[str, ...] = Field(
        (), description="Where on that member the data are kept that it alone had when it stopped being primary."
    )
    conflict: str = Field(
        "", description="PrimaryPrimary: why it does not apply what others wrote: the server's words, and the row."
    )


class TurnoverRecord(Model):
    """A change of the primary."""

    kind: Literal["failover", "switchover"] = Field(description="Whether it was planned.")
    at: str = Field(description="When the new primary took its first writes.")
    former: str = Field("", description="The member that took writes before, as far as it was known.")
    primary: str = Field(description="The member that takes writes since.")
    epoch: int = Field(description="Number of its reign.")
    took: str = Field("", description="How long there was no primary; empty when the beginning was not seen.")


class PromotionRecord(Model):
    """An order of spec.promote."""

    location: str = Field(description="Where.")
    epoch: int = Field(description="In which epoch.")


class ReplicatedDatabaseStatus(Model):
    """Observed state of the database."""

    observed_generation: int = Field(-1, description="Generation of the spec that this status speaks of.")
    conditions: tuple[Condition, ...] = Field(
        (), description="What holds now. Ready is the one to wait for.", json_schema_extra=list_map("type")
    )
    primary: str = Field("", description="Name of the member that takes writes; of a ring, of the one that leads.")
    writers: str = Field("", description="Names of the members that apps' writes are led to.")
    epoch: int = Field(0, description="Number of the present reign; it grows with each change of the primary.")
    last_turnover: TurnoverRecord | None = Field(None, description="The latest change of the primary.")
    backup: BackupStatus | None = Field(None, description="The latest backups; absent while none are asked for.")
    members_ready: str = Field("", description="Members that replicate, of those wanted: `2/2`.")
    lag: str = Field("", description="ok, lagging or unknown: the worst of all members.")
    members: tuple[MemberStatus, ...] = Field(
        (), description="Each member as it was seen last.", json_schema_extra=list_map("name")
    )
    droplets: tuple[DropletRecord, ...] = Field(
        (), description="The members' droplets, as the operator must remember them.", json_schema_extra=list_map("name")
    )
    serial: int = Field(0, description="Members made so far: no name is ever used twice, since a name has a vote.")
    membership: MembershipRecord | None = Field(None, description="Who is to take part, as the guards are told.")
    bootstrap: str = Field("", description="The one member that was told to make a new, empty database.")
    made: bool = Field(False, description="The database was made once: a new, empty one is never made again.")
    preferred: str = Field("", description="The primaryLocation that was acted upon last.")
    declined_promotion: PromotionRecord | None = Field(
        None,
        description="A spec.promote with acceptDataLoss that stood there while a primary reigned: it is never carried "
        "out by force. Take it away, and order it again.",
    )
    declared: str = Field("", description="Digest of the users and databases that were declared last.")
    vote: VoteRecord | None = Field(None, description="The operator's own vote.")
    plan: tuple[str, ...] = Field(
        (), max_length=50, description="The steps of the latest plan, each with its reason; at rest there are none."
    )
    left_behind: str = Field("", description="What a deletion could not clean up.")
