"""This machine as a ``Session``, and HAProxy on it as an ordinary process: what systemd does, a script does here."""

import asyncio
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from hasite.errors import Transient
from hasite.machines.base import Result

SYSTEMCTL = """#!/bin/sh
# {state}: pid of the master process, "enabled", and what HAProxy said.
pid=$(cat {state}/pid 2>/dev/null)
alive() {{ [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null && ! grep -q '^State:.Z' "/proc/$pid/status"; }}
case "$*" in
  "is-active haproxy") if alive; then echo active; else echo inactive; exit 3; fi ;;
  "is-active -q haproxy") alive ;;
  "is-enabled haproxy") if [ -e {state}/enabled ]; then echo enabled; else echo disabled; exit 1; fi ;;
  "is-enabled -q haproxy") [ -e {state}/enabled ] ;;
  "enable haproxy") touch {state}/enabled ;;
  "disable haproxy") rm -f {state}/enabled ;;
  "start haproxy") haproxy -W -D -f {config} -p {state}/pid >>{state}/log 2>&1 </dev/null 9>&- ;;
  "reload haproxy") haproxy -c -q -f {config} >>{state}/log 2>&1 && kill -USR2 "$pid" ;;
  "stop haproxy") if alive; then kill -TERM "$pid"; while alive; do sleep 0.02; done; fi; rm -f {state}/pid ;;
  "kill haproxy") if alive; then kill -KILL $(cat "/proc/$pid/task/$pid/children") "$pid"; fi; rm -f {state}/pid ;;
  "reset-failed haproxy") ;;
  *) echo "unknown: $*" >&2; exit 1 ;;
esac
"""


@dataclass
class LocalSession:
    """Runs commands here, with ``tools`` before everything else on the path."""

    tools: Path
    host_key: str = "ssh-ed25519 AAAA"
    runs: list[str] = field(default_factory=list)

    async def run(self, command: str, *, stdin: bytes = b"", timeout: float = 10.0) -> Result:  # noqa: ASYNC109
        self.runs.append(command)
        process = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PATH": f"{self.tools}:{os.environ['PATH']}:/usr/sbin:/sbin"},
        )
        async with asyncio.timeout(timeout):
            out, err = await process.communicate(stdin)
        return Result(process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace"))

    async def read(self, path: str) -> bytes | None:
        return await asyncio.to_thread(_read, Path(path))

    async def write(self, path: str, data: bytes, mode: int = 0o600) -> None:
        await asyncio.to_thread(Path(path).write_bytes, data)

    async def unix_request(self, path: str, request: bytes, *, timeout: float = 2.0) -> bytes:  # noqa: ASYNC109
        try:
            reader, writer = await asyncio.open_unix_connection(path)
        except OSError as error:
            raise Transient(f"{path}: {error}") from error
        writer.write(request)
        writer.write_eof()
        async with asyncio.timeout(timeout):
            answer = await reader.read()
        writer.close()
        return answer

    async def systemctl(self, *words: str) -> Result:
        return await self.run(f"systemctl {' '.join(words)}")


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def install_systemctl(tools: Path, state: Path, config: str) -> None:
    for folder in (tools, state):
        folder.mkdir()
    for name, text in {
        "systemctl": SYSTEMCTL.format(state=state, config=config),
        "journalctl": f"#!/bin/sh\ntail -n 20 {state}/log\n",
    }.items():
        path = tools / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
