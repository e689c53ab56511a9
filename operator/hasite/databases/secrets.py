"""What a database keeps in Secrets: its certificate authority, and the passwords that were generated for its users.

Each has an owner reference, so that it goes with its database; under ``deletionPolicy: Retain`` the passwords have
none, for the data that stay are of use only to those who can still log in.
"""

import base64
import secrets
from collections.abc import Mapping
from typing import Any

from hasite.api.common import API_VERSION
from hasite.api.replicateddatabase import ReplicatedDatabase, User
from hasite.databases.certificates import CA_CERTIFICATE, CA_KEY, Authority, new_authority
from hasite.databases.declare import Declaration
from hasite.errors import Permanent
from hasite.kube.base import Kube
from hasite.plan.world import Unknown

PASSWORD = "password"  # noqa: S105 - the key within a Secret that a user names


def authority_name(database: ReplicatedDatabase) -> str:
    """Of the Secret that holds the certificate authority."""
    return f"{database.name}-ca"


def users_name(database: ReplicatedDatabase) -> str:
    """Of the Secret that holds the generated passwords, by user."""
    return f"{database.name}-users"


async def authority_of(kube: Kube, database: ReplicatedDatabase, now: float, *, make: bool) -> Authority | None:
    """Made once; two that make it at once end with the same one. None: it is not there, and ``make`` is False."""
    name = authority_name(database)
    held = await kube.secret(database.namespace, name)
    if held is None and make:
        new = new_authority(f"HASite {database.namespace}/{database.name}", now)
        data = {CA_CERTIFICATE: new.certificate, CA_KEY: new.key}
        held = await kube.create_secret(_manifest(database, name, data, owned=True))
    if held is None:
        return None
    if CA_CERTIFICATE not in held or CA_KEY not in held:
        raise Permanent(f"Secret {name} has no keys {CA_CERTIFICATE} and {CA_KEY}", "AuthorityUnusable")
    return Authority(held[CA_CERTIFICATE], held[CA_KEY])


async def declaration_of(kube: Kube, database: ReplicatedDatabase, *, make: bool) -> Declaration | Unknown:
    """The users with their passwords, and the databases. ``make``: passwords that are missing are generated."""
    spec = database.spec
    generated = [user for user in spec.users if user.password_ref is None]
    passwords = await _generated(kube, database, generated, make) if generated else {}
    for user in spec.users:
        if user.password_ref is not None:
            held = await kube.secret(database.namespace, user.password_ref.name)
            text = (held or {}).get(PASSWORD, b"").decode(errors="replace")
            if not text:
                return Unknown(f"Secret {user.password_ref.name} has no key `{PASSWORD}` for user {user.name}")
            passwords[user.name] = text
    if missing := [user.name for user in spec.users if user.name not in passwords]:
        return Unknown(f"there is no password for {', '.join(missing)} yet")
    return Declaration(passwords, {each.name: each.owner for each in spec.databases})


async def _generated(kube: Kube, database: ReplicatedDatabase, users: list[User], make: bool) -> dict[str, str]:
    """Only what is missing is added: a password that is there may be in use."""
    name = users_name(database)
    held = {user: word.decode() for user, word in (await kube.secret(database.namespace, name) or {}).items()}
    missing = [user.name for user in users if user.name not in held]
    if missing and make:
        held |= {user: secrets.token_urlsafe(24) for user in missing}
        owned = database.spec.deletion_policy == "Delete"
        await kube.apply(_manifest(database, name, {user: word.encode() for user, word in held.items()}, owned=owned))
    return {user.name: held[user.name] for user in users if user.name in held}


def _manifest(database: ReplicatedDatabase, name: str, data: Mapping[str, bytes], *, owned: bool) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "namespace": database.namespace}
    if owned:
        reference = {"apiVersion": API_VERSION, "kind": database.KIND, "name": database.name, "uid": database.uid}
        metadata["ownerReferences"] = [reference]
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": encoded}
