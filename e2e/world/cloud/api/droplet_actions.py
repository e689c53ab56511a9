"""/v2/droplets/…/actions: power, renaming, resizing, snapshots, rebuilding."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aiohttp import web

from .. import machines, views
from ..catalogue import SIZES
from ..core import CORE, Core
from ..rest import ApiError, Json, body_of, listing, not_found, path_id, unprocessable
from ..state import Action, Droplet, Image
from . import images
from .droplets import HOST_NAME, existing

routes = web.RouteTableDef()

Begin = Callable[[Core, Droplet, Action, Json], None]
OFF_HARD, OFF_SOFT, ON = (False, True), (False, False), (True, True)
BULK = frozenset({"power_cycle", "power_on", "power_off", "shutdown", "snapshot"})


@routes.get("/v2/droplets/{droplet}/actions")
async def list_all(request: web.Request) -> web.Response:
    """What was ever begun on a droplet, newest first."""
    core, droplet = request.app[CORE], existing(request)
    return listing(request, "actions", droplet.actions[::-1], lambda action: views.action(core, action))


@routes.post("/v2/droplets/{droplet}/actions")
async def begin(request: web.Request) -> web.Response:
    """Begin an action; refused while another one is in progress."""
    core, droplet = request.app[CORE], existing(request)
    action = _begin(core, droplet, await body_of(request))
    return web.json_response({"action": views.action(core, action)}, status=201)


@routes.get("/v2/droplets/{droplet}/actions/{action}")
async def show(request: web.Request) -> web.Response:
    """One action of a droplet."""
    id_ = path_id(request, "action")
    for action in existing(request).actions:
        if action.id == id_:
            return web.json_response({"action": views.action(request.app[CORE], action)})
    raise not_found()


@routes.post("/v2/droplets/actions")
async def begin_tagged(request: web.Request) -> web.Response:
    """Begin the same action on every droplet with a tag."""
    core, body = request.app[CORE], await body_of(request)
    tag = core.state.tags.get(request.query.get("tag_name", "").lower())
    if tag is None:
        raise not_found()
    if body.get("type") not in BULK:
        raise unprocessable("Invalid action type for tagged Droplets")
    begun = [_begin(core, droplet, body) for droplet in core.state.tagged(tag)]
    return web.json_response({"actions": [views.action(core, action) for action in begun]}, status=201)


def _begin(core: Core, droplet: Droplet, body: Json) -> Action:
    start = _ACTIONS.get(str(body.get("type")))
    if start is None:
        raise unprocessable(f"Invalid action type: {body.get('type')}")
    if droplet.locked(core.now()):
        raise unprocessable("Droplet already has a pending event.")
    if droplet.status(core.now()) == "new":
        raise unprocessable("Droplet is not active.")
    kind = str(body["type"])
    action = core.action(kind, ("droplet", droplet.id), droplet.region, core.timing.action_delay)
    try:
        start(core, droplet, action, body)
    except ApiError:
        core.state.actions.pop(action.id)
        raise
    droplet.actions.append(action)
    return action


def _power_on(core: Core, droplet: Droplet, action: Action, body: Json) -> None:
    if droplet.powered:
        raise unprocessable("Droplet is already powered on.")
    machines.switch(core, droplet, action, steps=(ON,))


def _power_off(*steps: tuple[bool, bool]) -> Begin:
    def begin(core: Core, droplet: Droplet, action: Action, body: Json) -> None:
        if not droplet.powered:
            raise unprocessable("Droplet is already powered off.")
        machines.switch(core, droplet, action, steps=steps)

    return begin


def _power_cycle(core: Core, droplet: Droplet, action: Action, body: Json) -> None:
    machines.switch(core, droplet, action, steps=(OFF_HARD, ON))


def _rename(core: Core, droplet: Droplet, action: Action, body: Json) -> None:
    name = body.get("name")
    if not isinstance(name, str) or not HOST_NAME.fullmatch(name):
        raise unprocessable("Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)")

    async def work() -> None:
        droplet.name = name

    core.spawn(machines.carry_out(core, droplet, action, work))


def _resize(core: Core, droplet: Droplet, action: Action, body: Json) -> None:
    size = str(body.get("size"))
    if size not in SIZES:
        raise unprocessable("You specified an invalid size for Droplet resize.")
    if droplet.powered:
        raise unprocessable("Droplet must be powered off to be resized.")

    async def work() -> None:
        droplet.size = size

    core.spawn(machines.carry_out(core, droplet, action, work))


def _snapshot(core: Core, droplet: Droplet, action: Action, body: Json) -> None:
    name = str(body.get("name") or f"{droplet.name}-{int(core.now() * 1000)}")

    async def work() -> None:
        source, id_ = droplet.image, core.state.next_id("image")
        base = views.hypervisor_image(source)
        disk, regions = SIZES[droplet.size].disk, (droplet.region,)
        core.state.images[id_] = Image(
            id_, name, source.distribution, None, regions, core.now(), disk, droplet=droplet.id, base=base
        )

    core.spawn(machines.carry_out(core, droplet, action, work))


def _rebuild(core: Core, droplet: Droplet, action: Action, body: Json) -> None:
    image = images.find(core, body.get("image") or droplet.image.id)
    if image is None:
        raise unprocessable("You specified an invalid image for Droplet rebuild.")
    droplet.image = image
    machines.rebuild(core, droplet, action)


_ACTIONS: Mapping[str, Begin] = {
    "power_on": _power_on,
    "power_off": _power_off(OFF_HARD),
    "shutdown": _power_off(OFF_SOFT),
    "reboot": _power_off(OFF_SOFT, ON),
    "power_cycle": _power_cycle,
    "rename": _rename,
    "resize": _resize,
    "snapshot": _snapshot,
    "rebuild": _rebuild,
}
