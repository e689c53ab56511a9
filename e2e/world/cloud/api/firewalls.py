"""/v2/firewalls, with their droplets, tags and rules."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from aiohttp import web

from .. import filtering, views
from ..core import CORE, Core
from ..rest import ApiError, Json, body_of, integers, listing, not_found, strings, unprocessable
from ..state import Firewall, Rule, Target

routes = web.RouteTableDef()

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9.-]+")


def _existing(request: web.Request) -> Firewall:
    firewall = request.app[CORE].state.firewalls.get(request.match_info["firewall"])
    if firewall is None:
        raise not_found()
    return firewall


@routes.get("/v2/firewalls")
async def list_all(request: web.Request) -> web.Response:
    """All firewalls."""
    core = request.app[CORE]
    return listing(request, "firewalls", list(core.state.firewalls.values()), lambda each: views.firewall(core, each))


@routes.post("/v2/firewalls")
async def create(request: web.Request) -> web.Response:
    """Create a firewall; names are unique, tags and droplets must exist."""
    core = request.app[CORE]
    firewall = _from_body(core, await body_of(request), None)
    core.state.firewalls[firewall.id] = firewall
    shown = views.firewall(core, firewall)
    filtering.apply_soon(core, firewall)
    return web.json_response({"firewall": shown}, status=202)


@routes.get("/v2/firewalls/{firewall}")
async def show(request: web.Request) -> web.Response:
    """One firewall."""
    return web.json_response({"firewall": views.firewall(request.app[CORE], _existing(request))})


@routes.put("/v2/firewalls/{firewall}")
async def replace(request: web.Request) -> web.Response:
    """Replace a firewall as a whole: what the body leaves out is gone."""
    core, firewall = request.app[CORE], _existing(request)
    new = _from_body(core, await body_of(request), firewall)
    firewall.name, firewall.inbound, firewall.outbound = new.name, new.inbound, new.outbound
    firewall.droplet_ids, firewall.tags = new.droplet_ids, new.tags
    filtering.apply_soon(core, firewall)
    return web.json_response({"firewall": views.firewall(core, firewall)})


@routes.delete("/v2/firewalls/{firewall}")
async def delete(request: web.Request) -> web.Response:
    """Delete a firewall; droplets without another one are open again."""
    core, firewall = request.app[CORE], _existing(request)
    core.state.firewalls.pop(firewall.id)
    filtering.apply_soon(core)
    return web.Response(status=204)


@routes.post("/v2/firewalls/{firewall}/droplets")
@routes.delete("/v2/firewalls/{firewall}/droplets")
async def change_droplets(request: web.Request) -> web.Response:
    """Apply a firewall to further droplets, or no longer to some."""
    core, firewall = request.app[CORE], _existing(request)
    named = _droplets(core, integers(await body_of(request), "droplet_ids"))
    others = [id_ for id_ in firewall.droplet_ids if id_ not in named]
    firewall.droplet_ids = others + named if request.method == "POST" else others
    filtering.apply_soon(core, firewall)
    return web.Response(status=204)


@routes.post("/v2/firewalls/{firewall}/tags")
@routes.delete("/v2/firewalls/{firewall}/tags")
async def change_tags(request: web.Request) -> web.Response:
    """Apply a firewall to further tags, or no longer to some."""
    core, firewall = request.app[CORE], _existing(request)
    named = core.canonical_tags(strings(await body_of(request), "tags"), create=False)
    others = [tag for tag in firewall.tags if tag not in named]
    firewall.tags = others + named if request.method == "POST" else others
    filtering.apply_soon(core, firewall)
    return web.Response(status=204)


@routes.post("/v2/firewalls/{firewall}/rules")
async def add_rules(request: web.Request) -> web.Response:
    """Add rules; those that are there already stay single."""
    core, firewall, body = request.app[CORE], _existing(request), await body_of(request)
    inbound, outbound = _rules(core, body)
    firewall.inbound += [rule for rule in inbound if rule not in firewall.inbound]
    firewall.outbound += [rule for rule in outbound if rule not in firewall.outbound]
    filtering.apply_soon(core, firewall)
    return web.Response(status=204)


@routes.delete("/v2/firewalls/{firewall}/rules")
async def remove_rules(request: web.Request) -> web.Response:
    """Remove rules, given exactly as they are."""
    core, firewall, body = request.app[CORE], _existing(request), await body_of(request)
    inbound, outbound = _rules(core, body)
    if not set(inbound) <= set(firewall.inbound) or not set(outbound) <= set(firewall.outbound):
        raise not_found()
    firewall.inbound = [rule for rule in firewall.inbound if rule not in inbound]
    firewall.outbound = [rule for rule in firewall.outbound if rule not in outbound]
    filtering.apply_soon(core, firewall)
    return web.Response(status=204)


def _from_body(core: Core, body: Json, current: Firewall | None) -> Firewall:
    name = body.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise unprocessable("name contains invalid characters")
    if any(other.name == name for other in core.state.firewalls.values() if other is not current):
        raise ApiError(409, "conflict", "duplicate name")
    inbound, outbound = _rules(core, body)
    if not inbound and not outbound:
        raise unprocessable("must have at least one rule")
    return Firewall(
        id=current.id if current else core.state.next_uuid("firewall"),
        name=name,
        created_at=current.created_at if current else core.now(),
        inbound=inbound,
        outbound=outbound,
        droplet_ids=_droplets(core, integers(body, "droplet_ids")),
        tags=core.canonical_tags(strings(body, "tags"), create=False),
    )


def _droplets(core: Core, ids: list[int]) -> list[int]:
    for id_ in ids:
        if id_ not in core.state.droplets:
            raise unprocessable(f"droplet {id_} not found")
    return list(dict.fromkeys(ids))


def _rules(core: Core, body: Json) -> tuple[list[Rule], list[Rule]]:
    inbound = [_rule(core, rule, "sources") for rule in body.get("inbound_rules") or []]
    outbound = [_rule(core, rule, "destinations") for rule in body.get("outbound_rules") or []]
    return list(dict.fromkeys(inbound)), list(dict.fromkeys(outbound))


def _rule(core: Core, rule: Any, side: str) -> Rule:
    if not isinstance(rule, dict) or rule.get("protocol") not in ("tcp", "udp", "icmp"):
        raise unprocessable("invalid protocol")
    ports = "0" if rule["protocol"] == "icmp" else _ports(rule.get("ports"))
    target = _target(core, rule.get(side))
    return Rule(rule["protocol"], ports, target)


def _ports(value: object) -> str:
    text = str(value or "")
    if text in ("0", "all"):
        return "0"
    bounds = [int(part) if part.isdecimal() else 0 for part in text.split("-")]
    if len(bounds) not in (1, 2) or not all(1 <= bound <= 65535 for bound in bounds) or bounds != sorted(bounds):
        raise unprocessable("invalid ports")
    return text


def _target(core: Core, value: Any) -> Target:
    if not isinstance(value, dict):
        raise unprocessable("rule must have sources or destinations")
    addresses = strings(value, "addresses")
    for address in addresses:
        try:
            ipaddress.ip_network(address, strict=False)
        except ValueError:
            raise unprocessable("invalid address") from None
    target = Target(
        addresses=tuple(addresses),
        droplet_ids=tuple(_droplets(core, integers(value, "droplet_ids"))),
        tags=tuple(core.canonical_tags(strings(value, "tags"), create=False)),
        load_balancer_uids=tuple(strings(value, "load_balancer_uids")),
        kubernetes_ids=tuple(strings(value, "kubernetes_ids")),
    )
    if target == Target():
        raise unprocessable("rule must have at least one source or destination")
    return target
