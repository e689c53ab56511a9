"""Every process of a systemd unit, whoever started it and whatever it calls itself; and their end.

systemd keeps a unit's processes in a control group, in the unified hierarchy or in its own named one (``name=systemd``,
cgroup v1, also in the hybrid layout). Imports next to nothing, for the fuse's sake.
"""

import errno
import os
import signal
import time

_ROOT = "/sys/fs/cgroup"
_GONE = (errno.ENOENT, errno.ENODEV)


def folders(unit: str, root: str = _ROOT, own: str = "/proc/1/cgroup") -> tuple[str, ...]:
    """Where the unit's group is when it runs: one folder for each hierarchy that systemd may use, there or not yet."""
    found = []
    with open(own, encoding="ascii", errors="replace") as lines:
        for line in lines:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if controllers not in ("", "name=systemd"):
                continue
            base = path.removesuffix("/").removesuffix("/init.scope")
            mounts = (f"{root}/systemd",) if controllers else (root, f"{root}/unified")
            found += [f"{mount}{base}/system.slice/{unit}" for mount in mounts]
    return tuple(found)


def pids(groups: tuple[str, ...]) -> tuple[int, ...]:
    """In the groups and those below them. A group that is not there has none. Raises OSError when they can't be seen,
    for want of descriptors, for example: then there may be any."""
    found: list[int] = []
    waiting = list(groups)
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                waiting += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            if error.errno in _GONE:
                continue
            raise
        found += _members(f"{folder}/cgroup.procs")
    return tuple(dict.fromkeys(found))


def runs(groups: tuple[str, ...]) -> bool:
    """Whether there may be any."""
    try:
        return bool(pids(groups))
    except OSError:
        return True


def kill(groups: tuple[str, ...], patience: float = 1.0) -> bool:
    """SIGKILL until nothing is left: whether that came within ``patience`` seconds.

    Asked again and again, for a process may fork while the others are being killed. What hangs in the kernel dies
    before it does anything more.
    """
    end = time.monotonic() + patience
    while runs(groups):
        for group in groups:
            _write(f"{group}/cgroup.kill")
        for pid in _seen(groups):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


def _seen(groups: tuple[str, ...]) -> tuple[int, ...]:
    try:
        return pids(groups)
    except OSError:
        return ()


def _members(path: str) -> list[int]:
    try:
        with open(path, encoding="ascii") as lines:
            return [pid for line in lines if (pid := int(line)) > 1]
    except OSError as error:
        if error.errno in _GONE:
            return []
        raise


def _write(path: str) -> None:
    """cgroup.kill is there since Linux 5.14, in the unified hierarchy."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.write(descriptor, b"1")
    except OSError:
        pass
    finally:
        os.close(descriptor)
