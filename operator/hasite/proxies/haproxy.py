"""HAProxy on a Debian machine: delivered over SSH, watched through its stats socket.

A configuration is *in force* when the running worker shows its mark and was started after the file last changed: so a
file that was edited and put back, or a reload that never came, is found without any memory of ours.
"""

import asyncio
import posixpath
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace

from hasite.errors import Transient, Unreachable
from hasite.machines.base import Result, Session
from hasite.machines.words import plain
from hasite.plan.proxies import ProxyModel
from hasite.plan.world import ProxyView
from hasite.proxies.base import Delivered, Rejected
from hasite.proxies.haproxy_render import DEBIAN, Layout, mark_of, render
from hasite.proxies.haproxy_states import carried_states
from hasite.proxies.haproxy_stats import SHOW_STATISTICS, Statistics, parse_info, parse_statistics, readable

VERIFY_SECONDS = 5.0
CLOCK_TICK = 0.01
"""Linux counts the start of a process in hundredths of a second."""

_STAGES = ("term", "write", "check", "reload")


class HaproxyProxy:
    """The engine ``haproxy``."""

    packages: tuple[str, ...] = ("haproxy",)

    def __init__(self, layout: Layout = DEBIAN) -> None:
        self.layout = layout

    def render(self, model: ProxyModel) -> bytes:
        """Deterministic. Raises ``Permanent`` (reason ``UnsafeValue``)."""
        return render(model, self.layout)

    async def observe(self, session: Session) -> ProxyView:
        """Two round trips. ``config_sha256`` is the file's hash when that file is in force, else None.

        Raises ``Transient`` for words of the machine's that can't be read.
        """
        done = await session.run(observe_script(self.layout))
        facts = _facts(done)
        info, statistics = await self._ask(session)
        with readable("the state of HAProxy"):
            processes = _processes(facts)
            current = processes.get(int(info.get("Pid", "0")))
            in_force = current is not None and _in_force(facts, info, current)
        old = [p for p in processes.values() if current and p.parent == current.parent and p.pid != current.pid]
        return ProxyView(
            installed=facts.get("installed") == "yes",
            config_sha256=facts.get("sha256") if in_force else None,
            active=facts.get("active") == "active" and bool(info),
            enabled=facts.get("enabled") == "enabled",
            servers=statistics.servers,
            peers=statistics.peers,
            old_processes=len(old),
            sessions=statistics.sessions,
        )

    async def health(self, session: Session, last: ProxyView) -> ProxyView:
        """One round trip. A socket where nobody listens is a proxy that is not active: no servers, no peers."""
        try:
            answer = await session.unix_request(self.layout.socket, f"{SHOW_STATISTICS}\n".encode())
        except Unreachable:
            raise
        except Transient:
            return replace(last, active=False, servers={}, peers={}, sessions=0)
        seen = parse_statistics(answer.decode(errors="replace"))
        return replace(last, active=True, servers=seen.servers, peers=seen.peers, sessions=seen.sessions)

    async def deliver(self, session: Session, config: bytes, term: tuple[str, int] = ("", 0)) -> Delivered | Rejected:
        """Three round trips and the reload's own time. Safe to repeat after a crash at any point."""
        before = await self._request(session, "show info;show servers state")
        states = carried_states(before or await self._last_states(session), config)
        done = await session.run(deliver_script(self.layout, len(config), term), stdin=config + states, timeout=30.0)
        if done.status != 0:
            return _rejected(done)
        return await self._verify(session, mark_of(config), parse_info(before).get("Pid"))

    async def _last_states(self, session: Session) -> str:
        """What was known at the last delivery: a proxy that was stopped has to serve from its first moment."""
        return (await session.run(f"cat -- {shlex.quote(self.layout.states)} 2>/dev/null || true")).stdout

    async def _verify(self, session: Session, mark: str | None, old_pid: str | None) -> Delivered | Rejected:
        """A reload is done when another worker than before shows the mark of the new configuration."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + VERIFY_SECONDS
        while loop.time() < deadline:
            info = parse_info(await self._request(session, "show info"))
            if info and info.get("description") == mark and info.get("Pid") != old_pid:
                return Delivered()
            await asyncio.sleep(0.1)
        log = await session.run("journalctl -u haproxy -n 20 -o cat --no-pager 2>&1")
        words = _checker_words(log.stdout) or f"HAProxy runs no new configuration {VERIFY_SECONDS:g} s after its reload"
        return Rejected("verify", words)

    async def _ask(self, session: Session) -> tuple[Mapping[str, str], Statistics]:
        answer = await self._request(session, f"show info;{SHOW_STATISTICS}")
        return parse_info(answer.partition("# pxname")[0]), parse_statistics(answer)

    async def _request(self, session: Session, commands: str) -> str:
        """The answer, or "" when nobody listens."""
        try:
            return (await session.unix_request(self.layout.socket, f"{commands}\n".encode())).decode(errors="replace")
        except Unreachable:
            raise
        except Transient:
            return ""


def observe_script(layout: Layout) -> str:
    """Prints ``key=value`` lines; only the configuration itself decides, so no message of a failed tool is needed."""
    config = shlex.quote(layout.config)
    return f"""exec 2>/dev/null; export LC_ALL=C
