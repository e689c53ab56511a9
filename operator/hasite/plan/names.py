"""Names and tags that prove whose a thing is. All derive from the owner's UID, so that a crash cannot lose them."""

import hashlib
import re
from dataclasses import dataclass
from typing import Literal

from hasite.plan.world import Droplet

Role = Literal["lb", "app", "db", "witness"]

BASE_TAG = "hasite"


@dataclass(frozen=True)
class Owner:
    """The custom resource that something belongs to."""

    uid: str
    namespace: str
    name: str

    @property
    def short(self) -> str:
        """Eight characters of the UID, for names."""
        return self.uid.replace("-", "")[:8]


def template_hash(*parts: str) -> str:
    """Eight hex digits over everything that a droplet is made from."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


def droplet_name(owner: Owner, role: Role, location: str, template: str, ordinal: int) -> str:
    """A host name of at most 63 characters (RFC 1123), unique within the account for practical purposes.

    The adoption rules never rely on the name alone.
    """
    return f"{_beginning(owner, role)}{location}-{ordinal}-{template[:6]}-{owner.short}"


def _beginning(owner: Owner, role: Role) -> str:
    """No role's is another's: owners and locations may be called anything, ``db-witness-1`` too."""
    stem = owner.name.replace(".", "-")[:15].strip("-")
    return f"{stem}-{role}-"


def parse_name(name: str, owner: Owner, role: Role) -> tuple[str, str] | None:
    """Location and the first six digits of the template, of a name that ``droplet_name`` made; else None."""
    beginning = re.escape(_beginning(owner, role))
    match = re.fullmatch(rf"{beginning}(?P<location>[a-z0-9-]+)-[0-9]+-(?P<template>[0-9a-f]{{6}})-{owner.short}", name)
    return (match["location"], match["template"]) if match else None


def ordinal_of(name: str) -> int:
    """The ordinal within a name that ``droplet_name`` made."""
    return int(name.rsplit("-", 3)[1])


def owner_tag(owner: Owner) -> str:
    """The tag that proves ownership."""
    return f"hasite:owner:{owner.uid}"


def role_tag(owner: Owner, role: Role) -> str:
    """The tag that firewalls select by."""
    return f"hasite:{role}:{owner.uid}"


def droplet_tags(owner: Owner, role: Role) -> tuple[str, ...]:
    """All tags of a droplet, within the provider's ``[A-Za-z0-9_:-]{1,255}``."""
    return (BASE_TAG, owner_tag(owner), role_tag(owner, role))


def is_ours(droplet: Droplet, owner: Owner, role: Role) -> bool:
    """By its tags; its name proves nothing."""
    return {owner_tag(owner), role_tag(owner, role)} <= droplet.tags


def firewall_name(owner: Owner, role: Role) -> str:
    """Unique within an account, as the provider demands."""
    return f"hasite-{role}-{owner.uid}"


def owner_text(owner: Owner) -> str:
    """The ownership TXT beside a name. The UID decides; the rest is for people."""
    return f"heritage=hasite,uid={owner.uid},resource={owner.namespace}/{owner.name}"[:255]


def owner_of_text(text: str) -> str | None:
    """The UID within an ownership TXT, or None when the text is not one of HASite's."""
    fields = dict(part.split("=", 1) for part in text.strip('"').split(",") if "=" in part)
    return fields.get("uid") if fields.get("heritage") == "hasite" else None
