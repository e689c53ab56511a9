"""Parts that the three kinds share. Field descriptions are what ``kubectl explain`` prints."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema

GROUP = "hasite.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
FINALIZER = f"{GROUP}/cleanup"
CATEGORY = "hasite"
"""``kubectl get hasite`` lists all kinds."""

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
HOSTNAME = r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"
DURATION = r"^([0-9]+(ms|s|m|h))+$"
REGION = r"^[a-z]{3}[0-9]{1,2}$"
SIZE = r"^[a-z0-9][a-z0-9_-]*$"
IMAGE = r"^[a-z0-9][a-z0-9._-]*$"
URL_PATH = r"^/[A-Za-z0-9._~!&*+,=:@%/?-]*$"
"""RFC 3986 without the characters that mean something to a proxy's configuration: quotes, $, ;, parentheses."""

Hostname = Annotated[str, Field(pattern=HOSTNAME, max_length=245)]
"""Shorter than a name may be by ``_hasite.``: that one before it holds who owns it."""
Size = Annotated[str, Field(pattern=SIZE, max_length=64)]
Image = Annotated[str, Field(pattern=IMAGE, max_length=64)]


def rule(expression: str, message: str) -> dict[str, str]:
    """One CEL rule of ``x-kubernetes-validations``."""
    return {"rule": expression, "message": message}


def validations(*rules: dict[str, str]) -> dict[str, Any]:
    """``json_schema_extra`` that carries CEL rules to the CRD."""
    return {"x-kubernetes-validations": list(rules)}


def list_map(*keys: str) -> dict[str, Any]:
    """``json_schema_extra`` of a list whose items are identified by ``keys`` (server-side apply merges by them)."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


IMMUTABLE = rule("self == oldSelf", "this field is immutable")
REGIONS_DIFFER = rule("self.all(a, self.exists_one(b, b.region == a.region))", "each region may be named once")
ZONE_HOLDS_DOMAIN = rule(
    "!has(self.dns.zone) || self.domain == self.dns.zone || self.domain.endsWith('.' + self.dns.zone)",
    "dns.zone must be the domain itself or a parent of it",
)
TIMEOUT_WITHIN_INTERVAL = rule(
    "duration(self.timeout) <= duration(self.interval)", "timeout must not be longer than interval"
)


def seconds(duration: str) -> float:
    """``1m30s`` → 90.0. Raises ValueError for anything that ``DURATION`` does not match."""
    if not re.fullmatch(DURATION, duration):
        raise ValueError(f"not a duration: {duration!r}")
    milliseconds = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
    return sum(int(number) * milliseconds[unit] for number, unit in re.findall(r"([0-9]+)(ms|s|m|h)", duration)) / 1000


@dataclass(frozen=True)
class Between:
    """Bounds of a duration, both inclusive: held by the model and, as a CEL rule, by the API server."""

    low: str
    high: str

    @property
    def message(self) -> str:
        """What the refusal says."""
        return f"must be between {self.low} and {self.high}"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        expression = f"duration(self) >= duration('{self.low}') && duration(self) <= duration('{self.high}')"
        return handler(schema) | validations(rule(expression, self.message))

    def _check(self, value: str) -> str:
        if not seconds(self.low) <= seconds(value) <= seconds(self.high):
            raise ValueError(self.message)
        return value


class IsIP:
    """An IP address without a zone or a prefix: held by the model and, as a CEL rule, by the API server (from 1.31)."""

    MESSAGE = "must be an IPv4 or IPv6 address"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(schema) | validations(rule("isIP(self)", self.MESSAGE))

    def _check(self, value: str) -> str:
        try:
            ipaddress.ip_address(value)
        except ValueError:
            raise ValueError(self.MESSAGE) from None
        return value


_Span = Annotated[str, Field(pattern=DURATION, max_length=20)]
Interval = Annotated[_Span, Between("250ms", "1m")]
Timeout = Annotated[_Span, Between("100ms", "1m")]
Drain = Annotated[_Span, Between("0s", "10m")]
HoldDown = Annotated[_Span, Between("0s", "1h")]
Deadline = Annotated[_Span, Between("1m", "24h")]
Lag = Annotated[_Span, Between("0s", "1h")]
IpAddress = Annotated[str, Field(pattern=r"^[0-9a-f.:]+$", max_length=45), IsIP()]


class Model(BaseModel):
    """A part of a custom resource: immutable, camelCase on the wire, unknown fields passed over."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")

    def wire(self) -> dict[str, Any]:
        """The JSON form, without fields that are None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class LocalRef(Model):
    """Names an object in the same namespace."""

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-map-type": "atomic"})

    name: str = Field(description="Name of the object.", pattern=DNS_SUBDOMAIN, max_length=253)


class Location(Model):
    """A datacentre that the site stands in."""

    name: str = Field(
        description="Your name for the datacentre, for example new-york. It is a part of the names of machines there.",
        pattern=DNS_LABEL,
        max_length=20,
    )
    region: str = Field(
        description="The provider's slug of the region, for example nyc3. Immutable: to move, add a location and take "
        "this one away.",
        pattern=REGION,
        max_length=5,
        json_schema_extra=validations(
            rule("self == oldSelf", "region is immutable: add a location and take this one away")
        ),
    )


class HealthCheck(Model):
    """How a load balancer decides that an app server can serve: by an HTTP GET on the app's port."""

    model_config = ConfigDict(json_schema_extra=validations(TIMEOUT_WITHIN_INTERVAL))

    path: str = Field(
        "/", description="Path that answers 2xx or 3xx when the app can serve.", pattern=URL_PATH, max_length=256
    )
    interval: Interval = Field("2s", description="Time between two checks of one server, 250ms to 1m.")
    timeout: Timeout = Field(
        "1s", description="A check that takes longer has failed. 100ms to 1m, and no longer than interval."
    )
    rise: int = Field(2, ge=1, le=20, description="Consecutive successes before a server gets requests.")
    fall: int = Field(2, ge=1, le=20, description="Consecutive failures before a server gets no more requests.")


