"""Machines over SSH, with asyncssh: one kept-open connection a machine, trusted by exactly the host keys that we know.

No agent, no configuration file, no known_hosts file and no password ever takes part: what is trusted, and what is
shown, is in the arguments alone.
"""

import asyncio
import logging
import posixpath
import secrets
import shlex
from dataclasses import dataclass

import asyncssh

from hasite.errors import HostKeyMismatch, Permanent, Transient, Unauthorized, Unreachable
from hasite.machines.base import Result, Target
from hasite.machines.words import plain

KEEPALIVE_INTERVAL = 2
KEEPALIVE_COUNT = 3
MAX_COMMANDS = 8
"""Commands at once on one connection. OpenSSH's MaxSessions is 10 unless it is configured."""
OPEN_AGAIN_SECONDS = 0.05
MAX_OUTPUT = 1024 * 1024
"""Bytes of each output of a command, and so of a file that is read."""
MAX_UNIX_RESPONSE = 4 * 1024 * 1024
RSA_SIGNATURES = ("rsa-sha2-256", "rsa-sha2-512")
CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes128-ctr",
)
"""OpenSSH's own, AES-GCM first: asyncssh makes a new context for each packet of ChaCha20, a third of its cost."""
ABSENT_WORDS = b"No such file or directory"


def public_key_line(key: asyncssh.SSHKey) -> str:
    """The key as ``type base64``, without a comment."""
    return " ".join(key.export_public_key("openssh").decode().split()[:2])


def _host_key_algorithms(keys: list[asyncssh.SSHKey]) -> list[str]:
    """The known keys' types first, so that the machine shows such a key if it has one.

    The others follow so that a machine without one shows whose it is instead of hanging up. They are never trusted.
    """
    known = [key.get_algorithm() for key in keys]
    wanted = [name for kind in known for name in (RSA_SIGNATURES if kind == "ssh-rsa" else (kind,))]
    return list(dict.fromkeys([*wanted, "ssh-ed25519", "ecdsa-sha2-nistp256", *RSA_SIGNATURES]))


class _Client(asyncssh.SSHClient):
    """Remembers a key that is not among the trusted ones. asyncssh asks only about those."""

    def __init__(self) -> None:
        self.refused: asyncssh.SSHKey | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.refused = key
        return False


@dataclass(frozen=True)
class _Output:
    status: int
    stdout: bytes
    stderr: bytes

    @property
    def words(self) -> str:
        return plain(self.stderr.decode(errors="replace")) or f"exit status {self.status}"


