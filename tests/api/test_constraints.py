"""What the custom resources accept and refuse, as far as the models and the schemas hold it without an API server."""

import re
from typing import Any

import jsonschema
import pytest
from hasite.api import HASite, LoadBalancerPool, ReplicatedDatabase
from hasite.api.common import Resource
from pydantic import ValidationError

from tests.api.case import Case
from tests.api.cases import BASE, CASES, TABLE, manifest, spec_with, titles
from tests.api.nasty import STRINGS, injections
from tests.api.schemas import constraints, nodes
from tools.crds import root_schema

KINDS: dict[str, type[Resource]] = {kind.KIND: kind for kind in (HASite, LoadBalancerPool, ReplicatedDatabase)}
SCHEMAS = {name: root_schema(kind) for name, kind in KINDS.items()}
HELD_BY_THE_MODEL = [(kind, case) for kind, case in TABLE if case.model_refuses]


def errors(kind: str, spec: dict[str, Any]) -> list[str]:
    """The fields that the model refuses, as the API server writes them."""
    try:
        KINDS[kind].model_validate(manifest(kind, spec))
    except ValidationError as error:
        return [_field(detail["loc"]) for detail in error.errors()]
    return []


def _field(location: tuple[int | str, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location).removeprefix(".")


@pytest.mark.parametrize("kind", KINDS)
def test_the_base_spec_is_accepted(kind: str) -> None:
    assert errors(kind, BASE[kind]) == []


@pytest.mark.parametrize(("kind", "case"), TABLE, ids=titles(TABLE))
def test_the_model_accepts_what_the_constraint_allows(kind: str, case: Case) -> None:
    assert errors(kind, spec_with(kind, case.path, case.accepted)) == []


@pytest.mark.parametrize(("kind", "case"), HELD_BY_THE_MODEL, ids=titles(HELD_BY_THE_MODEL))
def test_the_model_refuses_what_the_constraint_forbids(kind: str, case: Case) -> None:
    assert errors(kind, spec_with(kind, case.path, case.rejected)) == [case.reported]


@pytest.mark.parametrize(("kind", "case"), TABLE, ids=titles(TABLE))
def test_the_schema_agrees_with_the_table(kind: str, case: Case) -> None:
    validator = jsonschema.Draft202012Validator(SCHEMAS[kind])
    assert validator.is_valid(manifest(kind, spec_with(kind, case.path, case.accepted)))
    if not case.is_rule and case.keyword != "duplicate":
        found = [*validator.iter_errors(manifest(kind, spec_with(kind, case.path, case.rejected)))]
        assert case.keyword in [error.validator for error in found]


@pytest.mark.parametrize("kind", KINDS)
def test_every_constraint_of_the_schema_has_a_case(kind: str) -> None:
    in_schema = set(constraints(SCHEMAS[kind]["properties"]["spec"], "spec"))
    in_table = {(case.where, case.keyword) for case in CASES[kind]}
    assert in_schema - in_table == set(), "constraints without a case"
    assert in_table - in_schema == set(), "cases without a constraint"


@pytest.mark.parametrize("kind", KINDS)
def test_every_string_list_and_map_of_a_spec_is_bounded(kind: str) -> None:
    bound = {"string": "maxLength", "array": "maxItems"}
    unbounded = [
        path
        for path, node in nodes(SCHEMAS[kind]["properties"]["spec"], "spec")
        if not ("enum" in node or bound.get(node["type"], "type") in node)
        or ("additionalProperties" in node and "maxProperties" not in node)
    ]
    assert unbounded == []


def test_every_free_string_has_a_pattern() -> None:
    free = {
        (kind, path)
        for kind, schema in SCHEMAS.items()
        for path, node in nodes(schema["properties"]["spec"], "spec")
        if node["type"] == "string" and not {"pattern", "enum"} & node.keys()
    }
    assert free == {("HASite", "spec.app.userData")}


@pytest.mark.parametrize(("kind", "case"), STRINGS, ids=titles(STRINGS))
def test_no_string_takes_what_could_end_a_line_or_a_word_of_a_configuration(kind: str, case: Case) -> None:
    taken = [
        injection
        for injection in injections(case.where)
        if errors(kind, spec_with(kind, case.path, f"{case.accepted}{injection}")) == []
    ]
    assert taken == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_the_schema_is_described(kind: str) -> None:
    properties = SCHEMAS[kind]["properties"]
    bare = [
        path
        for part in ("spec", "status")
        for path, node in nodes(properties[part], part)
        if "description" not in node and not re.search(r"(\[\]|\{\})$", path)
    ]
    assert bare == []
