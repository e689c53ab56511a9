"""From the members that a roll-out wants to the claims that are written before anything is bought."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hasite.api.common import Claim, DropletRecord
from hasite.plan.names import Owner, Role, droplet_name
from hasite.plan.rollout import Create
from hasite.plan.steps import CreateDroplet


@dataclass(frozen=True)
class Claims:
    """``regions`` by location; ``identity`` is the operator process that means to buy, at ``now``."""

    owner: Owner
    role: Role
    template: str
    regions: Mapping[str, str]
    identity: str
    now: float

    def of(self, wanted: Sequence[Create]) -> tuple[tuple[DropletRecord, ...], tuple[CreateDroplet, ...]]:
        """The records with their claims, and the steps that follow once these are written."""
        records: list[DropletRecord] = []
        steps: list[CreateDroplet] = []
        for create in wanted:
            name = droplet_name(self.owner, self.role, create.location, self.template, create.ordinal)
            region = self.regions[create.location]
            claim = Claim(by=self.identity, at=self.now)
            records.append(
                DropletRecord(name=name, location=create.location, region=region, template=self.template, claim=claim)
            )
            steps.append(CreateDroplet(name, create.location, region, self.role, create.reason))
        return tuple(records), tuple(steps)
