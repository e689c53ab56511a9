"""The endpoints of /v2, one module for each kind of resource."""

from __future__ import annotations

from collections.abc import Iterator

from aiohttp import web

from . import account, actions, domains, droplet_actions, droplets, firewalls, images, keys, reserved_ips, tags, vpcs

_MODULES = (account, actions, domains, droplet_actions, droplets, firewalls, images, keys, reserved_ips, tags, vpcs)


def routes() -> Iterator[web.AbstractRouteDef]:
    """All routes."""
    for module in _MODULES:
        yield from module.routes
