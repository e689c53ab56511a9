"""What a machine says of its own birth: cloud-init's state, in one round trip.

cloud-init's own files are read, not ``cloud-init status``: that starts a Python interpreter, and its words and exit
statuses differ between the versions (22.4 in Debian 12, 25.1 in Debian 13). The files have kept their form.
"""

import json
import re
from typing import Any, Literal

from hasite.errors import Transient
from hasite.machines.base import Session
from hasite.machines.words import plain
from hasite.plan.world import MachineView

TOLERATED_MODULES = ("locale",)
"""Modules whose failure harms no machine of ours: Debian 12's images bring no locales to generate."""

_MARK = "==hasite=="

_SCRIPT = f"""exec 2>/dev/null; export LC_ALL=C
cat /run/cloud-init/status.json; echo; echo {_MARK}
cat /run/cloud-init/result.json; echo; echo {_MARK}
if [ -e /run/cloud-init/disabled ] || [ -e /etc/cloud/cloud-init.disabled ] || ! command -v cloud-init >&2; then
  echo never; fi; echo {_MARK}
[ -s /run/cloud-init/result.json ] && grep -aE '^(E|W): |^Err:|rror:' /var/log/cloud-init-output.log | tail -n 20
exit 0
"""

_FAILED_MODULE = re.compile(r"\('([a-z0-9_-]+)', ")


async def observe_machine(session: Session, now: float) -> MachineView:
    """The machine at ``now`` (Unix seconds). A recoverable error of cloud-init's is none."""
    done = await session.run(_SCRIPT)
    sections = done.stdout.split(f"{_MARK}\n")
    if len(sections) != 4:
        raise Transient(f"cloud-init's state could not be read: {plain(done.stderr or done.stdout[-200:])}")
    state, error = judge(_parsed(sections[0]), _parsed(sections[1]), "never" in sections[2], sections[3])
    return MachineView(session.host_key, state, now, error)


def judge(
    status: dict[str, Any], result: dict[str, Any], never: bool, log: str
) -> tuple[Literal["running", "done", "error"], str]:
    """The state and the words of what failed.

    ``status`` and ``result``: cloud-init's two files, {} when not there; ``never``: it does not run on this machine;
    ``log``: the lines of its output that speak of errors.
    """
    if not result:
        return ("done", "") if never else ("running", "")
    said = [error for stage in _mapping(status.get("v1")).values() for error in _errors(stage)]
    said += [error for error in _errors(result.get("v1")) if error not in said]
    errors = [error for error in said if not _tolerated(error)]
    if not errors:
        return "done", ""
    return "error", plain("; ".join([*_telling(log), *errors]))


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _errors(stage: object) -> list[str]:
    errors = _mapping(stage).get("errors")
    return [str(error) for error in errors] if isinstance(errors, list) else []


def _tolerated(error: str) -> bool:
    module = _FAILED_MODULE.match(error)
    return module is not None and module.group(1).replace("_", "-") in TOLERATED_MODULES


def _telling(log: str) -> list[str]:
    """The words of apt, which say more than the module that called it. The same line is said only once."""
    lines = dict.fromkeys(line.strip() for line in log.splitlines() if line.startswith(("E: ", "Err:")))
    return [line.removeprefix("E: ") for line in lines][:5]


def _parsed(text: str) -> dict[str, Any]:
    """{} for a file that is not there, is being written, or is no mapping."""
    try:
        return _mapping(json.loads(text))
    except (ValueError, RecursionError):
        return {}
