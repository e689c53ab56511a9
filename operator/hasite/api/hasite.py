"""HASite: a website at two or more locations."""

from typing import ClassVar, Literal

from pydantic import Field

from hasite.api.common import (
    IMMUTABLE,
    Condition,
    Dns,
    DropletRecord,
    Duration,
    FailureDetection,
    HealthCheck,
    Hostname,
    LocalRef,
    Location,
    Model,
    Resource,
    list_map,
    rule,
    validations,
)
from hasite.api.loadbalancerpool import IMAGE, SIZE, LoadBalancerTier


class App(Model):
    """The stateless app servers."""

    replicas_per_location: int = Field(1, ge=1, le=50, description="App servers at each location.")
    port: int = Field(ge=1, le=65535, description="TCP port that the app listens on, plain HTTP.")
    health_check: HealthCheck = Field(default_factory=HealthCheck)
    size: str = Field(
        "s-1vcpu-1gb", description="The provider's slug of the droplet size.", pattern=SIZE, max_length=64
    )
    image: str = Field(
        "debian-12-x64",
        description="Slug of a distribution image, or the ID of a snapshot.",
        pattern=IMAGE,
        max_length=64,
    )
    user_data: str = Field(
        "",
        description="cloud-init user data that installs and starts the app: a #cloud-config document or a script beginning with #!. No secrets: any process on the droplet can read it.",
        max_length=49152,
    )
    drain: Duration = Field(
        "10s", description="Longest time that requests in flight get to end when a server is taken away."
    )
    progress_deadline: Duration = Field(
        "10m", description="A new server that is not healthy by then stops the roll-out and is reported."
    )


class HASiteSpec(Model):
    """Desired state of a site."""

    domain: Hostname = Field(description="The name that visitors use.", json_schema_extra=validations(IMMUTABLE))
    credentials_ref: LocalRef = Field(
        description="Secret in the same namespace whose key `token` holds the DigitalOcean API token."
    )
    management_policy: Literal["Manage", "Observe"] = Field(
        "Manage", description="Observe: plan and report, change nothing."
    )
    deletion_policy: Literal["Delete", "Retain"] = Field(
        "Delete", description="What becomes of droplets, firewalls and records when this object is deleted."
    )
    locations: tuple[Location, ...] = Field(
        min_length=1,
        max_length=8,
        description="Datacentres that the site stands in. Two or more survive the loss of one.",
        json_schema_extra=list_map("name")
        | validations(rule("self.all(a, self.exists_one(b, b.region == a.region))", "each region may be named once")),
    )
    load_balancers: LoadBalancerTier = Field(default_factory=LoadBalancerTier)
    app: App
    dns: Dns = Field(default_factory=Dns)
    failure_detection: FailureDetection = Field(default_factory=FailureDetection)
    database_ref: LocalRef | None = Field(
        None, description="ReplicatedDatabase in the same namespace. Not supported yet."
    )


class HASiteStatus(Model):
    """Observed state of a site."""

    observed_generation: int = -1
    conditions: tuple[Condition, ...] = Field((), json_schema_extra=list_map("type"))
    droplets: tuple[DropletRecord, ...] = Field((), json_schema_extra=list_map("name"))
    locations_ready: str = Field("", description="Locations that serve, of those wanted: `2/2`.")
    load_balancers_ready: str = Field("", description="Load balancers that serve, of those wanted: `2/2`.")
    apps_ready: str = Field("", description="App servers that are healthy, of those wanted: `4/4`.")
    published: str = Field("", description="The addresses that DNS leads to, separated by commas.")
    left_behind: str = Field("", description="What a deletion could not clean up.")


class HASite(Resource):
    """A website that stays up when a datacentre goes dark."""

    KIND: ClassVar[str] = "HASite"
    PLURAL: ClassVar[str] = "hasites"

    kind: str = "HASite"
    spec: HASiteSpec
    status: HASiteStatus = Field(default_factory=HASiteStatus)
