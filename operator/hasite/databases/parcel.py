"""What one member gets: guard, units, settings and, unless it has a good one, a new certificate."""

from hasite.databases.certificates import Authority, fits, issue, rotation
from hasite.databases.delivery import File, Parcel, digest
from hasite.databases.guardfiles import CA, CERTIFICATE, KEY, SETTINGS, program_files, settings_file
from hasite.guard.model import Member, Settings
from hasite.machines.base import Session
from hasite.plan.databaseworld import Version

GROUPS = {"postgresql": "postgres", "mysql": "mysql", "mariadb": "mysql"}
"""Of the users that the distribution's servers run as."""


def version_of(settings: Settings, authority: Authority, now: float) -> Version:
    """Known without looking at the member. The certificate itself is no part of it, but its period is."""
    parts = [part for path, data in sorted(_program(settings).items()) for part in (path.encode(), data)]
    terms = (authority.certificate, str(rotation(now)).encode(), " ".join(_addresses(settings)).encode())
    return Version(digest(*parts), digest(settings_file(settings), *terms))


async def parcel_of(session: Session, settings: Settings, authority: Authority, now: float) -> Parcel:
    """For the member at the other end of the session."""
    member = _member(settings)
    files = {path: File(data) for path, data in _program(settings).items()}
    files[SETTINGS] = File(settings_file(settings), mode=0o600)
    files[CA] = File(authority.certificate)
    held = await session.run(f"test -s {KEY} && cat {CERTIFICATE}")
    if held.status != 0 or not fits(held.stdout.encode(), authority, member.name, _addresses(settings), now):
        own = issue(authority, member.name, _addresses(settings), now)
        files[CERTIFICATE], files[KEY] = File(own.certificate), File(own.key, secret=True)
    group = "root" if member.witness else GROUPS[settings.engine]
    return Parcel(files, version_of(settings, authority, now), group)


def _program(settings: Settings) -> dict[str, bytes]:
    return dict(program_files(settings.engine, settings.version))


def _addresses(settings: Settings) -> tuple[str, ...]:
    """What its certificate is for: its own address, and the one of the proxy that app servers reach it through."""
    return (_member(settings).address, "127.0.0.1")


def _member(settings: Settings) -> Member:
    return next(m for m in settings.membership.members if m.name == settings.name)
