"""Small builders, so that each case is a few lines. Nothing here decides anything."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hasite.api.common import Claim, DropletRecord
from hasite.api.hasite import HASite
from hasite.api.loadbalancerpool import AddressStatus, LoadBalancerPool, Server, ServerStatus, ZoneStatus
from hasite.plan.droplets import Sight
from hasite.plan.failover import Candidate, Verdict
from hasite.plan.firewalls import app_firewall, load_balancer_firewall
from hasite.plan.names import Owner, Role, droplet_name, droplet_tags, owner_text
from hasite.plan.pool import proxy_models
from hasite.plan.poolworld import PoolWorld, pool_template
from hasite.plan.site import SiteWorld, pool_manifest, site_template
from hasite.plan.world import Answer, DnsRecord, Droplet, Firewall, MachineView, Probe, ProxyView, ServerView, ZoneView

NOW = 1_700_000_000.0
NEW_YORK, AMSTERDAM, FRANKFURT = "new-york", "amsterdam", "frankfurt"
REGIONS = {NEW_YORK: "nyc3", AMSTERDAM: "ams3", FRANKFURT: "fra1"}
BOTH = (NEW_YORK, AMSTERDAM)
DOMAIN, ZONE = "shop.example.com", "example.com"
SITE = Owner("5173aaaa-0000-4000-8000-000000000001", "default", "shop")
POOL = Owner("9001bbbb-0000-4000-8000-000000000002", "default", "shop")
OTHER = Owner("0ddccccc-0000-4000-8000-000000000003", "default", "other")
A, B, C = "192.0.2.1", "198.51.100.2", "203.0.113.3"
"""Addresses at New York, Amsterdam and Frankfurt."""


def metadata(owner: Owner, **more: Any) -> dict[str, Any]:
    return {"name": owner.name, "namespace": owner.namespace, "uid": owner.uid, "generation": 1, **more}


def locations(names: Iterable[str]) -> list[dict[str, str]]:
    return [{"name": name, "region": REGIONS[name]} for name in names]


def site(at: Sequence[str] = BOTH, app: Mapping[str, Any] | None = None, **spec: Any) -> HASite:
    status = {"droplets": spec.pop("droplets", ())}
    return HASite.model_validate(
        {
            "kind": "HASite",
            "metadata": metadata(SITE),
            "spec": {
                "domain": DOMAIN,
                "credentialsRef": {"name": "digitalocean"},
                "locations": locations(at),
                "app": {"port": 8080, "userData": "#cloud-config\n", "drain": "2s", **(app or {})},
                **spec,
            },
            "status": status,
        }
    )


def pool(
    at: Sequence[str] = BOTH,
    droplets: Sequence[DropletRecord] = (),
    addresses: Sequence[AddressStatus] = (),
    servers: Sequence[Server] = (),
    **more: Any,
) -> LoadBalancerPool:
    """``zone`` and ``said`` (of the servers) go to the status, everything else to the spec."""
    zone = more.pop("zone", ZoneStatus(name=ZONE))
    said = more.pop("said", ())
    shell = LoadBalancerPool.model_validate(
        {
            "kind": "LoadBalancerPool",
            "metadata": metadata(POOL, ownerReferences=[{"uid": SITE.uid}]),
            "spec": {
                "domain": DOMAIN,
                "credentialsRef": {"name": "digitalocean"},
                "locations": locations(at),
                "backends": {"port": 8080, "drain": "2s"},
                **more,
            },
        }
    )
    spec = shell.spec.model_copy(
        update={"backends": shell.spec.backends.model_copy(update={"servers": tuple(servers)})}
    )
    status = shell.status.model_copy(
        update={
            "droplets": tuple(droplets),
            "addresses": tuple(addresses),
            "zone": zone,
            "servers": tuple(said),
            "observed_generation": 1,
            "ttl_seconds": shell.spec.dns.ttl_seconds,
        }
    )
    return shell.model_copy(update={"spec": spec, "status": status})


def record(location: str = NEW_YORK, ordinal: int = 0, **more: Any) -> DropletRecord:
    """A load balancer's, of the present template, made and pinned, unless told otherwise. ``role="app"``: an app's."""
    role: Role = more.pop("role", "lb")
    owner, template = (POOL, pool_template(pool())) if role == "lb" else (SITE, site_template(site()))
    template = more.pop("template", template)
    values: dict[str, Any] = {
        "name": droplet_name(owner, role, location, template, ordinal),
        "location": location,
        "region": REGIONS[location],
        "template": template,
        "droplet_id": 1 + list(REGIONS).index(location) + 10 * ordinal + (100 if role == "app" else 0),
        "public_ipv4": dict(zip(REGIONS, (A, B, C), strict=True))[location],
        "host_key": "own key",
        "served": True,
    }
    return DropletRecord(**values | more)


def claimed(at: float = NOW, by: str = "operator", **more: Any) -> DropletRecord:
    """A record whose droplet was asked for, with no answer yet."""
    empty = {"droplet_id": None, "public_ipv4": None, "host_key": None, "served": False}
    return record(**empty | {"claim": Claim(by=by, at=at)} | more)


def droplet(of: DropletRecord, role: Role = "lb", **more: Any) -> Droplet:
    """What the provider shows of a record's droplet."""
    values: dict[str, Any] = {
        "id": of.droplet_id or 1,
        "name": of.name,
        "region": of.region,
        "status": "active",
        "tags": frozenset(droplet_tags(POOL if role == "lb" else SITE, role)),
        "public_ipv4": of.public_ipv4,
        "private_ipv4": of.private_ipv4,
        "created_at": NOW - 3600,
    }
    return Droplet(**values | more)


