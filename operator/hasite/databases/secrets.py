"""What a database keeps in Secrets: its certificate authority, and the passwords that were generated for its users.

Under ``deletionPolicy: Delete`` each has an owner reference, so that it goes with its database. Under ``Retain`` none
has, for the data that stay are of use only to those who can still log in, and to whom the guards still believe.
"""

import base64
import json
import secrets
from collections.abc import Mapping
from typing import Any

from hasite.api.common import API_VERSION
from hasite.api.replicateddatabase import ReplicatedDatabase, User
from hasite.databases.certificates import CA_CERTIFICATE, CA_KEY, Authority, check, new_authority
from hasite.databases.declare import Declaration
from hasite.errors import Permanent
from hasite.kube.base import Kube
from hasite.plan.world import Unknown

PASSWORD = "password"  # noqa: S105 - the key within a Secret that a user names

OWNER = "database-uid"
"""Key beside the authority: whose it is."""

TARGET_KEYS, TARGET_CA = ("accessKeyId", "secretAccessKey"), "ca.crt"
"""Within a Secret with the credentials of a target of backups."""


def authority_name(database: ReplicatedDatabase) -> str:
    """Of the Secret that holds the certificate authority."""
    return f"{database.name}-ca"


def users_name(database: ReplicatedDatabase) -> str:
    """Of the Secret that holds the generated passwords, by user."""
    return f"{database.name}-users"


async def authority_of(
    kube: Kube, database: ReplicatedDatabase, now: float, *, make: bool, known: Authority | None = None
) -> Authority | None:
    """Made once, before anybody takes part; two that make it at once end with the same one. When its Secret is gone
    later, ``known``, the one that is in use, is written again. None: it is not there, and ``make`` is False.

    Raises Permanent: AuthorityLost, as members would believe no other one; EarlierDatabase, whose machines may be
    there still; AuthorityUnusable.
    """
    name, taking_part = authority_name(database), database.status.membership is not None
    held = await kube.secret(database.namespace, name)
    if held is None and make:
        if known is None and taking_part:
            message = f"Secret {name} is gone, and with it the authority that the members believe: restore it"
            raise Permanent(message, "AuthorityLost")
        new = known or new_authority(f"HASite {database.namespace}/{database.name}", now)
        held = await kube.create_secret(_manifest(database, name, _kept(database, new), owned=False))
    if held is None:
        return None
    if CA_CERTIFICATE not in held or CA_KEY not in held:
        raise Permanent(f"Secret {name} has no keys {CA_CERTIFICATE} and {CA_KEY}", "AuthorityUnusable")
    earlier = held.get(OWNER, database.uid.encode()).decode(errors="replace")
    if earlier != database.uid and not taking_part:
        message = (
            f"Secret {name} is of an earlier database of this name (UID {earlier}), whose machines and data may be "
            f"there still: take another name, or, if its data are not wanted, delete the Secrets {name}, "
            f"{users_name(database)} and {database.name}-connection"
        )
        raise Permanent(message, "EarlierDatabase")
    return check(Authority(held[CA_CERTIFICATE], held[CA_KEY]))


async def bind_secrets(kube: Kube, database: ReplicatedDatabase, authority: Authority) -> None:
    """Authority and passwords go with the database, or stay, as ``deletionPolicy`` says now."""
    owned = database.spec.deletion_policy == "Delete"
    data = _kept(database, authority)
    await kube.apply(_manifest(database, authority_name(database), data, owned=owned))
    passwords = await kube.secret(database.namespace, users_name(database))
    if passwords is not None:
        await kube.apply(_manifest(database, users_name(database), passwords, owned=owned))


def _kept(database: ReplicatedDatabase, authority: Authority) -> dict[str, bytes]:
    return {CA_CERTIFICATE: authority.certificate, CA_KEY: authority.key, OWNER: database.uid.encode()}


async def declaration_of(kube: Kube, database: ReplicatedDatabase, *, make: bool) -> Declaration | Unknown:
    """The users with their passwords, and the databases. ``make``: passwords that are missing are generated.

    Raises Permanent: PasswordUnusable.
    """
    spec = database.spec
    generated = [user for user in spec.users if user.password_ref is None]
    passwords = await _generated(kube, database, generated, make) if generated else {}
    for user in spec.users:
        if user.password_ref is not None:
            held = await kube.secret(database.namespace, user.password_ref.name)
            text = _text((held or {}).get(PASSWORD, b""), user.password_ref.name)
            if not text:
                return Unknown(f"Secret {user.password_ref.name} has no key `{PASSWORD}` for user {user.name}")
            passwords[user.name] = text
    if missing := [user.name for user in spec.users if user.name not in passwords]:
        return Unknown(f"there is no password for {', '.join(missing)} yet")
    return Declaration(passwords, {each.name: each.owner for each in spec.databases})


async def backup_secrets(kube: Kube, database: ReplicatedDatabase) -> tuple[bytes, str]:
    """The credentials of the targets as the members get them, and what is missing of them."""
    spec, found, missing = database.spec, {}, []
    targets = {
        "backup": spec.backup.target if spec.backup else None,
        "restore": spec.bootstrap.from_backup.target if spec.bootstrap and not database.status.made else None,
    }
    for purpose, target in targets.items():
        if target is None or target.s3 is None:
            continue
        name = target.s3.credentials_ref.name
        held = await kube.secret(database.namespace, name) or {}
        found[purpose] = {key: held[key].decode(errors="replace") for key in (*TARGET_KEYS, TARGET_CA) if key in held}
        missing += [f"Secret {name} has no key `{key}`" for key in TARGET_KEYS if not held.get(key)]
    return json.dumps(found, sort_keys=True).encode() + b"\n", "; ".join(dict.fromkeys(missing))


async def _generated(kube: Kube, database: ReplicatedDatabase, users: list[User], make: bool) -> dict[str, str]:
    """Only what is missing is added: a password that is there may be in use."""
    name = users_name(database)
    held = {user: _text(word, name) for user, word in (await kube.secret(database.namespace, name) or {}).items()}
    missing = [user.name for user in users if user.name not in held]
    if missing and make:
        held |= {user: secrets.token_urlsafe(24) for user in missing}
        owned = database.spec.deletion_policy == "Delete"
        await kube.apply(_manifest(database, name, {user: word.encode() for user, word in held.items()}, owned=owned))
    return {user.name: held[user.name] for user in users if user.name in held}


def _text(word: bytes, secret: str) -> str:
    try:
        return word.decode()
    except UnicodeDecodeError as error:
        raise Permanent(f"Secret {secret} holds a password that is not UTF-8", "PasswordUnusable") from error


def _manifest(database: ReplicatedDatabase, name: str, data: Mapping[str, bytes], *, owned: bool) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "namespace": database.namespace}
    if owned:
        reference = {"apiVersion": API_VERSION, "kind": database.KIND, "name": database.name, "uid": database.uid}
        metadata["ownerReferences"] = [reference]
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": encoded}