[ -x /usr/sbin/haproxy ] && echo installed=yes
echo "sha256=$(sha256sum <{config} | cut -c1-64)"
echo "mark=$(sed -n 's/^ *description \\(hasite-[0-9a-f]*\\)$/\\1/p' {config})"
echo "changed=$(stat -c %.9Z {config})"
echo "active=$(systemctl is-active haproxy)"
echo "enabled=$(systemctl is-enabled haproxy)"
echo "now=$(date +%s.%N)"
read -r up rest </proc/uptime; echo "uptime=$up"
for process in /proc/[0-9]*; do
  read -r name <"$process/comm" || continue
  if [ "$name" = haproxy ]; then read -r stat <"$process/stat" && echo "process=$stat"; fi
done
exit 0
"""


def deliver_script(layout: Layout, size: int, term: tuple[str, int]) -> str:
    """Takes ``size`` bytes of configuration, then the state file, on stdin; prints each stage as it begins.

    A lock keeps two operators apart, and the term an earlier leader that wakes up late from a later one; terms of
    different Leases are not compared. When the unit will not start or reload, the file of before comes back.
    """
    config, states = shlex.quote(layout.config), shlex.quote(layout.states)
    folder, lease, number = shlex.quote(posixpath.dirname(layout.states)), shlex.quote(term[0] or "none"), int(term[1])
    return f"""set -e; export LC_ALL=C; umask 077; config={config}; states={states}
echo write
mkdir -p -- {folder}
exec 9>"$config.hasite-lock"
flock -w 10 9 || {{ echo "another delivery is under way" >&2; exit 1; }}
term="$config.hasite-term"; known=; latest=0
if [ -e "$term" ]; then read -r known latest <"$term" || true; fi
if [ "$known" = {lease} ] && [ "$latest" -gt {number} ]; then
  echo term; echo "a later leader (its term $latest, ours {number}) has delivered since" >&2; exit 1; fi
if [ "$known $latest" != {lease}" {number}" ]; then
  echo {lease}" {number}" >"$term.hasite-new"; sync -- "$term.hasite-new"; mv -fT -- "$term.hasite-new" "$term"; fi
new="$config.hasite-new"; old="$config.hasite-old"
trap 'rm -f -- "$new" "$states.hasite-new" "$old"' EXIT
head -c {size} >"$new"
[ "$(wc -c <"$new")" -eq {size} ] || {{ echo "the transfer broke off" >&2; exit 1; }}
cat >"$states.hasite-new"
chmod 644 "$new"; sync -- "$new" "$states.hasite-new"
echo check
haproxy -c -f "$new" >&2
echo reload
rm -f -- "$old"; ln -- "$config" "$old" 2>/dev/null || true
mv -fT -- "$states.hasite-new" "$states"
mv -fT -- "$new" "$config"
sync -- "$(dirname "$config")"
bring() {{
  systemctl is-enabled -q haproxy 2>/dev/null || systemctl enable haproxy || return 1
  if systemctl is-active -q haproxy; then systemctl reload haproxy; else
    systemctl reset-failed haproxy 2>/dev/null || true; systemctl start haproxy; fi
}}
bring || {{ [ ! -e "$old" ] || mv -fT -- "$old" "$config"; journalctl -u haproxy -n 20 -o cat --no-pager >&2; exit 1; }}
"""


@dataclass(frozen=True)
class _Process:
    pid: int
    parent: int
    started: float


def _facts(done: Result) -> dict[str, str]:
    facts: dict[str, str] = {}
    for line in done.stdout.splitlines():
        key, _, value = line.partition("=")
        facts[key] = f"{facts[key]}\n{value}" if key in facts else value
    if "uptime" not in facts:
        raise Transient(f"the state of HAProxy could not be read: {plain(done.stderr or done.stdout[-200:])}")
    return facts


def _processes(facts: Mapping[str, str]) -> dict[int, _Process]:
    """The HAProxy processes with their start in Unix seconds (proc_pid_stat(5): fields 4 and 22 of each line)."""
    booted = float(facts["now"]) - float(facts["uptime"])
    found: dict[int, _Process] = {}
    for line in facts.get("process", "").splitlines():
        pid, fields = int(line.split()[0]), line.rpartition(")")[2].split()
        if fields[0] != "Z":
            found[pid] = _Process(pid, int(fields[1]), booted + int(fields[19]) * CLOCK_TICK)
    return found


def _in_force(facts: Mapping[str, str], info: Mapping[str, str], worker: _Process) -> bool:
    marked = bool(facts["mark"]) and facts["mark"] == info.get("description")
    return marked and worker.started + 2 * CLOCK_TICK >= float(facts["changed"] or "inf")


def _rejected(done: Result) -> Rejected:
    printed = [line for line in done.stdout.split() if line in _STAGES]
    stage = printed[-1] if printed else "write"
    words = _checker_words(done.stderr) or f"exit status {done.status}"
    match stage:
        case "term":
            return Rejected("term", words)
        case "check":
            return Rejected("check", words)
        case "reload":
            return Rejected("reload", words)
        case _:
            return Rejected("write", words)


def _checker_words(text: str) -> str:
    """HAProxy's alerts when it gave any, else everything that was said; no more than a condition can hold."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    alerts = [line.partition(" : ")[2] for line in lines if line.startswith("[ALERT]")]
    return plain("; ".join(alerts or lines))