def address(value: str = A, state: str = "Published", **more: Any) -> AddressStatus:
    location = {A: NEW_YORK, B: AMSTERDAM, C: FRANKFURT}[value]
    values: dict[str, Any] = {
        "address": value,
        "family": "A",
        "load_balancer": record(location).name,
        "location": location,
        "state": state,
        "since": NOW - 3600,
    }
    return AddressStatus(**values | more)


UP = Verdict(True, "up")
DOWN = Verdict(False, "down")
UNCLEAR = Verdict(None, "unclear")


def candidate(value: str = A, verdict: Verdict = UP, proven: bool = True, **more: Any) -> Candidate:
    """An address of a load balancer, as failover is asked about it."""
    location = {A: NEW_YORK, B: AMSTERDAM, C: FRANKFURT}[value]
    return Candidate(value, "A", record(location).name, location, verdict, proven, **more)


def server(of: DropletRecord, state: str = "Active", **more: Any) -> Server:
    """An app server within the pool's spec."""
    return Server.model_validate(
        {"name": of.name, "location": of.location, "address": of.public_ipv4, "state": state, **more}
    )


def server_status(
    of: DropletRecord, state: str = "Active", healthy: bool = True, drained: bool = False, since: float = NOW
) -> ServerStatus:
    return ServerStatus.model_validate(
        {"name": of.name, "state": state, "healthy": healthy, "drained": drained, "since": since}
    )


def a(data: str, number: int = 1, name: str = "shop", ttl: int = 60) -> DnsRecord:
    """An address record."""
    return DnsRecord("AAAA" if ":" in data else "A", name, data, ttl, number)


def txt(owner: Owner = POOL, number: int = 9, name: str = "_hasite.shop") -> DnsRecord:
    """An ownership record."""
    return DnsRecord("TXT", name, owner_text(owner), 300, number)


def answer(*addresses: str, owner: Owner | None = POOL) -> Answer:
    return Answer(frozenset(addresses), frozenset({owner_text(owner)} if owner else ()))


