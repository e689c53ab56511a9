"""One PostgreSQL server on this machine: its files, its processes, and what its data folder tells when it is down."""

import asyncio
import json
import os
import pwd
import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from hasite.guard.backupfiles import ARCHIVE, backup_folder
from hasite.guard.engines import postgresql_settings as configuration
from hasite.guard.engines import postgresql_torn
from hasite.guard.engines.base import EngineError, Layout, Service
from hasite.guard.engines.postgresql_settings import Place
from hasite.guard.engines.postgresql_sql import NotAnswering, Session
from hasite.guard.engines.threads import in_thread
from hasite.guard.model import Settings

CLEAN_STOP = 8.0
"""Seconds for a fast shutdown."""

CHECKPOINT = 600.0
"""Seconds, at most, for one that somebody waits for."""

PAGE = 8192
SEGMENT = 16 * 1024 * 1024
"""Of the write-ahead log: initdb's default, which ``make`` keeps to."""


class Files:
    """The data folder and the configuration. Everything in them is written whole, or not at all."""

    def __init__(self, layout: Layout, place: Place) -> None:
        self.layout = layout
        self.place = place
        self.data = layout.data
        self.aside = layout.data.with_name(layout.data.name + ".new")
        self.unusable = layout.data.with_name(layout.data.name + ".unusable")
        """There: the data folder is half of one history and half of another, and only a fresh copy helps."""
        self.reign = layout.data.with_name(layout.data.name + ".reign")
        """There: this server was promoted, in that epoch and at that position, and has not rejoined since."""
        self.user_settings: Mapping[str, str] = {}
        self._accepted = layout.data.with_name(layout.data.name + ".settings")
        entry = pwd.getpwnam(place.user)
        self.uid, self.gid = entry.pw_uid, entry.pw_gid

    @property
    def present(self) -> bool:
        """Whether there is a database, in whatever state."""
        return (self.data / "PG_VERSION").exists()

    def configure(self, settings: Settings) -> bool:
        """Writes what ``settings`` say: whether anything changed. Raises OSError."""
        folder = self.place.configuration
        self.folder(folder, 0o750, owner=(0, self.gid))
        self.user_settings = settings.engine_settings
        members = tuple(member.name for member in settings.membership.members if not member.witness)
        archive = backup_folder(self.layout) / ARCHIVE if settings.backup else None
        texts = {
            "postgresql.conf": configuration.server(self.place, settings.name, settings.engine_settings, archive),
            "pg_ident.conf": configuration.identities(self.place.user, members),
            "ca.pem": self.layout.ca.read_text(),
            "cert.pem": self.layout.certificate.read_text(),
            "key.pem": self.layout.key.read_text(),
        }
        changed = [self.write(folder / name, text) for name, text in texts.items()]
        hba = folder / "pg_hba.conf"
        if not hba.exists():
            changed.append(self.admit(True))
        return any(changed)

    def accepted(self) -> Mapping[str, str]:
        """The user's settings that the server took last, whichever guard gave them."""
        try:
            found = json.loads(self._accepted.read_text())
        except (OSError, ValueError):
            return {}
        return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}

    def accept(self, settings: Mapping[str, str]) -> None:
        """From now on these are."""
        self.write(self._accepted, json.dumps(dict(settings), indent=1, sort_keys=True) + "\n")

    def admit(self, clients: bool) -> bool:
        """Who may connect, from the next reload on: whether that changed."""
        text = configuration.access(self.place.user, clients=clients)
        return self.write(self.place.configuration / "pg_hba.conf", text)

    def set_role(self, values: Mapping[str, str]) -> bool:
        """The settings that change with the role, over everything that ALTER SYSTEM may have said. Whether changed."""
        overruled = self.write(self.data / "postgresql.auto.conf", "", owner=(self.uid, self.gid))
        return self.write(self.place.role, configuration.assignments(values)) or overruled

    def write(self, path: Path, text: str, owner: tuple[int, int] | None = None) -> bool:
        """Atomically, readable by the server; whether it said something else before."""
        with suppress(FileNotFoundError):
            if path.read_text() == text:
                return False
        aside = path.with_name(path.name + ".tmp")
        with open(aside, "w", opener=lambda name, flags: os.open(name, flags, 0o640)) as file:
            os.fchown(file.fileno(), *(owner or (0, self.gid)))
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
        sync_folder(path.parent)
        return True

    def folder(self, path: Path, mode: int, owner: tuple[int, int]) -> None:
        """Makes it when it is not there."""
        path.mkdir(parents=True, exist_ok=True)
        os.chown(path, *owner)
        path.chmod(mode)

    def stand_by(self) -> None:
        """From here on a start is never that of a primary."""
        self.write(self.data / "standby.signal", "", owner=(self.uid, self.gid))

    async def fresh(self) -> Path:
        """An empty folder beside the data, to be filled by the server's user."""
        await in_thread(shutil.rmtree, self.aside, True)
        self.folder(self.aside, 0o700, owner=(self.uid, self.gid))
        return self.aside

    def adopt(self) -> None:
        """The folder beside the data becomes the data; what was there is gone."""
        old = self.data.with_name(self.data.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        if self.data.exists():
            self.data.rename(old)
        self.aside.rename(self.data)
        for marker in (self.unusable, self.reign):
            marker.unlink(missing_ok=True)
        sync_folder(self.data.parent)
        shutil.rmtree(old, ignore_errors=True)


def sync_folder(path: Path) -> None:
    """So that names in it outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Tools:
    """PostgreSQL's own programs, run as the server's user (root may not run most of them)."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.progress = ""
        """The last line of what runs now."""

    async def run(self, program: str, *arguments: str, given: str = "", into: int | None = None) -> str:
        """Its output, unless that goes ``into`` a file descriptor. Raises EngineError with its last words.

        Cancelled: it is killed, and has ended.
        """
        process = await asyncio.create_subprocess_exec(
            str(self._place.binaries / program),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE if into is None else into,
            stderr=asyncio.subprocess.PIPE,
            user=self._place.user,
            group=self._place.user,
            extra_groups=[],
            cwd="/",
            env={
                "PATH": os.environ.get("PATH", ""),
                "LC_ALL": "C",
                "PGAPPNAME": "hasite-guard",
                "HOME": "/nonexistent",
            },
            start_new_session=True,
        )
        try:
            output, words = await self._talk(process, given)
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())
            raise
        finally:
            self.progress = ""
        if process.returncode != 0:
            raise EngineError(f"{program}: {last_words(words) or f'status {process.returncode}'}")
        return output

    async def _talk(self, process: asyncio.subprocess.Process, given: str) -> tuple[str, str]:
        assert process.stdin and process.stderr  # noqa: S101
        process.stdin.write(given.encode())
        process.stdin.close()

        async def output() -> str:
            return (await process.stdout.read()).decode(errors="replace") if process.stdout else ""

        async def words(stream: asyncio.StreamReader) -> str:
            heard = b""
            while part := await stream.read(4096):
                heard = (heard + part)[-8192:]
                self.progress = last_words(heard.decode(errors="replace"), 1)
            return heard.decode(errors="replace")

        said, heard = await asyncio.gather(output(), words(process.stderr))
        await process.wait()
        return said, heard


