"""An application that is not ours, on a HASite: Django's own admin, with its users, sessions and migrations.

What the site's app servers get is Debian's packages, a settings file and a unit. `python -m e2e.application DOMAIN
--server 203.0.113.53 …` is one visitor of it, who logs in once, then makes groups and looks them up by their name over
and over in that one session; one line of JSON a request goes to the standard output, until SIGTERM.
"""

import argparse
import asyncio
import contextlib
import functools
import json
import os
import random
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import aiohttp.abc

from e2e.client import CONNECT_SECONDS, Failed, Resolver
from e2e.site import Stage, eventually
from e2e.watch import SERVERS
from e2e.world.world import ROOT

LOGIN = "/admin/login/"
"""Its form's token is kept in a session, so that whoever gets this page has had a row written."""

ADD = "/admin/auth/group/add/"
LIST = "/admin/auth/group/"

VISITORS = 8
"""Enough that at least one is not under way through a load balancer that loses its power: that one waits in vain."""

PATIENCE = 10.0
"""Seconds that a visitor waits for an answer."""

SITE_ENVIRONMENT = "/srv/site/site.env"

SETTINGS = """\
from site_project.settings import *
from os import environ

DEBUG = False
ALLOWED_HOSTS = ["*"]
SECRET_KEY = environ["SITE_KEY"]
CSRF_USE_SESSIONS = True
STATIC_URL = "/static/"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": environ["DATABASE_HOST"],
        "PORT": environ["DATABASE_PORT"],
        "NAME": environ["DATABASE_NAME"],
        "USER": environ["DATABASE_USER"],
        "PASSWORD": environ["DATABASE_PASSWORD"],
        "OPTIONS": {"sslmode": "verify-ca", "sslrootcert": environ["DATABASE_CA"], "connect_timeout": 3},
        "CONN_MAX_AGE": 600,
    }
}
"""

SERVICE = f"""\
[Unit]
Description=Django's admin
StartLimitIntervalSec=0

[Service]
DynamicUser=yes
WorkingDirectory=/srv/site
EnvironmentFile=/etc/hasite/database.env
EnvironmentFile={SITE_ENVIRONMENT}
ExecStartPre=/usr/bin/django-admin migrate --noinput
ExecStartPre=-/usr/bin/django-admin createsuperuser --noinput --username keeper --email keeper@example.com
ExecStart=/usr/bin/gunicorn --bind 0.0.0.0:8080 --workers 3 --timeout 20 site_project.wsgi
Restart=always
RestartSec=1
"""
"""Two servers may migrate at one moment. One then fails, and does it anew; Django may note a migration twice."""