def firewalls() -> tuple[Firewall, ...]:
    """Both as they should be."""
    lb, app = load_balancer_firewall(POOL, ()), app_firewall(SITE, POOL, 8080, ())
    return (
        Firewall("fw-lb", lb.name, lb.inbound, lb.tags),
        Firewall("fw-app", app.name, app.inbound, app.tags),
    )


def rendered(of: LoadBalancerPool) -> dict[str, str]:
    """Stands for a configuration: another one for another model."""
    return {name: repr(model) for name, model in proxy_models(of).items()}


def proxy(of: LoadBalancerPool, name: str, **more: Any) -> ProxyView:
    """A proxy that does what it should, with every server and every peer up."""
    model = proxy_models(of)[name]
    values: dict[str, Any] = {
        "installed": True,
        "config_sha256": repr(model),
        "active": True,
        "enabled": True,
        "servers": {u.name: ServerView(True) for u in model.upstreams},
        "peers": dict.fromkeys(model.peers, True),
    }
    return ProxyView(**values | more)


def machine(of: LoadBalancerPool | None = None, name: str = "", **more: Any) -> MachineView:
    """Set up and seen just now; with ``of``, a load balancer's. ``proxy_more`` changes its proxy."""
    proxy_more = more.pop("proxy_more", {})
    view = proxy(of, name, **proxy_more) if of is not None else None
    values: dict[str, Any] = {"host_key": "own key", "cloud_init": "done", "seen_at": NOW, "proxy": view}
    return MachineView(**values | more)


def pool_world(of: LoadBalancerPool, **more: Any) -> PoolWorld:
    """A world in which everything that the status says is there and serves."""
    records = of.status.droplets
    made = [r for r in records if r.droplet_id is not None]
    wanted = [x.address for x in of.status.addresses if x.state == "Published"]
    values: dict[str, Any] = {
        "now": NOW,
        "identity": "operator",
        "sight": Sight([droplet(r) for r in made]),
        "machines": {r.name: machine(of, r.name) for r in made},
        "probes": {r.public_ipv4: Probe(True, NOW - 60, ok_at=NOW) for r in made if r.public_ipv4},
        "rendered": rendered(of),
        "firewalls": firewalls(),
        "zones": {ZONE: ""},
        "answers": {"ns1": answer(*wanted), "ns2": answer(*wanted)},
        "zone": ZoneView(ZONE, (txt(), *(a(x, n + 1) for n, x in enumerate(wanted)))),
    }
    return PoolWorld(**values | more)


def serving_pool(at: Sequence[str] = BOTH, **more: Any) -> LoadBalancerPool:
    """One load balancer at each location, published, with two app servers behind them."""
    apps = [record(where, role="app") for where in at]
    values: dict[str, Any] = {
        "droplets": [record(where) for where in at],
        "addresses": [address(record(where).public_ipv4 or "") for where in at],
        "servers": [server(app) for app in apps],
        "said": [server_status(app) for app in sorted(apps, key=lambda app: app.name)],
    }
    return pool(at, **values | more)


def site_world(of: HASite, **more: Any) -> SiteWorld:
    """A world in which every app server that is recorded serves, and its pool is as the site wants it."""
    made = [r for r in of.status.droplets if r.droplet_id is not None]
    shell = pool(said=[server_status(r) for r in made])
    spec = shell.model_validate(
        {"kind": "LoadBalancerPool", "metadata": shell.metadata, "spec": pool_manifest(of)["spec"]}
    ).spec
    values: dict[str, Any] = {
        "now": NOW,
        "identity": "operator",
        "sight": Sight([droplet(r, "app") for r in made]),
        "machines": {},
        "firewalls": firewalls(),
        "pool": shell.model_copy(update={"spec": spec}),
    }
    return SiteWorld(**values | more)


def serving_site(at: Sequence[str] = BOTH, **more: Any) -> HASite:
    """One app server at each location."""
    return site(at, **{"droplets": [record(where, role="app") for where in at], **more})
