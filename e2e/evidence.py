"""What explains the failure of a scenario: resources, logs, and what the guards said."""

import contextlib
import subprocess
import time
from collections.abc import Sequence

from e2e.site import NAMESPACE, Stage
from e2e.world.cloud.state import Droplet

LINES = 40
"""Of each text, the last ones."""
_CONDITIONS = (
    "{range .items[*]}{.kind}/{.metadata.name}{range .status.conditions[*]}\n  {.type}={.status} "
    "{.reason}: {.message}{end}{range .status.plan[*]}\n  plan: {@}{end}\n{end}"
)
_JOURNAL = ("journalctl", "--unit=hasite-guard", "--unit=hasite-fuse", "--output=short-precise", "--no-pager")

_SERVER = (
    "sh",
    "-c",
    'mariadb -e \'SHOW FULL PROCESSLIST; SHOW GLOBAL STATUS LIKE "Rpl_semi%"; SHOW GLOBAL VARIABLES LIKE "rpl_semi%"; '
    "SHOW SLAVE STATUS; SELECT * FROM information_schema.INNODB_TRX' || "
    'su postgres -c \'psql -xc "SELECT * FROM pg_stat_activity" -c "SELECT * FROM pg_stat_replication"\'',
)
"""What a database server is doing."""

_last_words: dict[str, str] = {}


async def keep_words(stage: Stage, droplets: Sequence[Droplet]) -> None:
    """What guards said, before their machines are deleted."""
    for droplet in droplets:
        with contextlib.suppress(RuntimeError, KeyError):
            _last_words[droplet.name] = (await stage.world.machines.exec(droplet.id, _JOURNAL))[1]


def evidence(stage: Stage) -> list[tuple[str, str]]:
    """By title. It blocks, and it never raises."""
    found: list[tuple[str, str]] = []
    kinds = "hasites,loadbalancerpools,rdb"
    for title, arguments in (
        ("resources", ["get", kinds, "-o", "wide"]),
        ("conditions", ["get", kinds, "-o", f"jsonpath={_CONDITIONS}"]),
        ("events", ["get", "events", "--sort-by=.lastTimestamp"]),
    ):
        with contextlib.suppress(AttributeError):  # there is no cluster yet
            found.append((title, _output([*stage.world.cluster.kubectl, "-n", NAMESPACE, *arguments])))
    droplets = list(stage.world.cloud.state.droplets.values())
    lines = [
        f"{d.id} {d.name} {d.region} {d.public_ipv4} {d.status(time.time())} {'deleting' if d.deleting else ''}"
        for d in droplets
    ]
    answers = [f"{n.domain} {n.answers}" for n in stage.watcher.names.values()]
    found += [("droplets", "\n".join(lines)), ("name servers", "\n".join(answers))]
    for name, operator in stage.world.operators.items():
        with contextlib.suppress(OSError):
            found.append((f"log of {name}", _last(operator.log.read_text())))
    return found + _guards(stage, [d for d in droplets if any(tag.startswith("hasite:db:") for tag in d.tags)])


def _guards(stage: Stage, members: Sequence[Droplet]) -> list[tuple[str, str]]:
    said = [(f"guard of {name}", _last(words)) for name, words in list(_last_words.items())[-4:]]
    for member in members:
        with contextlib.suppress(RuntimeError, KeyError):
            said.append((f"guard of {member.name}", _output(stage.world.machines.command(member.id, _JOURNAL))))
            said.append((f"server of {member.name}", _output(stage.world.machines.command(member.id, _SERVER), 150)))
    return said


def _output(command: Sequence[str], lines: int = LINES) -> str:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        run = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
        return _last(run.stdout + run.stderr, lines)
    return "could not be had"


def _last(text: str, lines: int = LINES) -> str:
    return "\n".join(text.splitlines()[-lines:])