class FailureDetection(Model):
    """When the address of a load balancer is taken out of DNS, and when it is put back.

    Every load balancer is probed by the operator and by the load balancers of the other locations. An address is
    withdrawn only when more than one vantage point finds it down, and the last address of a name is never withdrawn.
    """

    model_config = ConfigDict(json_schema_extra=validations(TIMEOUT_WITHIN_INTERVAL))

    interval: Interval = Field(
        "1s", description="Time between two probes of one load balancer, from each vantage point. 250ms to 1m."
    )
    timeout: Timeout = Field(
        "800ms", description="A probe that takes longer has failed. 100ms to 1m, and no longer than interval."
    )
    failure_threshold: int = Field(
        3,
        ge=1,
        le=60,
        description="Consecutive failed probes after which a vantage point holds a load balancer to be down. "
        "interval times this number is about the time that a lost datacentre takes to leave DNS.",
    )
    recovery_threshold: int = Field(
        5,
        ge=1,
        le=60,
        description="Consecutive successful probes after which a vantage point holds a load balancer to be up again.",
    )
    hold_down: HoldDown = Field(
        "15s",
        description="A withdrawn address stays out for at least this long, 0s to 1h. Doubled for every withdrawal in "
        "the last ten minutes, up to five minutes.",
    )


class Dns(Model):
    """How the name is published: the zone, and for how long resolvers may remember an answer."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule("self.degradedTtlSeconds <= self.ttlSeconds", "degradedTtlSeconds must not exceed ttlSeconds"),
            rule(
                "!has(oldSelf.zone) || (has(self.zone) && self.zone == oldSelf.zone)",
                "zone is immutable once it is set",
            ),
        )
    )

    zone: Hostname | None = Field(
        None,
        description="The zone that holds the name: the domain itself or a parent of it. Default: the longest domain "
        "of the account that the name lies in, else the name itself, created as a domain. Immutable once set.",
    )
    ttl_seconds: int = Field(
        60, ge=30, le=86400, description="TTL of the address records, in seconds. DigitalOcean allows no less than 30."
    )
    degraded_ttl_seconds: int = Field(
        30,
        ge=30,
        le=86400,
        description="TTL in seconds while a location is withdrawn, so that its return is seen soon. "
        "At most ttlSeconds.",
    )


class Condition(Model):
    """One condition, after the Kubernetes API conventions (and kstatus for Ready, Reconciling, Stalled)."""

    type: str = Field(description="What it is about, for example Ready or DNSPublished.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: str = Field(max_length=1024, description="Why, as one CamelCase word for programs.")
    message: str = Field("", max_length=32768, description="Why, for a person.")
    observed_generation: int | None = Field(None, description="Generation of the spec that it was judged by.")
    last_transition_time: str | None = Field(
        None, description="When status last changed.", json_schema_extra={"format": "date-time"}
    )


class Claim(Model):
    """The intent to create a droplet, written before the provider is asked: who means to, and since when."""

    by: str = Field(description="Identity of the operator process.")
    at: float = Field(description="Unix time of the intent.")


class DropletRecord(Model):
    """What must be remembered of one droplet across a crash of the operator."""

    name: str = Field(description="The droplet's name at the provider.")
    location: str = Field(description="Name of the location that it stands in.")
    region: str = Field(description="Slug of the provider's region.")
    template: str = Field(description="Hash of what it was made from: image, size, user data.")
    claim: Claim | None = Field(None, description="Set before the request to create it; gone once its ID is known.")
    droplet_id: int | None = Field(None, description="The provider's ID.")
    public_ipv4: str | None = Field(None, alias="publicIPv4", description="Public IPv4 address.")
    public_ipv6: str | None = Field(None, alias="publicIPv6", description="Public IPv6 address.")
    private_ipv4: str | None = Field(None, alias="privateIPv4", description="IPv4 address in its region's VPC.")
    bootstrap_keys: tuple[str, ...] = Field(
        (), description="SSH host keys given to it in its user data, until it shows one of its own."
    )
    host_key: str | None = Field(None, description="SSH host key that was made on the machine.")
    served: bool = Field(False, description="True once it has served: from then on it counts as capacity.")
    leaving_since: float | None = Field(None, description="Unix time since when it is being taken out of service.")
    released_since: float | None = Field(None, description="Unix time since when nothing points at it any more.")

    @property
    def pinned(self) -> bool:
        """The bootstrap's host key was replaced by one that only the machine has."""
        return self.host_key is not None and not self.bootstrap_keys

    @property
    def known_keys(self) -> tuple[str, ...]:
        """The host keys that it may show."""
        return (*self.bootstrap_keys, *((self.host_key,) if self.host_key else ()))


