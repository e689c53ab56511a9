"""Walks over the generated schemas."""

from collections.abc import Iterator, Mapping
from typing import Any

KEYWORDS = (
    "pattern",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
)

Node = Mapping[str, Any]


def nodes(node: Node, path: str) -> Iterator[tuple[str, Node]]:
    """The node and all below it, with their paths: `spec.locations[].name`, `spec.parameters{}`."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")
    if "additionalProperties" in node:
        yield from nodes(node["additionalProperties"], f"{path}{{}}")


def constraints(root: Node, path: str) -> Iterator[tuple[str, str]]:
    """Every constraint at or below the node: where, and the keyword or the message of the CEL rule."""
    for where, node in nodes(root, path):
        yield from ((where, keyword) for keyword in KEYWORDS if keyword in node)
        yield from ((where, rule["message"]) for rule in node.get("x-kubernetes-validations", ()))
        yield from ((f"{where}.{name}", "required") for name in node.get("required", ()))
        if node.get("x-kubernetes-list-type") == "map":
            yield where, "duplicate"
