"""HASite: a website at two or more locations."""

from typing import ClassVar, Literal

from pydantic import ConfigDict, Field

from hasite.api.common import (
    AGE,
    DNS_SUBDOMAIN,
    IMMUTABLE,
    READY,
    REASON,
    REGIONS_DIFFER,
    ZONE_HOLDS_DOMAIN,
    Column,
    Condition,
    Deadline,
    Dns,
    Drain,
    DropletRecord,
    FailureDetection,
    HealthCheck,
    Hostname,
    Image,
    LocalRef,
    Location,
    Model,
    Resource,
    Size,
    list_map,
    rule,
    validations,
)
from hasite.api.loadbalancerpool import LoadBalancerTier
from hasite.api.replicateddatabase import IDENTIFIER

USER_DATA_BYTES = 49152
"""The provider takes 64 KiB; the rest is for what the operator adds."""


class App(Model):
    """The stateless app servers: droplets that cloud-init (or a snapshot) turns into instances of your app."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "self.userData != '' || self.image.matches('^[0-9]+$')",
                "an app needs userData, or the ID of a snapshot as its image",
            )
        )
    )

    replicas_per_location: int = Field(
        1,
        ge=1,
        le=50,
        description="App servers at each location. Each location should carry the whole load alone: "
        "the others may be gone.",
    )
    port: int = Field(ge=1, le=65535, description="TCP port that the app listens on, plain HTTP.")
    health_check: HealthCheck = Field(
        default_factory=HealthCheck, description="How a load balancer decides that an app server can serve."
    )
    size: Size = Field("s-1vcpu-1gb", description="The provider's slug of the droplet size.")
    image: Image = Field("debian-12-x64", description="Slug of a distribution image, or the ID of a snapshot.")
    user_data: str = Field(
        "",
        description="cloud-init user data that installs and starts the app: a #cloud-config document or a script "
        "beginning with #!. At most 48 KiB. No secrets: any process on the droplet can read it. "
        "A change of it, of image or of size rolls through the locations, one at a time.",
        max_length=USER_DATA_BYTES,
        json_schema_extra=validations(
            rule(
                "self == '' || self.startsWith('#cloud-config') || self.startsWith('#!')",
                "userData must begin with #cloud-config or #!",
            ),
            rule(f"bytes(self).size() <= {USER_DATA_BYTES}", f"userData must not exceed {USER_DATA_BYTES} bytes"),
        ),
    )
    drain: Drain = Field(
        "10s", description="Longest time that requests in flight get to end when a server is taken away, 0s to 10m."
    )
    progress_deadline: Deadline = Field(
        "10m",
        description="A new server that is not healthy by then stops the roll-out, with the old ones still serving, "
        "and is reported. 1m to 24h.",
    )


class DatabaseUse(Model):
    """The database that the app uses. On every app server a local proxy leads to its members, and
    `/etc/hasite/database.env` says how to log in."""

    name: str = Field(
        description="A ReplicatedDatabase in the same namespace. It lets the site's app servers in.",
        pattern=DNS_SUBDOMAIN,
        max_length=253,
    )
    database: str = Field(description="One of its spec.databases.", pattern=IDENTIFIER, max_length=63)
    user: str = Field(description="One of its spec.users, whom the app logs in as.", pattern=IDENTIFIER, max_length=32)


class HASiteSpec(Model):
    """Desired state of the site. The operator never writes it."""

    model_config = ConfigDict(json_schema_extra=validations(ZONE_HOLDS_DOMAIN))

    domain: Hostname = Field(
        description="The name that visitors use, for example shop.example.com. Immutable.",
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
        "Delete",
        description="What becomes of droplets, firewalls and records when this object is deleted. Delete: records "
        "first, then, when nobody can be led there any more, the machines. Retain: all stay, and serve on.",
    )
    locations: tuple[Location, ...] = Field(
        min_length=1,
        max_length=8,
        description="Datacentres that the site stands in. Two or more survive the loss of one.",
        json_schema_extra=list_map("name") | validations(REGIONS_DIFFER),
    )
    load_balancers: LoadBalancerTier = Field(
        default_factory=LoadBalancerTier, description="The load balancer tier: what DNS leads to."
    )
    app: App = Field(description="The app tier: what the load balancers lead to.")
    dns: Dns = Field(default_factory=Dns, description="How the name is published.")
    failure_detection: FailureDetection = Field(default_factory=FailureDetection)
    database: DatabaseUse | None = Field(
        None,
        description="The database that the app uses. To set it first, or to take it away, rolls through the app "
        "servers, for they get a proxy of their own; to change it does not.",
    )


class HASiteStatus(Model):
    """Observed state of the site and of everything below it."""

    observed_generation: int = Field(-1, description="Generation of the spec that this status speaks of.")
    conditions: tuple[Condition, ...] = Field(
        (), description="What holds now. Ready is the one to wait for.", json_schema_extra=list_map("type")
    )
    droplets: tuple[DropletRecord, ...] = Field(
        (), description="The app servers, as the operator must remember them.", json_schema_extra=list_map("name")
    )
    locations_ready: str = Field("", description="Locations that serve, of those wanted: `2/2`.")
    load_balancers_ready: str = Field("", description="Load balancers that serve, of those wanted: `2/2`.")
    apps_ready: str = Field("", description="App servers that are healthy, of those wanted: `4/4`.")
    published: str = Field("", description="The addresses that DNS leads to, separated by commas.")
    plan: tuple[str, ...] = Field(
        (), max_length=50, description="The steps of the latest plan, each with its reason; at rest there are none."
    )
    left_behind: str = Field("", description="What a deletion could not clean up.")


class HASite(Resource):
    """A website that stays up when a datacentre goes dark: app servers, load balancers and DNS at several locations."""

    KIND: ClassVar[str] = "HASite"
    PLURAL: ClassVar[str] = "hasites"
    SHORT: ClassVar[str] = "has"
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("Domain", ".spec.domain", description="The name that visitors use."),
        READY,
        Column("Locations", ".status.locationsReady", description="Locations that serve, of those wanted."),
        Column(
            "Load-Balancers", ".status.loadBalancersReady", description="Load balancers that serve, of those wanted."
        ),
        Column("Apps", ".status.appsReady", description="App servers that are healthy, of those wanted."),
        Column("Addresses", ".status.published", description="The addresses that DNS leads to."),
        AGE,
        REASON,
    )

    kind: str = "HASite"
    spec: HASiteSpec
    status: HASiteStatus = Field(default_factory=HASiteStatus)
