"""What a guard must not forget: its vote, on disk before it answers."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from hasite.guard.model import Settings, Vote
from hasite.guard.wire import WireError, dump, load, parse


class DamagedVote(Exception):
    """The vote can't be read, or is gone from a member that has data: this guard may have promised something."""


class VoteStore:
    """The vote in one file with a checksum, replaced as a whole.

    A voter that starts from nothing could vote twice in one epoch. So a file that is damaged, or missing beside a
    database that only a guard with a vote can have made, is never read as "has not voted yet".
    """

    def __init__(self, path: Path, data: Path) -> None:
        self._path = path
        self._data = data

    def load(self) -> Vote:
        """Writes the first vote where there is none. Raises DamagedVote, and OSError when the disk fails."""
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            if self._data.exists():
                raise DamagedVote(f"{self._path} is gone, but {self._data} is there") from None
            self.store(Vote())
            return Vote()
        try:
            value = parse(text)
            if not isinstance(value, dict) or value.get("checksum") != _checksum(value.get("vote")):
                raise WireError("its checksum is wrong")
            return load(Vote, value["vote"])
        except WireError as error:
            raise DamagedVote(f"{self._path}: {error}") from None

    def store(self, vote: Vote) -> None:
        """Returns when file and folder are synced. Raises OSError: then nothing may be answered that rests on it."""
        value = dump(vote)
        text = json.dumps({"checksum": _checksum(value), "vote": value}, indent=1).encode() + b"\n"
        replace(self._path, text)


def replace(path: Path, text: bytes) -> None:
    """The file is the old one or the new one, whatever happens, and the new one for good once this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".new")
    with open(aside, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(aside, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_settings(path: Path) -> Settings:
    """What the operator wrote. Raises WireError, ValueError by ``Timing.check``, or OSError."""
    settings = load(Settings, parse(path.read_bytes()))
    settings.timing.check()
    if settings.name not in {member.name for member in settings.membership.members}:
        raise WireError(f"Settings.name: {settings.name!r} is no member")
    return settings


def saved(folder: Path) -> tuple[str, ...]:
    """Where this member keeps what it alone had, oldest first: the names end with the time. Raises OSError."""
    try:
        names = sorted(os.listdir(folder), key=lambda name: (name.rpartition("-")[2], name))
    except FileNotFoundError:
        return ()
    return tuple(str(folder / name) for name in names if not name.endswith(".new"))


def _checksum(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
