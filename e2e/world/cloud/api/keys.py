"""/v2/account/keys: SSH keys, addressed by id or by fingerprint."""

from __future__ import annotations

import base64
import binascii
import hashlib

from aiohttp import web

from .. import views
from ..core import CORE, Core
from ..rest import Json, body_of, listing, not_found, unprocessable
from ..state import SshKey

routes = web.RouteTableDef()


def fingerprint_of(public_key: str) -> str:
    """MD5 over the key's blob in colon notation; raises ApiError 422 for what is no OpenSSH public key."""
    invalid = unprocessable("Key invalid, key should be of the format `type key [comment]`")
    fields = public_key.split()
    if len(fields) < 2:
        raise invalid
    try:
        blob = base64.b64decode(fields[1], validate=True)
    except binascii.Error:
        raise invalid from None
    name = blob[4 : 4 + int.from_bytes(blob[:4], "big")]
    if name != fields[0].encode():
        raise invalid
    digest = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))


def find(core: Core, identifier: str | int) -> SshKey | None:
    """The key with this id or fingerprint."""
    for key in core.state.keys.values():
        if str(identifier) in (str(key.id), key.fingerprint):
            return key
    return None


def _existing(request: web.Request) -> SshKey:
    key = find(request.app[CORE], request.match_info["key"])
    if key is None:
        raise not_found()
    return key


def _name(body: Json) -> str:
    name = body.get("name")
    if not isinstance(name, str) or not name:
        raise unprocessable("Name can't be blank")
    return name


@routes.get("/v2/account/keys")
async def list_all(request: web.Request) -> web.Response:
    """All keys."""
    return listing(request, "ssh_keys", list(request.app[CORE].state.keys.values()), views.key)


@routes.post("/v2/account/keys")
async def create(request: web.Request) -> web.Response:
    """Add a key; the same key can't be added twice, whatever its name."""
    state, body = request.app[CORE].state, await body_of(request)
    public_key = body.get("public_key")
    if not isinstance(public_key, str):
        raise unprocessable("Public key can't be blank")
    name, fingerprint = _name(body), fingerprint_of(public_key)
    if any(key.fingerprint == fingerprint for key in state.keys.values()):
        raise unprocessable("SSH Key is already in use on your account")
    key = SshKey(state.next_id("key"), name, public_key, fingerprint)
    state.keys[key.id] = key
    return web.json_response({"ssh_key": views.key(key)}, status=201)


@routes.get("/v2/account/keys/{key}")
async def show(request: web.Request) -> web.Response:
    """One key."""
    return web.json_response({"ssh_key": views.key(_existing(request))})


@routes.put("/v2/account/keys/{key}")
async def rename(request: web.Request) -> web.Response:
    """Rename a key."""
    key = _existing(request)
    key.name = _name(await body_of(request))
    return web.json_response({"ssh_key": views.key(key)})


@routes.delete("/v2/account/keys/{key}")
async def delete(request: web.Request) -> web.Response:
    """Remove a key from the account; droplets made with it keep it."""
    key = _existing(request)
    request.app[CORE].state.keys.pop(key.id)
    return web.Response(status=204)
