"""What can be ordered: regions, sizes and distribution images, by DigitalOcean's own slugs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """A droplet size: memory in MiB, disk in GiB, transfer in TiB, price in US dollars a month."""

    slug: str
    memory: int
    vcpus: int
    disk: int
    transfer: float
    price_monthly: float
    description: str = "Basic"


@dataclass(frozen=True)
class Distribution:
    """A public base image."""

    id: int
    slug: str
    name: str
    distribution: str


REGIONS: Mapping[str, str] = {
    "nyc3": "New York 3",
    "ams3": "Amsterdam 3",
    "fra1": "Frankfurt 1",
    "sfo3": "San Francisco 3",
}

REGION_FEATURES = ("backups", "ipv6", "metadata", "install_agent", "storage", "image_transfer")

SIZES: Mapping[str, Size] = {
    size.slug: size
    for size in (
        Size("s-1vcpu-512mb-10gb", 512, 1, 10, 0.5, 4),
        Size("s-1vcpu-1gb", 1024, 1, 25, 1, 6),
        Size("s-1vcpu-2gb", 2048, 1, 50, 2, 12),
        Size("s-2vcpu-2gb", 2048, 2, 60, 3, 18),
        Size("s-2vcpu-4gb", 4096, 2, 80, 4, 24),
        Size("s-4vcpu-8gb", 8192, 4, 160, 5, 48),
        Size("s-8vcpu-16gb", 16384, 8, 320, 6, 96),
    )
}

DISTRIBUTIONS: Mapping[str, Distribution] = {
    image.slug: image
    for image in (
        Distribution(133000012, "debian-12-x64", "12 x64", "Debian"),
        Distribution(133000013, "debian-13-x64", "13 x64", "Debian"),
        Distribution(133002404, "ubuntu-24-04-x64", "24.04 (LTS) x64", "Ubuntu"),
    )
}
