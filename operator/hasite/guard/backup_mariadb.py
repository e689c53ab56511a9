"""MariaDB's backups: mariadb-backup's stream, compressed by zstd, kept by rclone in a bucket or a folder.

Each is a folder named by its label, within this database's own: ``data.mbstream.zst``, and ``backup.json`` which comes
last. One without that is none. The binary log is not archived: what is restored is as it was when a backup was made.
"""

import hashlib
import json
import os
import pwd
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hasite.guard.backup_postgresql import chosen
from hasite.guard.backupjob import Job, JobError, Result, begin, call, clean, ended, stop

DATA, SUMMARY = "data.mbstream.zst", "backup.json"
LOCKS = 60
"""Seconds for which it waits for the server's locks: a commit behind it waits no longer than that."""

RESTORED = "hasite-restored.json"
"""In a data folder: it was restored, and its reigns are another database's. The driver takes them out at the start."""

_PART = 1 << 18


class Store:
    """Files in the target, by rclone. Paths are relative to it. Credentials are in its environment alone."""

    def __init__(self, job: Job) -> None:
        target, given = job.target, job.credentials
        self._root = target.path or "/".join(part for part in (target.bucket, target.prefix.strip("/")) if part)
        self._options = ["--config=/dev/null", "--retries=3", "--contimeout=10s", "--timeout=60s", "--use-mmap"]
        self._options += ["--s3-no-check-bucket", "--s3-chunk-size=16M", "--s3-upload-concurrency=1", "--transfers=1"]
        self.environment = {"RCLONE_CONFIG_TARGET_TYPE": "local"} if target.path else _bucket(job)
        if not target.path and given.get("ca.crt"):
            ca = job.work / "endpoint-ca.pem"
            ca.write_text(given["ca.crt"])
            self._options.append(f"--ca-cert={ca}")

    def command(self, verb: str, *paths: str) -> list[str]:
        """Of rclone."""
        return ["/usr/bin/rclone", *self._options, verb, *(f"target:{self._root}/{path}" for path in paths)]

    def names(self, folder: str) -> list[str]:
        """Of the folders within; none when it is not there."""
        try:
            said = call([*self.command("lsf", folder), "--dirs-only"], environment=self.environment, limit=300)
        except JobError as error:
            if "directory not found" in str(error):
                return []
            raise
        return sorted(line.rstrip("/") for line in said.splitlines() if line)

    def summary(self, repository: str, label: str) -> dict[str, Any] | None:
        """What says that a backup is whole; None: nothing does."""
        path = f"{repository}/{label}/{SUMMARY}"
        try:
            said = call(self.command("cat", path), environment=self.environment, limit=300)
        except JobError as error:
            if "not found" in str(error):
                return None
            raise
        found = json.loads(said) if said else None
        return found if isinstance(found, dict) else None

    def put(self, path: str, content: bytes) -> None:
        """A small file."""
        call(self.command("rcat", path), environment=self.environment, given=content, limit=300)

    def size(self, path: str) -> int:
        """Of a file, as the target tells it."""
        said = json.loads(call(self.command("lsjson", path), environment=self.environment, limit=300))
        return int(said[0]["Size"])

    def remove(self, folder: str) -> None:
        """With everything in it: its summary first, so that what is left of it is no backup."""
        call([*self.command("delete", folder), f"--include=/{SUMMARY}"], environment=self.environment, limit=600)
        call(self.command("purge", folder), environment=self.environment, limit=3600)


def _bucket(job: Job) -> dict[str, str]:
    values = {
        "TYPE": "s3",
        "PROVIDER": "Other",
        "ENDPOINT": job.target.endpoint,
        "REGION": job.target.region or "us-east-1",
        "ACCESS_KEY_ID": job.credentials.get("accessKeyId", ""),
        "SECRET_ACCESS_KEY": job.credentials.get("secretAccessKey", ""),
        "FORCE_PATH_STYLE": "true",
    }
    for name, value in values.items():
        if not value or "\0" in value:
            raise JobError(f"{name.lower()} is empty or can't be used")
    return {f"RCLONE_CONFIG_TARGET_{name}": value for name, value in values.items()}


def backup(job: Job) -> Result:
    """All of it, and then those that are too many are removed."""
    store = Store(job)
    label = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    folder = f"{job.repository}/{label}"
    size, digest = _send(job, store, f"{folder}/{DATA}")
    kept = store.size(f"{folder}/{DATA}")
    if kept != size:
        raise JobError(f"the target has {kept} bytes of {size}")
    summary = {"engine": job.engine, "version": job.version, "label": label, "size": size, "sha256": digest}
    store.put(f"{folder}/{SUMMARY}", json.dumps(summary, indent=1, sort_keys=True).encode() + b"\n")
    try:
        _expire(job, store, label)
    except JobError as error:
        return Result(label, size, note=clean(f"old backups can't be removed: {error}", job.credentials)[:500])
    return Result(label, size)


