"""Parts that the three kinds share. Field descriptions are what ``kubectl explain`` prints."""

import re
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

GROUP = "hasite.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
FINALIZER = f"{GROUP}/cleanup"

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
HOSTNAME = r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"
DURATION = r"^([0-9]+(ms|s|m|h))+$"

Duration = Annotated[str, Field(pattern=DURATION, max_length=20)]
Hostname = Annotated[str, Field(pattern=HOSTNAME, max_length=253)]


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


def seconds(duration: str) -> float:
    """``1m30s`` → 90.0. Raises ValueError for anything that ``DURATION`` does not match."""
    if not re.fullmatch(DURATION, duration):
        raise ValueError(f"not a duration: {duration!r}")
    units = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours"}
    parts = re.findall(r"([0-9]+)(ms|s|m|h)", duration)
    return sum((timedelta(**{units[unit]: int(number)}) for number, unit in parts), timedelta()).total_seconds()


class Model(BaseModel):
    """A part of a custom resource: immutable, camelCase on the wire, unknown fields passed over."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")

    def wire(self) -> dict[str, Any]:
        """The JSON form, without fields that are None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class LocalRef(Model):
    """Names an object in the same namespace."""

    name: str = Field(description="Name of the object.", pattern=DNS_LABEL, max_length=253)


class Location(Model):
    """A datacentre that the site stands in."""

    name: str = Field(
        description="Your name for it; it becomes a part of machine names.", pattern=DNS_LABEL, max_length=20
    )
    region: str = Field(
        description="The provider's slug of the region, for example nyc3. Immutable: add a location and take this one away instead.",
        pattern=r"^[a-z]{3}[0-9]$",
        json_schema_extra=validations(
            rule("self == oldSelf", "region is immutable: add a location and take this one away")
        ),
    )


class HealthCheck(Model):
    """How a load balancer decides that an app server can serve."""

    path: str = Field(
        "/",
        description="Path that answers 2xx or 3xx when the app can serve.",
        pattern=r"^/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*$",
        max_length=256,
    )
    interval: Duration = Field("2s", description="Time between two checks of one server.")
    timeout: Duration = Field("1s", description="A check that takes longer has failed.")
    rise: int = Field(2, ge=1, le=20, description="Consecutive successes before a server gets requests.")
    fall: int = Field(2, ge=1, le=20, description="Consecutive failures before a server gets no more requests.")


class FailureDetection(Model):
    """When a load balancer's address is taken out of DNS, and when it is put back."""

    interval: Duration = Field(
        "1s", description="Time between two probes of one load balancer, from each vantage point."
    )
    timeout: Duration = Field("800ms", description="A probe that takes longer has failed.")
    failure_threshold: int = Field(
        3,
        ge=1,
        le=60,
        description="Consecutive failed probes after which the operator holds a load balancer to be down.",
    )
    recovery_threshold: int = Field(
        5, ge=1, le=60, description="Consecutive successful probes after which it holds it to be up again."
    )
    hold_down: Duration = Field(
        "15s",
        description="A withdrawn address stays out for at least this long; doubled for every withdrawal in the last ten minutes, up to five minutes.",
    )


class Dns(Model):
    """How the name is published."""

    zone: Hostname | None = Field(
        None,
        description="The zone that holds the name. Default: the longest domain of the account that the name lies in, else the name itself, created as a domain.",
    )
    ttl_seconds: int = Field(
        60, ge=30, le=86400, description="TTL of the address records, in seconds. DigitalOcean allows no less than 30."
    )
    degraded_ttl_seconds: int = Field(30, ge=30, le=86400, description="TTL while a location is withdrawn.")


class Condition(Model):
    """One condition, after the Kubernetes API conventions (and kstatus for Ready, Reconciling, Stalled)."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str = Field(max_length=1024)
    message: str = Field("", max_length=32768)
    observed_generation: int | None = None
    last_transition_time: str | None = Field(None, json_schema_extra={"format": "date-time"})


class Claim(Model):
    """The intent to create a droplet, written before the provider is asked: who means to, and since when."""

    by: str = Field(description="Identity of the operator process.")
    at: float = Field(description="Unix time of the intent.")


class DropletRecord(Model):
    """What must be remembered of one droplet across a crash."""

    name: str
    location: str
    region: str
    template: str = Field(description="Hash of what it was made from: image, size, user data.")
    claim: Claim | None = Field(None, description="Set before the request to create it; gone once its ID is known.")
    droplet_id: int | None = Field(None, description="The provider's ID.")
    public_ipv4: str | None = Field(None, alias="publicIPv4")
    public_ipv6: str | None = Field(None, alias="publicIPv6")
    private_ipv4: str | None = Field(None, alias="privateIPv4")
    host_keys: tuple[str, ...] = Field(
        (), description="SSH host keys that it may show; the first one is from its bootstrap until replaced."
    )
    pinned: bool = Field(
        False, description="True once the host key of the bootstrap was replaced by one made on the machine."
    )
    served: bool = Field(False, description="True once it has served: from then on it counts as capacity.")
    leaving_since: float | None = Field(None, description="Unix time since when it is being taken out of service.")
    released_since: float | None = Field(None, description="Unix time since when nothing points at it any more.")


class Resource(Model):
    """What every kind has."""

    KIND: ClassVar[str]
    PLURAL: ClassVar[str]

    api_version: str = API_VERSION
    kind: str
    metadata: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.metadata["name"])

    @property
    def namespace(self) -> str:
        return str(self.metadata["namespace"])

    @property
    def uid(self) -> str:
        return str(self.metadata["uid"])

    @property
    def generation(self) -> int:
        return int(self.metadata.get("generation", 0))

    @property
    def deleting(self) -> bool:
        return "deletionTimestamp" in self.metadata

    @property
    def finalizers(self) -> tuple[str, ...]:
        return tuple(self.metadata.get("finalizers", ()))