PATH = """\
[Path]
PathExists=/etc/hasite/database.env

[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True)
class Application:
    """What its servers share, and its visitors know."""

    password: str = field(default_factory=secrets.token_urlsafe)
    key: str = field(default_factory=secrets.token_urlsafe)

    def user_data(self) -> str:
        """For app droplets: JSON is YAML."""
        environment = {
            "SITE_KEY": self.key,
            "DJANGO_SUPERUSER_PASSWORD": self.password,
            "DJANGO_SETTINGS_MODULE": "site_settings",
            "PYTHONPATH": "/srv/site",
        }
        files = {
            "/srv/site/site_settings.py": SETTINGS,
            SITE_ENVIRONMENT: "".join(f"{name}={value}\n" for name, value in environment.items()),
            "/etc/systemd/system/site.service": SERVICE,
            "/etc/systemd/system/site.path": PATH,
        }
        return "#cloud-config\n" + json.dumps(
            {
                "packages": ["python3-django", "gunicorn", "python3-psycopg2"],
                "write_files": [{"path": path, "content": content} for path, content in files.items()],
                "runcmd": [
                    ["django-admin", "startproject", "site_project", "/srv/site"],
                    ["systemctl", "enable", "--now", "site.path"],
                ],
            }
        )


# -- a visitor ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Act:
    """One request of a visitor. Times in seconds of the machine's monotonic clock.

    ``kind``: login, form, write, read. ``outcome``: ok; failed, when there was no answer or not the wanted one (a write
    may have happened all the same); lost, when what was acknowledged before was not there: the session, or the group.
    ``address``: the load balancer's that was tried last.
    """

    kind: str
    began: float
    ended: float
    outcome: str
    name: str = ""
    address: str = ""
    why: str = ""


class Lost(Exception):
    """What was acknowledged is not there. Django answers a stranger with a redirect to the login page, and with 403
    when the session has no such token."""


class _One(aiohttp.abc.AbstractResolver):
    """Leads every name to the address that is being tried."""

    address = ""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[aiohttp.abc.ResolveResult]:
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        flags = socket.AI_NUMERICHOST
        return [
            aiohttp.abc.ResolveResult(hostname=host, host=self.address, port=port, family=family, proto=0, flags=flags)
        ]

    async def close(self) -> None:
        """Nothing to close."""


class Visitor:
    """One browser with its cookies. Every request is a new connection, at the name's addresses in random order until
    one connects within a second."""

    def __init__(self, domain: str, servers: Sequence[str], name: str, password: str) -> None:
        self._url = f"http://{domain}"
        self._resolver = Resolver(domain, servers)
        self._at = _One()
        self._name = name
        self._password = password
        self._http: aiohttp.ClientSession
        self._made: list[str] = []

    async def visit(self) -> None:
        """Until it is cancelled. It logs in once: a session that is lost later stays so."""
        connector = aiohttp.TCPConnector(resolver=self._at, use_dns_cache=False, force_close=True)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        async with aiohttp.ClientSession(self._url, connector=connector, timeout=timeout) as self._http:
            known = False
            for number in range(sys.maxsize):
                known = known or await self._act("login", "", self._login())
                if known:
                    await self._round(f"{self._name}-{number:05}")
                await asyncio.sleep(0.1)

    async def _round(self, name: str) -> None:
        token: list[str] = []
        if not await self._act("form", "", self._form(token)):
            return
        if not await self._act("write", name, self._write(name, token[0])):
            return
        self._made.append(name)
        for each in (name, random.choice(self._made)):
            await self._act("read", each, self._read(each))

    async def _act(self, kind: str, name: str, doing: Awaitable[None]) -> bool:
        began = time.monotonic()
        outcome, why = "failed", "the visitor went home"
        try:
            async with asyncio.timeout(PATIENCE):
                await doing
            outcome, why = "ok", ""
        except Lost as error:
            outcome, why = "lost", str(error)
        except (Failed, aiohttp.ClientError, TimeoutError) as error:
            why = str(error) or type(error).__name__
        finally:
            act = Act(kind, began, time.monotonic(), outcome, name, self._at.address, why)
            sys.stdout.write(json.dumps(act.__dict__) + "\n")
            sys.stdout.flush()
        return outcome == "ok"

    async def _login(self) -> None:
        token = _token(await self._get(LOGIN, "the login page"))
        data = {"username": "keeper", "password": self._password, "csrfmiddlewaretoken": token, "next": ADD}
        await self._post(LOGIN, data, ADD)

    async def _form(self, into: list[str]) -> None:
        into.append(_token(await self._get(ADD, "the form")))

    async def _write(self, name: str, token: str) -> None:
        await self._post(ADD, {"name": name, "csrfmiddlewaretoken": token}, LIST)

    async def _read(self, name: str) -> None:
        page = await self._get(f"{LIST}?q={name}", "the list")
        if f">{name}</a>" not in page:
            raise Lost(f"group {name} is not in the list")

    async def _get(self, path: str, what: str) -> str:
        status, _, page = await self._request("GET", path)
        if status != 200:
            raise Failed(f"{what}: status {status}")
        return page

    async def _post(self, path: str, data: dict[str, str], onwards: str) -> None:
        status, location, _ = await self._request("POST", path, data)
        if (status, location) != (302, onwards):
            raise Failed(f"POST: status {status}, {location or 'no redirect'}")

    async def _request(self, method: str, path: str, data: dict[str, str] | None = None) -> tuple[int, str, str]:
        """Status, where it redirects to, and the page. Raises ``Lost``."""
        addresses = await self._resolver.resolve()
        for self._at.address in random.sample(addresses, len(addresses)):
            try:
                async with self._http.request(method, path, data=data, allow_redirects=False) as answer:
                    location = answer.headers.get("Location", "")
                    if answer.status == 403 or location.startswith(LOGIN):
                        raise Lost(f"the session: status {answer.status}")
                    return answer.status, location, await answer.text()
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
                continue
        raise Failed("no address connects")


def _token(page: str) -> str:
    found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
    if found is None:
        raise Failed("a page without its form")
    return found[1]


# -- all of them ----------------------------------------------------------------------------------------------------


@dataclass
class Diary:
    """What the visitors did while a block ran; whole after it."""

    acts: list[Act] = field(default_factory=list)

    def of(self, kind: str, outcome: str = "ok", since: float = 0.0) -> list[Act]:
        """Begun since then, by the time of their end."""
        found = (a for a in self.acts if (a.kind, a.outcome) == (kind, outcome) and a.began >= since)
        return sorted(found, key=lambda act: act.ended)

    @property
    def lost(self) -> list[Act]:
        """Sessions and groups that were not there any more."""
        return [act for act in self.acts if act.outcome == "lost"]

    @property
    def hung(self) -> list[Act]:
        """Requests that got no answer before their visitor's patience ended."""
        return [act for act in self.acts if act.why == TimeoutError.__name__]

    def __str__(self) -> str:
        outcomes = Counter(f"{act.kind} {act.outcome}" for act in self.acts)
        failures = Counter(f"{act.kind}: {act.why}" for act in self.acts if act.outcome != "ok")
        longest = max(act.ended - act.began for act in self.acts)
        return f"{dict(outcomes)}, longest {longest:.2f} s; {failures.most_common(8)}"


