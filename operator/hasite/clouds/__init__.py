"""Providers of machines."""

from collections.abc import Mapping

from hasite.clouds.digitalocean import DigitalOcean

PROVIDERS: Mapping[str, type[DigitalOcean]] = {"digitalocean": DigitalOcean}