@dataclass(frozen=True)
class Column:
    """A column of ``kubectl get``. Priority 0 is always shown, 1 only with ``-o wide``."""

    name: str
    path: str
    type: Literal["string", "integer", "date"] = "string"
    description: str = ""
    priority: int = 0


def _ready(field: str) -> str:
    return f'.status.conditions[?(@.type=="Ready")].{field}'


READY = Column("Ready", _ready("status"), description="Whether everything that the spec asks for is there and serves.")
REASON = Column("Reason", _ready("reason"), description="Why it is ready or not.", priority=1)
AGE = Column("Age", ".metadata.creationTimestamp", "date", description="Time since it was created.")


class Resource(Model):
    """What every kind has."""

    KIND: ClassVar[str]
    PLURAL: ClassVar[str]
    SHORT: ClassVar[str]
    COLUMNS: ClassVar[tuple[Column, ...]]

    api_version: str = API_VERSION
    kind: str
    metadata: dict[str, Any]

    @property
    def name(self) -> str:
        """Name within the namespace."""
        return str(self.metadata["name"])

    @property
    def namespace(self) -> str:
        """The namespace that it lives in."""
        return str(self.metadata["namespace"])

    @property
    def uid(self) -> str:
        """Differs for an object that was deleted and created again."""
        return str(self.metadata["uid"])

    @property
    def generation(self) -> int:
        """Counts the changes of the spec."""
        return int(self.metadata.get("generation", 0))

    @property
    def deleting(self) -> bool:
        """True once a deletion was asked for."""
        return "deletionTimestamp" in self.metadata

    @property
    def finalizers(self) -> tuple[str, ...]:
        """What must be done before the object may go."""
        return tuple(self.metadata.get("finalizers", ()))
