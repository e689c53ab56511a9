"""LoadBalancerPool: reverse proxies at each location, and the DNS records that point at them."""

from typing import ClassVar, Literal

from pydantic import ConfigDict, Field

from hasite.api.common import (
    AGE,
    DNS_LABEL,
    IMMUTABLE,
    READY,
    REASON,
    REGIONS_DIFFER,
    ZONE_HOLDS_DOMAIN,
    Column,
    Condition,
    Dns,
    Drain,
    DropletRecord,
    FailureDetection,
    HealthCheck,
    Hostname,
    Image,
    IpAddress,
    LocalRef,
    Location,
    Model,
    Resource,
    Size,
    list_map,
    validations,
)


class LoadBalancerTier(Model):
    """The machines of the load balancer tier."""

    engine: Literal["haproxy"] = Field("haproxy", description="The reverse proxy.")
    replicas_per_location: int = Field(1, ge=1, le=10, description="Load balancers at each location.")
    size: Size = Field("s-1vcpu-1gb", description="The provider's slug of the droplet size.")
    image: Image = Field("debian-12-x64", description="Slug of a Debian or Ubuntu image.")
    routing: Literal["All", "PreferLocal"] = Field(
        "All",
        description="All: requests go to the app servers of every location alike. PreferLocal: to those of the load "
        "balancer's own location while any of them is healthy.",
    )


class Server(Model):
    """One app server that the pool balances over."""

    name: str = Field(description="Its name in the proxy's configuration.", pattern=DNS_LABEL, max_length=63)
    location: str = Field(
        description="Name of the location it stands in; it need not be one that has load balancers.",
        pattern=DNS_LABEL,
        max_length=20,
    )
    address: IpAddress = Field(description="Public IP address.")
    private_address: IpAddress | None = Field(
        None, description="Private IP address, used by load balancers of the same location."
    )
    state: Literal["Candidate", "Active", "Draining"] = Field(
        "Active",
        description="Candidate: checked, but given no requests. Active: given requests while its checks pass. "
        "Draining: given no new requests.",
    )


class Backends(Model):
    """The app servers and how they are checked."""

    port: int = Field(ge=1, le=65535, description="TCP port that every app server listens on, plain HTTP.")
    health_check: HealthCheck = Field(
        default_factory=HealthCheck, description="How a load balancer decides that an app server can serve."
    )
    drain: Drain = Field(
        "10s",
        description="Longest time that requests in flight get to end when a server or load balancer is taken away, "
        "0s to 10m.",
    )
    servers: tuple[Server, ...] = Field(
        (),
        max_length=500,
        description="The app servers. Those of every location are used by the load balancers of every location.",
        json_schema_extra=list_map("name"),
    )


class LoadBalancerPoolSpec(LoadBalancerTier):
    """Desired state of the pool. The operator never writes it, but for a pool that a HASite owns."""

    model_config = ConfigDict(json_schema_extra=validations(ZONE_HOLDS_DOMAIN))

    domain: Hostname = Field(
        description="The name that visitors use, for example www.example.com. Immutable.",
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
        description="Datacentres that load balancers stand in. Two or more survive the loss of one.",
        json_schema_extra=list_map("name") | validations(REGIONS_DIFFER),
    )
    backends: Backends = Field(description="The app servers that requests go to.")
    dns: Dns = Field(default_factory=Dns, description="How the name is published.")
    failure_detection: FailureDetection = Field(default_factory=FailureDetection)


class AddressStatus(Model):
    """One address of the pool and whether DNS leads to it."""

    address: str = Field(description="The IP address.")
    family: Literal["A", "AAAA"] = Field(description="Type of its DNS record.")
    load_balancer: str = Field(description="Name of the droplet behind it.")
    location: str = Field(description="Name of the location that it is at.")
    state: Literal["Pending", "Published", "Withdrawn"] = Field(
        description="Pending: not published yet. Published: DNS leads to it. Withdrawn: taken out of DNS."
    )
    reason: str = Field("", description="Why it is in that state.")
    since: float = Field(0, description="Unix time of the last change of state.")
    withdrawals: tuple[float, ...] = Field(
        (), description="Unix times of the latest withdrawals for being down, for the hold-down."
    )


class ServerStatus(Model):
    """What the load balancers say of one app server."""

    name: str = Field(description="Its name in the spec.")
    state: Literal["Candidate", "Active", "Draining"] = Field(description="The state that the proxies have it in.")
    healthy: bool = Field(description="Every load balancer that could be asked finds it healthy.")
    since: float = Field(0, description="Unix time since when every load balancer has it in this state.")
    drained: bool = Field(False, description="No load balancer that could be asked has a request of it in flight.")


class ZoneStatus(Model):
    """The zone that holds the name."""

    name: str = Field(description="The zone's name.")
    created_by_us: bool = Field(False, description="True when the operator created the zone at the provider.")


class LoadBalancerPoolStatus(Model):
    """Observed state of the pool."""

    observed_generation: int = Field(-1, description="Generation of the spec that this status speaks of.")
    conditions: tuple[Condition, ...] = Field(
        (), description="What holds now. Ready is the one to wait for.", json_schema_extra=list_map("type")
    )
    droplets: tuple[DropletRecord, ...] = Field(
        (), description="The load balancers, as the operator must remember them.", json_schema_extra=list_map("name")
    )
    addresses: tuple[AddressStatus, ...] = Field(
        (), description="The pool's addresses, published or not.", json_schema_extra=list_map("address")
    )
    servers: tuple[ServerStatus, ...] = Field(
        (), description="What the load balancers say of the app servers.", json_schema_extra=list_map("name")
    )
    ttl_seconds: int = Field(0, description="Longest TTL, in seconds, that the published records may have now.")
    longer_ttl_until: float = Field(0, description="Unix time until when resolvers may hold records of a longer TTL.")
    zone: ZoneStatus | None = Field(None, description="The zone that holds the name.")
    locations_ready: str = Field("", description="Locations that serve, of those wanted: `2/2`.")
    load_balancers_ready: str = Field("", description="Load balancers that serve, of those wanted: `2/2`.")
    published: str = Field("", description="The addresses that DNS leads to, separated by commas.")
    plan: tuple[str, ...] = Field(
        (), max_length=50, description="The steps of the latest plan, each with its reason; at rest there are none."
    )
    left_behind: str = Field("", description="What a deletion could not clean up.")


class LoadBalancerPool(Resource):
    """Reverse proxies on droplets at each location, and DNS records that point at the healthy ones."""

    KIND: ClassVar[str] = "LoadBalancerPool"
    PLURAL: ClassVar[str] = "loadbalancerpools"
    SHORT: ClassVar[str] = "lbp"
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("Domain", ".spec.domain", description="The name that visitors use."),
        READY,
        Column("Locations", ".status.locationsReady", description="Locations that serve, of those wanted."),
        Column(
            "Load-Balancers", ".status.loadBalancersReady", description="Load balancers that serve, of those wanted."
        ),
        Column("Addresses", ".status.published", description="The addresses that DNS leads to."),
        AGE,
        REASON,
    )

    kind: str = "LoadBalancerPool"
    spec: LoadBalancerPoolSpec
    status: LoadBalancerPoolStatus = Field(default_factory=LoadBalancerPoolStatus)
