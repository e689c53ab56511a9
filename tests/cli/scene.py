"""A HASite and its pool as an API server holds them: two locations, of which New York has just been lost."""

from datetime import UTC, datetime
from typing import Any

from tests.fakes.kube import FakeKube

NOW = 1_800_000_000.0
NAMESPACE = "default"
LOST = "neither the operator (no answer in time) nor shop-lb-amsterdam-0 reach it"
REGIONS = {"new-york": "nyc3", "amsterdam": "ams3"}


def kube(site: dict[str, Any] | None, pool: dict[str, Any] | None) -> FakeKube:
    """A server that holds these, whole with their status."""
    fake = FakeKube()
    for resource in (site, pool):
        if resource is not None:
            key = (resource["kind"], NAMESPACE, resource["metadata"]["name"])
            fake.objects[key] = resource
    return fake


def site(conditions: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """``more``: fields of the status, or ``policy`` and ``generation``."""
    spec: dict[str, Any] = {"app": {"port": 8080}, "managementPolicy": more.pop("policy", "Manage")}
    return resource("HASite", spec, conditions, more)


def pool(conditions: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """As ``site``."""
    spec: dict[str, Any] = {"backends": {"port": 8080}, "managementPolicy": more.pop("policy", "Manage")}
    return resource("LoadBalancerPool", spec, conditions, more)


def resource(
    kind: str, spec: dict[str, Any], conditions: list[dict[str, Any]], status: dict[str, Any]
) -> dict[str, Any]:
    generation = status.pop("generation", 1)
    spec |= {
        "domain": "shop.example.com",
        "credentialsRef": {"name": "digitalocean"},
        "locations": [{"name": name, "region": region} for name, region in REGIONS.items()],
    }
    uid = f"{kind.lower()}-uid"
    return {
        "apiVersion": "hasite.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "shop", "namespace": NAMESPACE, "uid": uid, "generation": generation},
        "spec": spec,
        "status": {"observedGeneration": 1, "conditions": conditions, **status},
    }


def condition(kind: str, status: str, reason: str, message: str = "", since: float = 60) -> dict[str, Any]:
    """``since``: seconds ago."""
    at = datetime.fromtimestamp(NOW - since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at}


def droplet(name: str, location: str, number: int | None, **more: Any) -> dict[str, Any]:
    known = {"dropletId": number, "publicIPv4": f"192.0.2.{number}", "hostKey": "ssh-ed25519 A", "served": True}
    base = {"name": name, "location": location, "region": REGIONS.get(location, "fra1"), "template": "cf35cfdf"}
    return base | (known if number is not None else {}) | more


def address(text: str, location: str, state: str, reason: str, since: float = 30) -> dict[str, Any]:
    return {
        "address": text,
        "family": "A",
        "loadBalancer": f"shop-lb-{location}-0",
        "location": location,
        "state": state,
        "reason": reason,
        "since": NOW - since,
    }


def at_rest() -> FakeKube:
    """Everything is as it should be."""
    well = [condition("Ready", "True", "Ready", "everything asked for is there and serves", 7200)]
    well += [condition(kind, "False", "Idle", since=7200) for kind in ("Reconciling", "Stalled")]
    servers = [{"name": f"shop-app-{at}-0", "state": "Active", "healthy": True} for at in REGIONS]
    return kube(
        site(
            well,
            droplets=[droplet(f"shop-app-{at}-0", at, number) for number, at in enumerate(REGIONS, 1)],
            published="192.0.2.11,198.51.100.12",
        ),
        pool(
            well,
            droplets=[droplet(f"shop-lb-{at}-0", at, number) for number, at in enumerate(REGIONS, 11)],
            addresses=[
                address("192.0.2.11", "new-york", "Published", "it serves", 7000),
                address("198.51.100.12", "amsterdam", "Published", "it serves", 7000),
            ],
            servers=servers,
            zone={"name": "example.com", "createdByUs": False},
        ),
    )


def new_york_lost() -> FakeKube:
    """The address is withdrawn; one app server is being replaced, another sets up, a third leaves."""
    down = f"new-york is withdrawn from DNS: {LOST}"
    waits = "shop-app-new-york-0 does not serve yet"
    conditions = [
        condition("Ready", "False", "LocationDown", down),
        condition("Reconciling", "True", "Progressing", waits),
        condition("Stalled", "False", "NotStalled"),
        condition("DegradedLocation", "True", "LocationDown", LOST),
    ]
    apps = [
        droplet("shop-app-new-york-0", "new-york", 1),
        droplet("shop-app-new-york-1", "new-york", None, claim={"by": "operator-1", "at": NOW}, served=False),
        droplet("shop-app-amsterdam-0", "amsterdam", 2),
        droplet("shop-app-amsterdam-1", "amsterdam", 3, bootstrapKeys=["ssh-ed25519 B"], hostKey=None, served=False),
        droplet("shop-app-frankfurt-0", "frankfurt", 4, leavingSince=NOW - 5),
    ]
    step = "DeleteRecord A shop.example.com 192.0.2.11: it is not to be published"
    return kube(
        site(conditions, droplets=apps, published="198.51.100.12"),
        pool(
            conditions,
            droplets=[droplet(f"shop-lb-{at}-0", at, number) for number, at in enumerate(REGIONS, 11)],
            addresses=[
                address("192.0.2.11", "new-york", "Withdrawn", LOST),
                address("198.51.100.12", "amsterdam", "Published", "it serves", 7000),
            ],
            servers=[
                {"name": "shop-app-new-york-0", "state": "Active", "healthy": False},
                {"name": "shop-app-amsterdam-0", "state": "Active", "healthy": True},
                {"name": "shop-app-frankfurt-0", "state": "Draining", "healthy": True},
            ],
            zone={"name": "shop.example.com", "createdByUs": True},
            plan=[step, "UpdateRecord A shop.example.com 198.51.100.12: its TTL is 60"],
        ),
    )
