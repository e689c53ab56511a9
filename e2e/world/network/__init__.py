"""The local world's network: an internet of network namespaces on one machine, with no way out of it."""

from e2e.world.network.commands import CommandError, run
from e2e.world.network.namespaces import command_in, forward, inside, listen_in, run_in, socket_in
from e2e.world.network.network import Network
from e2e.world.network.topology import DEFAULT_PREFIX, REGIONS, SITES, Port, Region, Site

__all__ = [
    "DEFAULT_PREFIX",
    "REGIONS",
    "SITES",
    "CommandError",
    "Network",
    "Port",
    "Region",
    "Site",
    "command_in",
    "forward",
    "inside",
    "listen_in",
    "run",
    "run_in",
    "socket_in",
]
