"""Reverse proxy engines."""

from collections.abc import Mapping
from types import MappingProxyType

from hasite.proxies.base import Proxy
from hasite.proxies.haproxy import HaproxyProxy

ENGINES: Mapping[str, type[Proxy]] = MappingProxyType({"haproxy": HaproxyProxy})
"""The engines by their name in ``spec.engine``; each is made without arguments."""