def _send(job: Job, store: Store, path: str) -> tuple[int, str]:
    """Bytes and digest of what was kept."""
    scratch = job.work / "copying"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700)
    take = ["/usr/bin/mariadb-backup", "--no-defaults", "--backup", "--stream=mbstream", "--user=root"]
    take += [f"--socket={job.where.sockets}/mysqld.sock", f"--datadir={job.where.data}", f"--target-dir={scratch}"]
    take += [f"--startup-wait-timeout={LOCKS}"]
    commands = [take, ["/usr/bin/zstd", "-q", "-3", "-T1"], store.command("rcat", path)]
    journals = [job.work / f"backup.{number}.said" for number in range(3)]
    taking = begin(commands[0], journals[0], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    packing = begin(commands[1], journals[1], stdin=taking.stdout, stdout=subprocess.PIPE)
    sending = begin(commands[2], journals[2], stdin=subprocess.PIPE, environment=store.environment)
    assert taking.stdout and packing.stdout and sending.stdin  # noqa: S101
    taking.stdout.close()
    digest, size = hashlib.sha256(), 0
    try:
        while part := packing.stdout.read(_PART):
            digest.update(part)
            size += len(part)
            sending.stdin.write(part)
        failures = [ended(each, commands[n], journals[n]) for n, each in enumerate((taking, packing))]
        if not any(failures):
            sending.stdin.close()
            failures.append(ended(sending, commands[2], journals[2]))
    except BrokenPipeError:
        failures = [ended(sending, commands[2], journals[2]) or "rclone ended early"]
    finally:
        stop(taking, packing, sending)  # a file that is cut short has no summary
        shutil.rmtree(scratch, ignore_errors=True)
    if any(failures):
        raise JobError(next(filter(None, failures)))
    return size, digest.hexdigest()


def _expire(job: Job, store: Store, newest: str) -> None:
    """Those that are too many, and what broken ones left behind. Nothing but folders named as labels, in its own."""
    labels = [name for name in store.names(job.repository) if _is_label(name) and name <= newest]
    whole = [label for label in labels if store.summary(job.repository, label) is not None]
    keep = set(whole[-job.retention :]) | {newest}
    for label in labels:
        if label not in keep:
            store.remove(f"{job.repository}/{label}")


def _is_label(name: str) -> bool:
    try:
        datetime.strptime(name, "%Y%m%dT%H%M%SZ")
    except ValueError:
        return False
    return len(name) == len("20260101T000000Z")


def restore(job: Job) -> Result:
    """Into the empty folder ``where.data``, prepared; the driver starts it."""
    store = Store(job)
    repository = chosen(job.repository, store.names(""))
    label, summary = _found(job, store, repository)
    if summary.get("engine") != job.engine or summary.get("version") != job.version:
        has = f"{summary.get('engine')} {summary.get('version')}"
        raise JobError(f"{repository}/{label} is of {has}, not of {job.engine} {job.version}")
    _receive(job, store, f"{repository}/{label}/{DATA}", str(summary["sha256"]))
    call(["/usr/bin/mariadb-backup", "--no-defaults", "--prepare", f"--target-dir={job.where.data}"])
    told = {"repository": repository, "label": label}
    (Path(job.where.data) / RESTORED).write_text(json.dumps(told) + "\n")
    _own(Path(job.where.data), job.where.user)
    return Result(label, int(summary["size"]))


def _found(job: Job, store: Store, repository: str) -> tuple[str, dict[str, Any]]:
    labels = [name for name in store.names(repository) if _is_label(name)]
    for label in reversed(labels) if job.label == "latest" else [job.label]:
        summary = store.summary(repository, label) if label in labels else None
        if summary is not None:
            return label, summary
    raise JobError(f"{repository} has no backup {job.label!r}; it has {', '.join(labels[-5:]) or 'none'}")


def _receive(job: Job, store: Store, path: str, wanted: str) -> None:
    commands = [store.command("cat", path), ["/usr/bin/zstd", "-q", "-d"]]
    commands.append(["/usr/bin/mbstream", "-x", "-C", job.where.data])
    journals = [job.work / f"restore.{number}.said" for number in range(3)]
    getting = begin(commands[0], journals[0], stdout=subprocess.PIPE, environment=store.environment)
    opening = begin(commands[1], journals[1], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    unpacking = begin(commands[2], journals[2], stdin=opening.stdout)
    assert getting.stdout and opening.stdin and opening.stdout  # noqa: S101
    opening.stdout.close()
    digest, broken = hashlib.sha256(), False
    try:
        while part := getting.stdout.read(_PART):
            digest.update(part)
            opening.stdin.write(part)
        opening.stdin.close()
    except BrokenPipeError:
        broken = True
        stop(getting, opening, unpacking)
    failures = [ended(each, commands[n], journals[n]) for n, each in enumerate((getting, opening, unpacking))]
    if broken or digest.hexdigest() != wanted:
        told = clean("; ".join(filter(None, failures)), job.credentials)
        raise JobError(
            f"{path} is damaged: its checksum is not the one that was noted" + (f" ({told})" if told else "")
        )
    if any(failures):
        raise JobError(next(filter(None, failures)))


def _own(path: Path, user: str) -> None:
    account = pwd.getpwnam(user)
    for folder, _, names in os.walk(path):
        for each in (folder, *(os.path.join(folder, name) for name in names)):
            os.chown(each, account.pw_uid, account.pw_gid, follow_symlinks=False)