class SshSession:
    """A live connection to one machine, as root. Many commands may run on it at once."""

    def __init__(self, name: str, connection: asyncssh.SSHClientConnection, host_key: str) -> None:
        self.name = name
        self.host_key = host_key
        self._connection = connection
        self._commands = asyncio.Semaphore(MAX_COMMANDS)

    @property
    def alive(self) -> bool:
        """False as soon as asyncssh knows that the connection is gone."""
        return not self._connection.is_closed()

    async def run(self, command: str, *, stdin: bytes = b"", timeout: float = 10.0) -> Result:  # noqa: ASYNC109
        """Runs a shell command. Any exit status is a result; a lost connection or ``timeout`` is ``Unreachable``.

        Raises ``Transient`` when it prints more than ``MAX_OUTPUT``: nothing of that is kept.
        """
        output = await self._run(command, stdin, timeout)
        return Result(output.status, output.stdout.decode(errors="replace"), output.stderr.decode(errors="replace"))

    async def read(self, path: str) -> bytes | None:
        """The file, or None when the machine says ENOENT. Any other failure is ``Permanent`` in the machine's words."""
        output = await self._run(f"LC_ALL=C exec cat -- {shlex.quote(path)}", b"", 10.0)
        if output.status == 0:
            return output.stdout
        if output.stderr.strip().endswith(ABSENT_WORDS):
            return None
        raise Permanent(f"{self.name}: cannot read {path}: {output.words}", reason="ReadFailed")

    async def write(self, path: str, data: bytes, mode: int = 0o600) -> None:
        """Aside, synced, renamed. A transfer that breaks off leaves ``path`` as it was: the length is checked first."""
        output = await self._run(write_script(path, len(data), mode), data, 30.0)
        if output.status != 0:
            raise Permanent(f"{self.name}: cannot write {path}: {output.words}", reason="WriteFailed")

    async def unix_request(self, path: str, request: bytes, *, timeout: float = 2.0) -> bytes:  # noqa: ASYNC109
        """Asks a Unix socket on the machine. ``Transient``, not ``Unreachable``, when nothing listens there."""
        try:
            async with asyncio.timeout(timeout):
                return await self._unix_request(path, request)
        except asyncssh.ChannelOpenError as error:
            if not self.alive:
                raise Unreachable(f"{self.name}: the connection is gone") from error
            raise Transient(f"{self.name}: {path}: {plain(error.reason)}") from error
        except TimeoutError:
            raise Unreachable(f"{self.name}: {path} did not answer within {timeout:g} s") from None
        except (OSError, asyncssh.Error) as error:
            raise Unreachable(f"{self.name}: {plain(str(error))}") from error

    async def _unix_request(self, path: str, request: bytes) -> bytes:
        reader, writer = await self._connection.open_unix_connection(path, encoding=None)
        try:
            writer.write(request)
            writer.write_eof()
            chunks: list[bytes] = []
            size = 0
            while chunk := await reader.read(65536):
                chunks.append(chunk)
                size += len(chunk)
                if size > MAX_UNIX_RESPONSE:
                    raise Transient(f"{self.name}: {path} sent more than {MAX_UNIX_RESPONSE} bytes")
        finally:
            writer.close()
        if not self.alive:
            raise Unreachable(f"{self.name}: the connection broke while {path} answered")
        return b"".join(chunks)

    async def _run(self, command: str, stdin: bytes, limit: float) -> _Output:
        try:
            async with asyncio.timeout(limit), self._commands:
                process = await self._begin(command, stdin)
                try:
                    stdout, stderr = await asyncio.gather(self._read(process.stdout), self._read(process.stderr))
                    await process.wait_closed()
                finally:
                    process.close()
        except TimeoutError:
            raise Unreachable(f"{self.name}: no end of a command within {limit:g} s") from None
        except (OSError, asyncssh.Error) as error:
            raise Unreachable(f"{self.name}: {plain(str(error))}") from error
        if process.exit_status is None:
            raise Unreachable(f"{self.name}: the connection broke during a command")
        return _Output(255 if process.exit_signal else process.exit_status, stdout, stderr)

    async def _begin(self, command: str, stdin: bytes) -> asyncssh.SSHClientProcess[bytes]:
        """sshd counts a command that has just ended until it has buried the process, and meanwhile opens no other."""
        while True:
            try:
                return await self._connection.create_process(command, input=stdin, encoding=None)
            except asyncssh.ChannelOpenError:
                if not self.alive:
                    raise
            await asyncio.sleep(OPEN_AGAIN_SECONDS)

    async def _read(self, reader: asyncssh.SSHReader[bytes]) -> bytes:
        output = bytearray()
        while chunk := await reader.read(65536):
            output += chunk
            if len(output) > MAX_OUTPUT:
                raise Transient(f"{self.name}: a command printed more than {MAX_OUTPUT} bytes")
        return bytes(output)


def write_script(path: str, size: int, mode: int) -> str:
    """A shell script that puts ``size`` bytes of stdin at ``path`` in one step, or fails and leaves it as it was."""
    folder, base = posixpath.split(path)
    aside = posixpath.join(folder, f".{base}.{secrets.token_hex(4)}")
    return (
        f"set -e; umask 077; export LC_ALL=C; new={shlex.quote(aside)}; "
        "trap 'rm -f -- \"$new\"' EXIT; trap 'exit 1' HUP INT TERM PIPE; "
        'cat >"$new"; '
        f'[ "$(wc -c <"$new")" -eq {size} ] || {{ echo "the transfer broke off" >&2; exit 1; }}; '
        f'chmod {mode:o} -- "$new"; sync -- "$new"; mv -fT -- "$new" {shlex.quote(path)}; '
        f"sync -- {shlex.quote(folder or '/')}"
    )


