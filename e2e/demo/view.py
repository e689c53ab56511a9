"""Draws the live view: pure, from what is known to what rich prints."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from hasite.api import HASite, LoadBalancerPool
from hasite.api.common import Condition
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from e2e.demo.tally import Tally

BARS = " ▁▂▃▄▅▆▇█"
COLOURS = ("cyan", "magenta", "yellow", "blue", "green", "red")
SHORT_HISTORY = 20


@dataclass
class Scene:
    """All that the view shows. ``story``: decisions and changes of state, as (time, text, style)."""

    tally: Tally = field(default_factory=Tally)
    site: HASite | None = None
    pool: LoadBalancerPool | None = None
    trouble: str = ""
    story: list[tuple[str, str, str]] = field(default_factory=list)
    rate: float = 20.0


def draw(scene: Scene, now: float, height: int = 40) -> RenderableType:
    """The whole screen, `height` lines of it at most."""
    top = Group(_head(scene), _locations(scene, now), _apps(scene, now), _names(scene))
    fixed = 17 + len(_addresses(scene)) + len(_app_names(scene)) + len(scene.tally.names)
    return Group(top, _conditions(scene), _story(scene.story, max(4, height - fixed)))


def spark(values: Sequence[int], top: float) -> str:
    """A bar a value; anything above zero can be seen."""
    return "".join(BARS[min(8, max(1, round(8 * v / top)))] if v else BARS[0] for v in values)


def _head(scene: Scene) -> RenderableType:
    tally = scene.tally
    lost = "bold red" if tally.failures else "bold green"
    line = Text.assemble(
        (f" {tally.requests} requests", "bold"),
        "  failed ",
        (str(tally.failures), lost),
        (f" ({tally.last_failure})" if tally.failures else "", "red"),
        f"  on the second address {tally.second_tries}  slowest {tally.slowest_ms / 1000:.2f} s",
    )
    return Panel(line, title=f"http://{scene.site.spec.domain}/" if scene.site else "no site", style="bold")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=True, expand=True, header_style="dim")
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def _colours(scene: Scene) -> dict[str, str]:
    locations = [location.name for location in scene.site.spec.locations] if scene.site else []
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(locations)}


def _addresses(scene: Scene) -> list[tuple[str, str, str, str]]:
    """Location, address, state and its reason."""
    found = scene.pool.status.addresses if scene.pool else ()
    return sorted((a.location, a.address, a.state, a.reason) for a in found)


def _locations(scene: Scene, now: float) -> RenderableType:
    table = _table("location", "load balancer", "in DNS", "req/s", f"last {SHORT_HISTORY} s", "why")
    colours = _colours(scene)
    for location, address, state, reason in _addresses(scene):
        history = scene.tally.history(f"entry {address}", now)[-SHORT_HISTORY:]
        colour = colours.get(location, "white")
        table.add_row(
            Text(location, colour),
            address,
            Text(state, "green" if state == "Published" else "bold red" if state == "Withdrawn" else "yellow"),
            str(history[-1]),
            Text(spark(history, scene.rate / 2), colour),
            Text(reason[:70], "dim"),
        )
    failed = scene.tally.history("failed", now)[-SHORT_HISTORY:]
    if any(failed):
        table.add_row(Text("failed", "red"), "", "", str(failed[-1]), Text(spark(failed, scene.rate), "red"), "")
    return table


def _app_names(scene: Scene) -> list[tuple[str, str]]:
    """Location and name of every app server."""
    return sorted((d.location, d.name) for d in scene.site.status.droplets) if scene.site else []


def _apps(scene: Scene, now: float) -> RenderableType:
    table = _table("location", "app server", "state", "req/s", f"last {SHORT_HISTORY} s")
    said = {s.name: s for s in scene.pool.status.servers} if scene.pool else {}
    colours = _colours(scene)
    for location, name in _app_names(scene):
        server = said.get(name)
        history = scene.tally.history(f"server {name}", now)[-SHORT_HISTORY:]
        healthy = server is not None and server.healthy
        word = "unknown" if server is None else f"{server.state}, {'healthy' if healthy else 'down'}"
        colour = colours.get(location, "white")
        table.add_row(
            Text(location, colour),
            name,
            Text(word, "green" if healthy else "yellow"),
            str(history[-1]),
            Text(spark(history, scene.rate / 2), colour),
        )
    return table


def _names(scene: Scene) -> RenderableType:
    table = _table("name server", "answers")
    colours = _colours(scene)
    at = {address: location for location, address, *_ in _addresses(scene)}
    for server, addresses in scene.tally.names.items():
        answer = Text("no answer", "red") if addresses is None else Text()
        for address in addresses or ():
            answer.append(f"{address}  ", colours.get(at.get(address, ""), "white"))
        table.add_row(server, answer)
    return table


def _conditions(scene: Scene) -> RenderableType:
    if scene.trouble:
        return Panel(Text(scene.trouble, "bold red"), title="the API server can't be asked")
    table = _table("condition", "", "reason", "message")
    for condition in scene.site.status.conditions if scene.site else ():
        style = "green" if is_good(condition) else "bold red"
        table.add_row(condition.type, Text(condition.status, style), condition.reason, Text(condition.message[:90]))
    return table


def is_good(condition: Condition) -> bool:
    """Whether a condition is as one wishes it: some are good when they are False."""
    bad_when_true = ("Reconciling", "Stalled", "DegradedLocation", "Blind")
    return (condition.status == "True") is (condition.type not in bad_when_true)


def _story(story: Sequence[tuple[str, str, str]], lines: int) -> RenderableType:
    text = Text("\n", no_wrap=True, overflow="ellipsis").join(
        Text.assemble((f"{time}  ", "dim"), (what, style)) for time, what, style in story[-lines:]
    )
    return Panel(text, title="what the operator decided", title_align="left")


def clock(iso: str) -> str:
    """The local time of day of an ISO 8601 time, with tenths of a second."""
    return datetime.fromisoformat(iso).astimezone().strftime("%H:%M:%S.%f")[:-5]
