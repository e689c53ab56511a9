"""/v2/domains and their records."""

from __future__ import annotations

from dataclasses import replace

from aiohttp import web

from .. import views, zones
from ..core import CORE
from ..rest import Json, body_of, listing, not_found, path_id, unprocessable
from ..state import Domain, Record

routes = web.RouteTableDef()

RECORD_FIELDS = ("data", "priority", "port", "weight", "flags", "tag", "ttl")


def _domain(request: web.Request) -> Domain:
    domain = request.app[CORE].state.domains.get(request.match_info["domain"].lower())
    if domain is None:
        raise not_found()
    return domain


def _record(request: web.Request) -> Record:
    record = _domain(request).records.get(path_id(request, "record"))
    if record is None:
        raise not_found()
    return record


def _shown(domain: Domain) -> Json:
    return views.domain(domain, zones.zone_file(domain))


@routes.get("/v2/domains")
async def list_all(request: web.Request) -> web.Response:
    """All domains, each with its zone file."""
    return listing(request, "domains", list(request.app[CORE].state.domains.values()), _shown)


@routes.post("/v2/domains")
async def create(request: web.Request) -> web.Response:
    """Add a domain, with an A record at its apex when `ip_address` is given."""
    core, body = request.app[CORE], await body_of(request)
    name, address = body.get("name"), body.get("ip_address") or None
    if not isinstance(name, str) or not zones.DOMAIN_NAME.fullmatch(name):
        raise unprocessable("Name is invalid")
    name = name.lower()
    if name in core.state.domains or name in core.state.taken_domains:
        raise zones.already_taken(name)
    domain = zones.new_domain(core, name, address)
    for record in domain.records.values():
        if record.type == "A":
            zones.checked(domain, record)
    core.state.domains[name] = domain
    zones.publish_soon(core, domain)
    return web.json_response({"domain": views.domain(domain, None)}, status=201)


@routes.get("/v2/domains/{domain}")
async def show(request: web.Request) -> web.Response:
    """One domain."""
    return web.json_response({"domain": _shown(_domain(request))})


@routes.delete("/v2/domains/{domain}")
async def delete(request: web.Request) -> web.Response:
    """Delete a domain with all its records."""
    core, domain = request.app[CORE], _domain(request)
    core.state.domains.pop(domain.name)
    zones.remove_soon(core, domain.name)
    return web.Response(status=204)


@routes.get("/v2/domains/{domain}/records")
async def list_records(request: web.Request) -> web.Response:
    """The records of a domain, filtered by `type` and by the fully qualified `name`."""
    domain, query = _domain(request), request.query
    records = list(domain.records.values())
    if kind := query.get("type"):
        records = [record for record in records if record.type == kind.upper()]
    if name := query.get("name"):
        wanted = name.lower().removesuffix(".")
        records = [record for record in records if zones.fully_qualified(domain, record.name).lower() == wanted]
    return listing(request, "domain_records", records, views.record)


@routes.post("/v2/domains/{domain}/records")
async def create_record(request: web.Request) -> web.Response:
    """Add a record. Two equal ones are possible, as with the provider."""
    core, domain, body = request.app[CORE], _domain(request), await body_of(request)
    kind = body.get("type")
    if not isinstance(kind, str):
        raise unprocessable("Type can't be blank")
    record = Record(0, kind.upper(), str(body.get("name") or "@"), "", zones.DEFAULT_TTL)
    _take_over(record, body)
    zones.checked(domain, record)
    record.id = core.state.next_id("record")
    domain.records[record.id] = record
    zones.publish_soon(core, domain)
    return web.json_response({"domain_record": views.record(record)}, status=201)


@routes.get("/v2/domains/{domain}/records/{record}")
async def show_record(request: web.Request) -> web.Response:
    """One record."""
    return web.json_response({"domain_record": views.record(_record(request))})


@routes.put("/v2/domains/{domain}/records/{record}")
@routes.patch("/v2/domains/{domain}/records/{record}")
async def update_record(request: web.Request) -> web.Response:
    """Change the given fields of a record.

    Host names are stored without the final dot and checked again: as with the provider, changing only the TTL of
    a CNAME, MX, NS or SRV record is refused unless `data` is given again with its dot.
    """
    core, domain, record, body = request.app[CORE], _domain(request), _record(request), await body_of(request)
    if record.type == "SOA":
        raise unprocessable("SOA records can't be changed except for their TTL")
    changed = replace(record, name=str(body.get("name") or record.name))
    changed.type = str(body.get("type") or record.type).upper()
    _take_over(changed, body)
    domain.records[record.id] = zones.checked(domain, changed)
    zones.publish_soon(core, domain)
    return web.json_response({"domain_record": views.record(changed)})


@routes.delete("/v2/domains/{domain}/records/{record}")
async def delete_record(request: web.Request) -> web.Response:
    """Delete a record."""
    core, domain, record = request.app[CORE], _domain(request), _record(request)
    if record.type == "SOA":
        raise unprocessable("SOA records can't be deleted")
    domain.records.pop(record.id)
    zones.publish_soon(core, domain)
    return web.Response(status=204)


def _take_over(record: Record, body: Json) -> None:
    for field in RECORD_FIELDS:
        if (value := body.get(field)) is not None:
            wanted = str if field in ("data", "tag") else int
            if not isinstance(value, wanted) or isinstance(value, bool):
                raise unprocessable(f"{field.capitalize()} is invalid")
            setattr(record, field, value)