class SshMachines:
    """All the machines that one operator knows. Concurrent callers for one machine share one connection attempt."""

    def __init__(self, client_key: str) -> None:
        """``client_key``: an unencrypted OpenSSH private key. Raises ``Permanent`` when it cannot be read."""
        try:
            self._client_key = asyncssh.import_private_key(client_key)
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
            raise Permanent(f"the SSH private key cannot be read: {error}", reason="InvalidSSHKey") from error
        asyncssh.set_log_level(logging.WARNING)
        self._sessions: dict[str, tuple[Target, SshSession]] = {}
        self._attempts: dict[str, tuple[Target, asyncio.Task[SshSession]]] = {}

    @property
    def public_key(self) -> str:
        """The client's own public key, as the provider must give it to the machines."""
        return public_key_line(self._client_key)

    async def session(self, target: Target, *, timeout: float = 5.0) -> SshSession:  # noqa: ASYNC109
        """The kept-open session when it still is to this address and one of these keys, or a new one."""
        kept = self._sessions.get(target.name)
        if kept is not None:
            if kept[1].alive and _same_place(kept[0], target) and kept[1].host_key in target.host_keys:
                return kept[1]
            await self.drop(target.name)
        attempt = self._attempt(target, timeout)
        try:
            return await asyncio.wait_for(asyncio.shield(attempt), timeout)
        except TimeoutError:
            raise Unreachable(f"{target.name}: no SSH connection to {target.address} within {timeout:g} s") from None
        except asyncio.CancelledError:
            waiter = asyncio.current_task()
            if attempt.cancelled() and waiter is not None and not waiter.cancelling():
                raise Unreachable(f"{target.name}: the attempt to connect was given up for another") from None
            raise

    def _attempt(self, target: Target, limit: float) -> asyncio.Task[SshSession]:
        known = self._attempts.get(target.name)
        if known is not None and known[0] == target and not known[1].done():
            return known[1]
        if known is not None:
            known[1].cancel()
        task = asyncio.create_task(self._open(target, limit), name=f"ssh {target.name}")
        self._attempts[target.name] = (target, task)
        task.add_done_callback(lambda done: self._forget(target.name, done))
        return task

    def _forget(self, name: str, task: asyncio.Task[SshSession]) -> None:
        known = self._attempts.get(name)
        if known is not None and known[1] is task:
            del self._attempts[name]
        if not task.cancelled():
            task.exception()

    async def _open(self, target: Target, limit: float) -> SshSession:
        connection, client = await self._connect(target, limit)
        shown = connection.get_server_host_key()
        if shown is None or client.refused is not None:
            connection.abort()
            raise HostKeyMismatch(f"{target.name}: {target.address} showed no host key")
        session = SshSession(target.name, connection, public_key_line(shown))
        self._sessions[target.name] = (target, session)
        return session

    async def _connect(self, target: Target, limit: float) -> tuple[asyncssh.SSHClientConnection, _Client]:
        keys = _host_keys(target)
        client = _Client()
        try:
            async with asyncio.timeout(limit):
                connection, _ = await asyncssh.create_connection(
                    lambda: client,
                    target.address,
                    target.port,
                    config=None,
                    username="root",
                    client_keys=[self._client_key],
                    agent_path=None,
                    known_hosts=(keys, [], []),
                    server_host_key_algs=_host_key_algorithms(keys),
                    preferred_auth="publickey",
                    password_auth=False,
                    kbdint_auth=False,
                    host_based_auth=False,
                    gss_host=None,
                    compression_algs=None,
                    encryption_algs=CIPHERS,
                    keepalive_interval=KEEPALIVE_INTERVAL,
                    keepalive_count_max=KEEPALIVE_COUNT,
                )
        except (TimeoutError, OSError, asyncssh.Error) as error:
            raise _translated(target, client, error, limit) from error
        return connection, client

    async def drop(self, name: str) -> None:
        """Closes the connection at once. The machine may be gone: nothing is waited for."""
        known = self._attempts.pop(name, None)
        if known is not None:
            known[1].cancel()
        kept = self._sessions.pop(name, None)
        if kept is not None:
            kept[1]._connection.abort()

    async def close(self) -> None:
        """Closes all connections."""
        for name in {*self._sessions, *self._attempts}:
            await self.drop(name)


def _same_place(left: Target, right: Target) -> bool:
    return (left.address, left.port) == (right.address, right.port)


def _host_keys(target: Target) -> list[asyncssh.SSHKey]:
    if not target.host_keys:
        raise Permanent(f"{target.name}: no host key is known", reason="NoHostKey")
    try:
        return [asyncssh.import_public_key(line) for line in target.host_keys]
    except asyncssh.KeyImportError as error:
        raise Permanent(f"{target.name}: a known host key cannot be read: {error}", reason="NoHostKey") from error


def _translated(target: Target, client: _Client, error: Exception, limit: float) -> Exception:
    """The error of a failed connection as one of ours."""
    if client.refused is not None:
        shown = f"{public_key_line(client.refused)} ({client.refused.get_fingerprint()})"
        return HostKeyMismatch(f"{target.name}: {target.address} showed a host key that is not its own: {shown}")
    if isinstance(error, asyncssh.PermissionDenied):
        return Unauthorized(f"{target.name}: {target.address} refused our SSH key")
    words = f"no answer within {limit:g} s" if isinstance(error, TimeoutError) else plain(str(error))
    return Unreachable(f"{target.name}: no SSH connection to {target.address}: {words}")
