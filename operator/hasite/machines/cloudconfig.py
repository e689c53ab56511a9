"""Whether a #cloud-config can be used, judged by the events of its YAML alone. Pure.

Nothing is composed or constructed: aliases and merge keys (``<<``) of a few bytes can stand for gigabytes, and
libyaml's composer follows nesting with the C stack. So the time is linear in the text, and bounded by ``MAX_VALUES``.
"""

from dataclasses import dataclass, field

import yaml

MAX_DEPTH = 50
MAX_VALUES = 10_000
"""Keys and values together, once every alias is replaced by what it stands for."""

_KINDS = ("null", "bool", "int", "float", "binary", "timestamp", "omap", "pairs", "set", "str", "seq", "map")
_TAGS = (None, "!", *(f"tag:yaml.org,2002:{kind}" for kind in _KINDS))


def wrong_cloud_config(text: str) -> str | None:
    """What is wrong with it, in words for its author; None when cloud-init can use it."""
    reader = _Reader()
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            reader.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        return f"it is not valid YAML{where}: {error.problem}"
    except (yaml.YAMLError, ValueError) as error:
        return f"it is not valid YAML: {str(error).splitlines()[0][:200]}"
    except _Wrong as wrong:
        return str(wrong)
    return None if reader.documents else "a #cloud-config must hold a mapping, and this holds nothing"


class _Wrong(Exception):
    """Valid YAML that is no usable cloud-config."""


@dataclass
class _Node:
    """A node of the document. ``values``: how many it counts for; ``children``: its keys and values that have ended."""

    kind: str
    values: int = 1
    children: int = 0
    ended: bool = False
    anchor: str | None = None

    @property
    def awaits_key(self) -> bool:
        return self.kind == "mapping" and self.children % 2 == 0


@dataclass
class _Reader:
    """Where the parser stands: the collections around it, the outermost first, and the anchors that it has passed."""

    documents: int = 0
    total: int = 0
    is_packages: bool = False
    around: list[_Node] = field(default_factory=list)
    anchors: dict[str, _Node] = field(default_factory=dict)

    def take(self, event: yaml.Event) -> None:
        """Raises ``_Wrong``, or what the parser raises."""
        match event:
            case yaml.ScalarEvent() | yaml.CollectionStartEvent():
                self._begin(self._new(event), event)
            case yaml.DocumentStartEvent():
                self.documents += 1
                if self.documents > 1:
                    raise _Wrong("it holds more than one YAML document")
            case yaml.CollectionEndEvent():
                self._end(self.around.pop())
            case yaml.AliasEvent():
                self._begin(self._named(str(event.anchor)), event)

    def _named(self, anchor: str) -> _Node:
        node = self.anchors.get(anchor)
        if node is None or not node.ended:
            raise _Wrong(f"the alias *{anchor[:60]} stands for nothing that ends before it")
        return node

    def _new(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> _Node:
        if event.tag not in _TAGS:
            raise _Wrong(f"the tag {str(event.tag)[:60]}{_where(event)} is none that cloud-init knows")
        node = _Node(_kind(event), anchor=event.anchor)
        if event.anchor is not None:
            if event.anchor in self.anchors:
                raise _Wrong(f"the anchor &{event.anchor[:60]} is there twice")
            self.anchors[event.anchor] = node
        return node

    def _begin(self, node: _Node, event: yaml.NodeEvent) -> None:
        self.total += node.values
        if self.total > MAX_VALUES:
            raise _Wrong(f"it has more than {MAX_VALUES} values, each alias counted as what it stands for")
        parent = self.around[-1] if self.around else None
        if parent is None and node.kind != "mapping":
            found = "nothing" if isinstance(event, yaml.ScalarEvent) and not event.value else f"a {node.kind}"
            raise _Wrong(f"a #cloud-config must hold a mapping, and this holds {found}")
        if parent is not None and parent.awaits_key and node.kind != "text":
            raise _Wrong(f"a {node.kind} stands where a key must{_where(event)}")
        if len(self.around) == 1:
            self._check_packages(node, event)
        if isinstance(event, yaml.CollectionStartEvent):
            self.around.append(node)
            if len(self.around) > MAX_DEPTH:
                raise _Wrong(f"its YAML is nested more than {MAX_DEPTH} deep")
        else:
            self._end(node)

    def _check_packages(self, node: _Node, event: yaml.NodeEvent) -> None:
        if self.around[0].awaits_key:
            self.is_packages = isinstance(event, yaml.ScalarEvent) and event.value == "packages"
        elif self.is_packages and node.kind != "list":
            raise _Wrong("packages in a #cloud-config must be a list")

    def _end(self, node: _Node) -> None:
        node.ended = True
        if self.around:
            self.around[-1].children += 1
            self.around[-1].values += node.values


def _kind(event: yaml.NodeEvent) -> str:
    if isinstance(event, yaml.MappingStartEvent):
        return "mapping"
    return "list" if isinstance(event, yaml.SequenceStartEvent) else "text"


def _where(event: yaml.Event) -> str:
    return f" on line {event.start_mark.line + 1}" if event.start_mark else ""