def acts(lines: Iterable[str]) -> list[Act]:
    """A visitor's output; a last line that was cut is left out."""
    return [Act(**json.loads(line)) for line in lines if line.endswith("\n")]


@contextlib.asynccontextmanager
async def visitors(stage: Stage, domain: str, application: Application) -> AsyncIterator[Diary]:
    """``VISITORS`` of them. They are logged in when the block begins, and stay so until its end."""
    diary = Diary()
    with tempfile.TemporaryDirectory(prefix="hasite-visitors-") as folder:
        outputs = [Path(folder) / f"{secrets.token_hex(4)}.jsonl" for _ in range(VISITORS)]
        processes = [_start(stage, domain, application, output) for output in outputs]
        try:
            for output in outputs:
                await eventually(functools.partial(_has_written, output), 30, "the first group", 0.1)
            yield diary
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                await asyncio.to_thread(process.wait)
            for output in outputs:
                diary.acts += acts(output.read_text().splitlines(keepends=True))
            print(f"  visitors: {diary}")


def _has_written(output: Path) -> bool:
    return any((act.kind, act.outcome) == ("write", "ok") for act in acts(output.read_text().splitlines(keepends=True)))


def _start(stage: Stage, domain: str, application: Application, output: Path) -> "subprocess.Popen[bytes]":
    servers = [f"--server={server}" for server in SERVERS.values()]
    argv = [sys.executable, "-m", "e2e.application", domain, *servers, f"--name={output.stem}"]
    with output.open("wb") as out:
        environment = {**os.environ, "PASSWORD": application.password}
        return stage.world.run_at("client", argv, stdout=out, cwd=ROOT, env=environment)


async def _until_told(visitor: Visitor) -> None:
    visiting = asyncio.create_task(visitor.visit())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, visiting.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await visiting


def main() -> None:
    """The password is in the environment."""
    parser = argparse.ArgumentParser(prog="python -m e2e.application", description=__doc__)
    parser.add_argument("domain")
    parser.add_argument("--server", action="append", required=True, help="an authoritative name server's address")
    parser.add_argument("--name", default="visitor", help="what the names of this visitor's groups begin with")
    arguments = parser.parse_args()
    visitor = Visitor(arguments.domain, arguments.server, arguments.name, os.environ["PASSWORD"])
    asyncio.run(_until_told(visitor))


if __name__ == "__main__":
    main()
