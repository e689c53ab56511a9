"""LoadBalancerPool: reverse proxies at each location, and the DNS records that point at them."""

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
    validations,
)

IMAGE = r"^[a-z0-9-]+$"
SIZE = r"^[a-z0-9-]+$"


class LoadBalancerTier(Model):
    """The machines of the load balancer tier."""

    engine: Literal["haproxy"] = Field("haproxy", description="The reverse proxy.")
    replicas_per_location: int = Field(1, ge=1, le=10, description="Load balancers at each location.")
    size: str = Field(
        "s-1vcpu-1gb", description="The provider's slug of the droplet size.", pattern=SIZE, max_length=64
    )
    image: str = Field("debian-12-x64", description="Slug of a Debian or Ubuntu image.", pattern=IMAGE, max_length=64)
    routing: Literal["All", "PreferLocal"] = Field(
        "All",
        description="All: requests go to the app servers of every location alike. PreferLocal: to those of the load balancer's own location while any of them is healthy.",
    )


class Server(Model):
    """One app server that the pool balances over."""

    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)
    location: str = Field(description="Name of the location it stands in.", max_length=20)
    address: str = Field(description="Public IP address.", pattern=r"^[0-9a-f.:]+$", max_length=45)
    private_address: str | None = Field(
        None,
        description="Private IP address, used by load balancers of the same location.",
        pattern=r"^[0-9a-f.:]+$",
        max_length=45,
    )
    state: Literal["Candidate", "Active", "Draining"] = Field(
        "Active",
        description="Candidate: checked, but given no requests. Active: given requests while its checks pass. Draining: given no new requests.",
    )


class Backends(Model):
    """The app servers and how they are checked."""

    port: int = Field(ge=1, le=65535, description="TCP port that every app server listens on.")
    health_check: HealthCheck = Field(default_factory=HealthCheck)
    drain: Duration = Field(
        "10s",
        description="Longest time that requests in flight get to end when a server or load balancer is taken away.",
    )
    servers: tuple[Server, ...] = Field((), max_length=200, json_schema_extra=list_map("name"))


class LoadBalancerPoolSpec(LoadBalancerTier):
    """Desired state of a pool."""

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
    locations: tuple[Location, ...] = Field(min_length=1, max_length=8, json_schema_extra=list_map("name"))
    backends: Backends
    dns: Dns = Field(default_factory=Dns)
    failure_detection: FailureDetection = Field(default_factory=FailureDetection)


class AddressStatus(Model):
    """One address of the pool and whether DNS leads to it."""

    address: str
    family: Literal["A", "AAAA"]
    load_balancer: str = Field(description="Name of the droplet behind it.")
    location: str
    state: Literal["Pending", "Published", "Withdrawn"]
    reason: str = ""
    since: float = Field(0, description="Unix time of the last change of state.")
    withdrawals: tuple[float, ...] = Field(
        (), description="Unix times of the latest withdrawals for being down, for the hold-down."
    )


class ServerStatus(Model):
    """What the load balancers say of one app server."""

    name: str
    state: Literal["Candidate", "Active", "Draining"]
    healthy: bool = Field(description="Every load balancer that could be asked finds it healthy.")
    drained: bool = Field(False, description="No load balancer that could be asked has a request of it in flight.")


class ZoneStatus(Model):
    """The zone that holds the name."""

    name: str
    created_by_us: bool = False


class LoadBalancerPoolStatus(Model):
    """Observed state of a pool."""

    observed_generation: int = -1
    conditions: tuple[Condition, ...] = Field((), json_schema_extra=list_map("type"))
    droplets: tuple[DropletRecord, ...] = Field((), json_schema_extra=list_map("name"))
    addresses: tuple[AddressStatus, ...] = Field((), json_schema_extra=list_map("address"))
    servers: tuple[ServerStatus, ...] = Field((), json_schema_extra=list_map("name"))
    zone: ZoneStatus | None = None
    locations_ready: str = Field("", description="Locations that serve, of those wanted: `2/2`.")
    load_balancers_ready: str = Field("", description="Load balancers that serve, of those wanted: `2/2`.")
    published: str = Field("", description="The addresses that DNS leads to, separated by commas.")
    left_behind: str = Field("", description="What a deletion could not clean up.")


class LoadBalancerPool(Resource):
    """Reverse proxies on droplets at each location, and DNS records that point at the healthy ones."""

    KIND: ClassVar[str] = "LoadBalancerPool"
    PLURAL: ClassVar[str] = "loadbalancerpools"

    kind: str = "LoadBalancerPool"
    spec: LoadBalancerPoolSpec
    status: LoadBalancerPoolStatus = Field(default_factory=LoadBalancerPoolStatus)
