"""Lays an overview out as a tree of lines, for a terminal."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from hasite.api.common import Condition
from hasite.api.databasestatus import TurnoverRecord
from hasite.cli.overview import Machine, Overview, Part, Place, good

Style = Callable[[str, str], str]
"""Text and the name of a style → the text, coloured or not."""

_CODES = {"good": "32", "bad": "31;1", "busy": "33", "dim": "2", "strong": "1"}


def plain(text: str, style: str) -> str:
    """For pipes and files."""
    return text


def coloured(text: str, style: str) -> str:
    """For terminals: the eight colours that every one of them has."""
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m"


@dataclass(frozen=True)
class Node:
    """One line and what hangs below it."""

    text: str
    children: tuple["Node", ...] = ()


def lines(node: Node) -> Iterator[str]:
    """The tree, drawn."""
    yield node.text
    for number, child in enumerate(node.children, 1):
        last = number == len(node.children)
        for position, line in enumerate(lines(child)):
            lead = ("└─ " if last else "├─ ") if position == 0 else ("   " if last else "│  ")
            yield lead + line


def status_tree(seen: Overview, now: float, style: Style) -> Node:
    """The site, its conditions, its locations with their machines, and what is waited for."""
    first = seen.parts[0]
    below = [Node("conditions", tuple(_condition(c, now, style) for c in first.conditions))]
    below += [_lower_part(part, first, now, style) for part in seen.parts[1:]]
    below.append(Node(seen.reign, _turnover(seen.turnover, now)) if seen.reign else _dns(seen, style))
    below += [_place(place, now, style) for place in seen.places]
    if seen.given_servers:
        servers = (Node(f"{s.name}  {s.state.lower()}, {_health(s.healthy, style)}") for s in seen.given_servers)
        below.append(Node("app servers, by the pool's spec", tuple(servers)))
    below += _outlook(seen.parts, style)
    return Node(f"{_title(first, style)}  {seen.domain}", tuple(below))


def plan_tree(seen: Overview, style: Style) -> Node:
    """The steps of the latest plans with their reasons, what is refused, and what is waited for."""
    parts = tuple(_plan_of(part, style) for part in seen.parts)
    return Node(seen.domain, parts)


def ago(seconds: float) -> str:
    """``kubectl``'s way to write an age."""
    whole = max(0, int(seconds))
    for size, unit, limit in ((1, "s", 120), (60, "m", 3 * 3600), (3600, "h", 48 * 3600)):
        if whole < limit:
            return f"{whole // size}{unit}"
    return f"{whole // 86400}d"


def _title(part: Part, style: Style) -> str:
    ready = part.ready
    if part.deleting:
        word = style("being deleted", "busy")
    elif part.stale or ready is None:
        word = style("not looked at yet", "busy")
    elif ready.status == "True":
        word = style("Ready", "good")
    else:
        word = style(f"not Ready: {ready.reason}", "bad")
    return f"{style(f'{part.kind} {part.namespace}/{part.name}', 'strong')}  {word}"


def _lower_part(part: Part, above: Part, now: float, style: Style) -> Node:
    """Only the conditions that are not as one wishes them, and that the site above does not repeat already."""
    repeated = {(c.type, c.status, c.message) for c in above.conditions}
    news = (c for c in part.conditions if not good(c) and (c.type, c.status, c.message) not in repeated)
    return Node(_title(part, style), tuple(_condition(c, now, style) for c in news))


def _condition(condition: Condition, now: float, style: Style) -> Node:
    since = condition.last_transition_time
    age = f", {ago(now - datetime.fromisoformat(since).timestamp())}" if since else ""
    mark = "good" if good(condition) else "busy" if condition.type == "Reconciling" else "bad"
    told = f": {condition.message}" if condition.message else ""
    return Node(f"{condition.type} {style(condition.status, mark)} ({condition.reason}{age}){told}")


def _dns(seen: Overview, style: Style) -> Node:
    leads = ", ".join(seen.published) or style("nothing", "bad")
    return Node(f"DNS leads to {leads}" + (f"; zone {seen.zone}" if seen.zone else ""))


def _turnover(last: TurnoverRecord | None, now: float) -> tuple[Node, ...]:
    if last is None:
        return ()
    age = ago(now - datetime.fromisoformat(last.at).timestamp())
    former = f" from {last.former}" if last.former else ""
    took = f", {last.took} without a primary" if last.took else ""
    return (Node(f"last {last.kind} {age} ago:{former} to {last.primary}, epoch {last.epoch}{took}"),)


def _place(place: Place, now: float, style: Style) -> Node:
    machines = [_machine("load balancer", m, now, style) for m in place.load_balancers]
    machines += [_machine("app server", m, now, style) for m in place.app_servers]
    machines += [_machine("member", m, now, style) for m in place.members]
    leaving = style(", leaving", "busy") if place.leaving else ""
    return Node(f"{style(place.name, 'strong')} ({place.region}{leaving})", tuple(machines))


def _machine(role: str, machine: Machine, now: float, style: Style) -> Node:
    droplet = f"droplet {machine.droplet_id}" if machine.droplet_id is not None else "no droplet yet"
    addresses = tuple(
        Node(f"{a.address}  {style(a.state, _ADDRESS_STYLES[a.state])} {ago(now - a.since)}: {a.reason}")
        for a in machine.addresses
    )
    health = f", {_health(machine.healthy, style)}" if role != "load balancer" else ""
    details = style(f"({droplet}, template {machine.template[:8]})", "dim")
    return Node(f"{role} {machine.name}  {machine.state}{health}  {details}", addresses)


_ADDRESS_STYLES = {"Published": "good", "Withdrawn": "bad", "Pending": "busy"}


def _health(healthy: bool | None, style: Style) -> str:
    if healthy is None:
        return style("health unknown", "busy")
    return style("healthy", "good") if healthy else style("not healthy", "bad")


def _outlook(parts: Sequence[Part], style: Style) -> list[Node]:
    nodes: list[Node] = []
    for part in parts:
        if part.refusal is not None:
            nodes.append(Node(f"{style('stalled', 'bad')}: {part.refusal.reason}: {part.refusal.message}"))
        elif part.waiting_for:
            nodes.append(Node(f"{style('waiting', 'busy')}: {part.waiting_for}"))
        if part.left_behind:
            nodes.append(Node(f"{style('left behind', 'bad')}: {part.left_behind}"))
    unique = {node.text: node for node in nodes}
    return list(unique.values()) or [Node("nothing is waited for")]


def _plan_of(part: Part, style: Style) -> Node:
    observing = part.policy == "Observe"
    steps = tuple(Node(f"{number}. {step}") for number, step in enumerate(part.steps, 1))
    if steps:
        verb = "would be done (managementPolicy: Observe)" if observing else "of the latest plan"
        below = [Node(f"{len(steps)} step{'s' if len(steps) > 1 else ''} {verb}", steps)]
    else:
        below = [Node("nothing to do")]
    below += [node for node in _outlook([part], style) if node.text != "nothing is waited for"]
    return Node(_title(part, style), tuple(below))
