"""CustomResourceDefinitions from the typed models: structural schemas as the API server wants them."""

import re
from collections.abc import Mapping
from typing import Any, Final

from hasite.api import GROUP, VERSION, HASite, LoadBalancerPool, ReplicatedDatabase
from hasite.api.common import CATEGORY, Column, Resource

KINDS: Final[tuple[type[Resource], ...]] = (HASite, LoadBalancerPool, ReplicatedDatabase)

Schema = dict[str, Any]

_ORDER = ("description", "type", "format", "default", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum")
"""Keywords that come first, in this order; the others follow as pydantic has them."""
_INT32 = 2**31 - 1


def definition(kind: type[Resource]) -> Schema:
    """The CRD of one kind.

    Raises ValueError when its models hold something that a structural schema can't say.
    """
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind.KIND,
                "listKind": f"{kind.KIND}List",
                "plural": kind.PLURAL,
                "singular": kind.KIND.lower(),
                "shortNames": [kind.SHORT],
                "categories": [CATEGORY],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(column) for column in kind.COLUMNS],
                    "schema": {"openAPIV3Schema": root_schema(kind)},
                }
            ],
        },
    }


def root_schema(kind: type[Resource]) -> Schema:
    """The structural schema of a whole object of the kind."""
    raw = kind.model_json_schema(by_alias=True)
    inline = _Inliner(raw["$defs"])
    spec, status = (inline.schema(raw["properties"][part]) for part in ("spec", "status"))
    _drop_defaults(status)
    status["properties"]["observedGeneration"]["default"] = -1
    status["default"] = {"observedGeneration": -1}
    return {
        "description": raw["description"],
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": {"description": status.pop("description"), "type": status.pop("type"), **status},
        },
        "required": ["spec"],
    }


class _Inliner:
    """Turns pydantic's JSON Schema into a structural one."""

    def __init__(self, definitions: Mapping[str, Schema]) -> None:
        self._definitions = definitions

    def schema(self, raw: Mapping[str, Any]) -> Schema:
        """One node and all below it."""
        node = self._without_references(raw)
        node.pop("title", None)
        if "const" in node:
            node["enum"] = [node.pop("const")]
        if "description" in node:
            node["description"] = re.sub(r"(?<!\n)\n(?!\n)", " ", node["description"])
        if node.get("default", ...) is None:
            del node["default"]
        self._by_type(node)
        return self._ordered(node)

    @staticmethod
    def _ordered(node: Schema) -> Schema:
        return {key: node[key] for key in (*_ORDER, *(key for key in node if key not in _ORDER)) if key in node}

    def _by_type(self, node: Schema) -> None:
        match node.get("type"):
            case "object" if "properties" in node:
                node["properties"] = self._properties(node)
            case "object":
                node["additionalProperties"] = self.schema(node["additionalProperties"])
                if "maxLength" in node:
                    node["maxProperties"] = node.pop("maxLength")
            case "array":
                node["items"] = self.schema(node["items"])
                node.setdefault("x-kubernetes-list-type", "atomic")
            case "integer":
                node["format"] = "int32" if node.get("maximum", _INT32 + 1) <= _INT32 else "int64"
            case "number":
                node["format"] = "double"
            case "string" | "boolean":
                pass
            case other:
                raise ValueError(f"no structural schema for type {other!r}: {node}")

    def _properties(self, node: Schema) -> Schema:
        required = node.get("required", ())
        properties = {}
        for name, raw in node["properties"].items():
            properties[name] = self.schema(raw)
            # A default factory leaves no trace in pydantic's schema. Its default is written out: the API server tries
            # CEL rules on a definition's defaults without filling in those of their fields.
            if name not in required and "default" not in raw:
                properties[name] = self._ordered(properties[name] | {"default": _defaults(properties[name])})
        return properties

    def _without_references(self, raw: Mapping[str, Any]) -> Schema:
        """Follows `$ref` and `anyOf: [X, null]`. What stands beside them wins over what they lead to."""
        node = dict(raw)
        if reference := node.pop("$ref", None):
            return self._without_references(self._definitions[reference.rsplit("/", 1)[1]]) | node
        if choices := node.pop("anyOf", None):
            real = [choice for choice in choices if choice.get("type") != "null"]
            if len(real) != 1:
                raise ValueError(f"a structural schema has one type a field: {raw}")
            return self._without_references(real[0]) | node
        return node


def _defaults(node: Schema) -> Schema:
    return {name: child["default"] for name, child in node.get("properties", {}).items() if "default" in child}


def _drop_defaults(node: Schema) -> None:
    """A status says what was observed: nothing in it comes from the API server but `observedGeneration`."""
    node.pop("default", None)
    for child in (*node.get("properties", {}).values(), *filter(None, [node.get("items")])):
        _drop_defaults(child)


def _column(column: Column) -> Schema:
    return {
        "name": column.name,
        "type": column.type,
        "jsonPath": column.path,
        "description": column.description,
        "priority": column.priority,
    }
