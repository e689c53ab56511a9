"""DNS providers, and the authoritative servers themselves."""

from collections.abc import Mapping

from hasite.dns.digitalocean import DigitalOceanDns

PROVIDERS: Mapping[str, type[DigitalOceanDns]] = {"digitalocean": DigitalOceanDns}