def last_words(text: str, lines: int = 3) -> str:
    """The end of what a program said, in one line."""
    said = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return " / ".join(said[-lines:])[-500:]


class Server:
    """Starting, stopping and asking the one server of this machine."""

    def __init__(self, files: Files, service: Service, tools: Tools, prepare: str) -> None:
        self.files = files
        self.tools = tools
        self._service = service
        place = files.place
        parameters = {
            "host": str(place.sockets),
            "port": str(place.port),
            "user": place.user,
            "dbname": "postgres",
            "connect_timeout": "2",
        }
        self.eyes = Session(parameters, prepare)
        """For observing; ``hands`` for changing things: a long change does not blind the observer."""
        self.hands = Session(parameters, prepare)
        self._parameters = parameters
        self._armed = False
        self.minimum: dict[str, str] = {}

    @property
    def running(self) -> bool:
        """Whether any process of the server is there; that can't be seen, it may be."""
        try:
            return bool(self._service.pids())
        except OSError:
            return True

    async def start(self, role: Mapping[str, str], *, rewound: bool = False, patience: float = 60.0) -> None:
        """As a standby, with ``role``'s settings; returns when it answers. Raises EngineError."""
        if self.files.unusable.exists() and not rewound:
            raise EngineError("the data is between two histories and needs a fresh copy")
        await in_thread(self.files.stand_by)
        control = await self.control()
        self.minimum = configuration.at_least(control, self.files.user_settings)
        size = int(control["Bytes per WAL segment"])
        await in_thread(postgresql_torn.remove_torn, self.files.data / "pg_wal", size)
        await in_thread(self.files.set_role, {**self.minimum, **role})
        armed = not self.running and bool(role["synchronous_standby_names"])
        await self._service.start()
        self._armed = armed
        end = asyncio.get_running_loop().time() + patience
        while True:
            try:
                await self.hands.value("SELECT 1", within=2.0)
                return
            except NotAnswering as error:
                if not self.running:
                    raise EngineError(f"the server ended as it started: {error}") from None
                if asyncio.get_running_loop().time() > end:
                    raise EngineError(f"the server does not come up: {error}") from None
            await asyncio.sleep(0.01)

    async def assume(self, role: Mapping[str, str]) -> None:
        """The settings that change with the role: written, and in force in every new session when this returns.
        Raises EngineError."""
        if not role["synchronous_standby_names"]:
            self._armed = False
        stale = await in_thread(self.files.set_role, {**self.minimum, **role})
        end = asyncio.get_running_loop().time() + 2.0
        rounds = 0
        while True:
            query = "SELECT name, current_setting(name, true) FROM unnest(%s) n (name)"
            rows = await self.hands.fetch(query, (list(role),))
            wrong = [name for name, value in rows if value != role[name]]
            if ("synchronous_standby_names", "") in rows:
                self._armed = False
            if not wrong and not stale:
                return
            if asyncio.get_running_loop().time() > end:
                raise EngineError(f"the server does not take over {', '.join(wrong)}")
            if stale or rounds == 0:
                await self.reload()
                stale = False
            rounds += 1
            await asyncio.sleep(0.005)

    async def arm(self) -> None:
        """Returns once all commits wait for whom ``synchronous_standby_names`` names. At once, when some were named all
        the time since the server started. Raises EngineError.

        Whether to wait at all sessions read from a flag that only the checkpointer sets, as it takes the configuration
        over: not while it syncs files, but at the latest before its next checkpoint. The first of the two may have been
        begun between its look for signals and its look for requests.
        """
        if self._armed:
            return
        pid = await self.hands.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
        if pid not in self._service.pids():
            raise EngineError("the server has no checkpointer")
        os.kill(pid, signal.SIGHUP)
        session = Session(self._parameters, "SET statement_timeout = 0")
        try:
            for _ in range(2):
                await session.value("CHECKPOINT", within=CHECKPOINT)
        finally:
            session.close()
        self._armed = True

    async def reload(self) -> None:
        """The configuration files are read again."""
        await self.hands.value("SELECT pg_reload_conf()")

    async def admit(self, *, clients: bool) -> None:
        """Who may connect, from now on."""
        if await in_thread(self.files.admit, clients):
            await self.reload()

    async def stop(self, *, clean: bool = False) -> None:
        """At once; or ``clean``: by a fast shutdown, which sends everything to the standbys that are connected."""
        self.hands.close()
        self.eyes.close()
        try:
            if clean and self.running:
                async with asyncio.timeout(CLEAN_STOP):
                    await self._service.stop()
        except TimeoutError:
            raise EngineError(
                "the server did not stop cleanly: a standby did not take the rest, it was killed"
            ) from None
        finally:
            self._service.kill()
        if self.running:
            raise EngineError("the server does not end: it hangs in the kernel")

    def kill(self) -> None:
        """The fence."""
        self._service.kill()

    async def recover_alone(self) -> None:
        """Crash recovery to the end of the log on the data's own timeline, and a clean shutdown, with no one let in.

        No log is given up: pg_rewind reads all of it since the last checkpoint that upstream has too.
        """
        await in_thread((self.files.data / "standby.signal").unlink, True)
        await self.single("", wal_keep_size=configuration.ALL_LOG)

    async def single(self, statements: str, data: Path | None = None, **settings: str) -> None:
        """A server for nobody but these statements, one a line. Raises EngineError for the first that fails."""
        folder = data or self.files.data
        settings |= {"config_file": str(self.files.place.file), "exit_on_error": "on"}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        await self.tools.run("postgres", "--single", "-D", str(folder), *options, "postgres", given=statements)

    async def check(self) -> None:
        """Raises EngineError when the server would refuse its configuration."""
        config = f"config_file={self.files.place.file}"
        await self.tools.run("postgres", "-D", str(self.files.data), "-c", config, "-C", "max_connections")

    async def control(self) -> dict[str, str]:
        """What pg_controldata tells. Raises EngineError."""
        text = await self.tools.run("pg_controldata", str(self.files.data))
        pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
        return {name.strip(): value.strip() for name, value in pairs}


def number(lsn: str) -> int:
    """A position in the log, from the server's notation."""
    high, low = lsn.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def notation(position: int) -> str:
    """The server's."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def record_end(start: int, length: int) -> int:
    """Where a record of the log ends, as the server counts: it is padded to 8 bytes, and skips the header of every page
    that it runs into (24 bytes, 40 at a segment's first page)."""
    at, left = start, length
    while left > (room := PAGE - at % PAGE):
        left -= room
        at += room
        at += 40 if at % SEGMENT == 0 else 24
    return (at + left + 7) // 8 * 8
