"""The reference page: every field of every kind, from the same schemas as the CRDs."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from hasite.api import GROUP, VERSION
from hasite.api.common import Resource

from tools.crds import KINDS, root_schema

_HEAD = f"""# Reference: {GROUP}/{VERSION}

Generated from the typed models by `tools/generate.py`; `kubectl explain` shows the same words.
A duration is a number with a unit, or several: `800ms`, `10s`, `1m30s`.
"""


def reference_page(examples: Path) -> str:
    """The page as Markdown. `examples` is the folder whose files are shown, each at the kinds that it holds."""
    return "\n".join([_HEAD, *(_kind(kind, examples) for kind in KINDS)])


def _kind(kind: type[Resource], examples: Path) -> str:
    schema = root_schema(kind)
    columns = (column.name.upper() + (" (`-o wide`)" if column.priority else "") for column in kind.COLUMNS)
    lines = [
        f"## {kind.KIND}\n",
        f"{schema['description']}\n",
        f"`kubectl get {kind.PLURAL}`, or `{kind.SHORT}` for short; columns: {', '.join(columns)}.\n",
    ]
    for name, document in _documents(kind, examples):
        lines += [f"From [examples/{name}](../examples/{name}):\n", f"```yaml\n{document.strip()}\n```\n"]
    for part in ("spec", "status"):
        for path, node in _objects(part, schema["properties"][part]):
            lines += _table(path, node)
    return "\n".join(lines)


def _documents(kind: type[Resource], examples: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(examples.glob("*.yaml")):
        for text in re.split(r"^---\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
            document = yaml.safe_load(text)
            if isinstance(document, dict) and document.get("kind") == kind.KIND:
                yield path.name, text


def _objects(path: str, node: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every object of fields at or below the node."""
    if "properties" in node:
        yield path, node
        for name, child in node["properties"].items():
            yield from _objects(f"{path}.{name}", child)
    elif "items" in node:
        yield from _objects(f"{path}[]", node["items"])


def _table(path: str, node: Mapping[str, Any]) -> list[str]:
    lines = [f"### {path}\n", f"{node['description']}\n"] if "description" in node else [f"### {path}\n"]
    lines += ["| field | type | default | must be | description |", "|---|---|---|---|---|"]
    for name, child in node["properties"].items():
        cells = (f"`{name}`", _type(child), _default(name, node), _bounds(child), child["description"].split("\n\n")[0])
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    rules = [rule["message"] for rule in node.get("x-kubernetes-validations", ())]
    return [*lines, "", *(f"- {message}" for message in rules), *([""] if rules else [])]


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def _type(node: Mapping[str, Any]) -> str:
    if "items" in node:
        keys = node.get("x-kubernetes-list-map-keys")
        return f"list of {_type(node['items'])}" + (f", by {', '.join(keys)}" if keys else "")
    if "additionalProperties" in node:
        return f"map of {_type(node['additionalProperties'])}"
    return str(node["type"])


def _default(name: str, parent: Mapping[str, Any]) -> str:
    if name in parent.get("required", ()):
        return "required"
    default = parent["properties"][name].get("default")
    # An object's default is those of its fields, which have a table of their own.
    return "" if default in (None, "", []) or isinstance(default, dict) else f"`{default}`"


def _bounds(node: Mapping[str, Any]) -> str:
    parts = []
    if "enum" in node:
        parts.append(", ".join(f"`{value}`" for value in node["enum"]))
    if "minimum" in node or "maximum" in node:
        parts.append(f"{node.get('minimum', '')}…{node.get('maximum', '')}")
    if "pattern" in node:
        parts.append(f"`{node['pattern']}`")
    for keyword, words in (
        ("maxLength", "at most {} characters"),
        ("minItems", "at least {}"),
        ("maxItems", "at most {}"),
        ("maxProperties", "at most {}"),
    ):
        if keyword in node:
            parts.append(words.format(node[keyword]))
    if "properties" not in node:
        parts += [rule["message"] for rule in node.get("x-kubernetes-validations", ())]
    return "; ".join(parts)
