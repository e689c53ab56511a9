"""What one member gets: guard, units, settings and, unless it has a good one, a new certificate."""

import hmac

from hasite.databases.certificates import Authority, fits, issue, public_key_of, rotation
from hasite.databases.delivery import File, Parcel, digest
from hasite.databases.guardfiles import CA, CERTIFICATE, KEY, SETTINGS, program_files, settings_file
from hasite.guard.backupfiles import credentials_file
from hasite.guard.engines.base import Layout
from hasite.guard.model import Member, Settings
from hasite.machines.base import Session
from hasite.plan.databaseworld import Version

GROUPS = {"postgresql": "postgres", "mysql": "mysql", "mariadb": "mysql"}
"""Of the users that the distribution's servers run as."""

_KEY_FOLLOWS = "and its key:"

CREDENTIALS = str(credentials_file(Layout()))
NO_SECRETS = b"{}\n"


def version_of(settings: Settings, authority: Authority, now: float, secrets: bytes = NO_SECRETS) -> Version:
    """Known without looking at the member. The certificate itself is no part of it, but its period is.

    ``secrets``: of backups, for root alone. In a digest that only who has the authority's key can compute.
    """
    parts = [part for path, data in sorted(_program(settings).items()) for part in (path.encode(), data)]
    terms: tuple[bytes, ...] = (
        authority.certificate,
        str(rotation(now)).encode(),
        " ".join(_addresses(settings)).encode(),
    )
    terms += (hmac.digest(authority.key, secrets, "sha256"),)
    return Version(digest(*parts), digest(settings_file(settings), *terms))


async def parcel_of(
    session: Session, settings: Settings, authority: Authority, now: float, secrets: bytes = NO_SECRETS
) -> Parcel:
    """For the member at the other end of the session."""
    member = _member(settings)
    files = {path: File(data) for path, data in _program(settings).items()}
    files[SETTINGS] = File(settings_file(settings), mode=0o600)
    files[CREDENTIALS] = File(secrets, mode=0o600)
    files[CA] = File(authority.certificate)
    held = await session.run(
        f"test -s {KEY} && cat {CERTIFICATE} && echo {_KEY_FOLLOWS} && openssl pkey -in {KEY} -pubout"
    )
    certificate, _, public = held.stdout.encode().partition(f"{_KEY_FOLLOWS}\n".encode())
    whole = held.status == 0 and public_key_of(certificate) == public
    if not whole or not fits(certificate, authority, member.name, _addresses(settings), now):
        own = issue(authority, member.name, _addresses(settings), now)
        files[CERTIFICATE], files[KEY] = File(own.certificate), File(own.key, secret=True)
    group = "root" if member.witness else GROUPS[settings.engine]
    return Parcel(files, version_of(settings, authority, now, secrets), group)


def _program(settings: Settings) -> dict[str, bytes]:
    return dict(program_files(settings.engine, settings.version))


def _addresses(settings: Settings) -> tuple[str, ...]:
    """What its certificate is for: its own address, and the one of the proxy that app servers reach it through."""
    return (_member(settings).address, "127.0.0.1")


def _member(settings: Settings) -> Member:
    return next(m for m in settings.membership.members if m.name == settings.name)
