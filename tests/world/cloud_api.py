"""What the tests of the simulated cloud share: a plain HTTP client that checks each answer against DigitalOcean's
published OpenAPI description, when that description is at hand."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema

from e2e.world.cloud import UNLIMITED, Cloud, Server, serve

TOKEN = "local-token"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0r1eOcOHTrSbzb1sBL2WRDPGuHfJZRDCUIhKb9gKQF operator@example.com"
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDJ0r1eOcOHTrSbzb1sBL2WRDPGuHfJZRDCUIhKb9gKQ other@example.com"

Json = dict[str, Any]


def openapi_path() -> Path:
    """Where DigitalOcean's OpenAPI description is looked for."""
    beside = Path(__file__).resolve().parents[3] / "shared/reference/digitalocean.openapi.json"
    return Path(os.environ.get("HASITE_OPENAPI", beside))


@cache
def openapi() -> Json | None:
    """The description with OpenAPI's `nullable` turned into JSON Schema; None when it isn't there."""
    path = openapi_path()
    if not path.is_file():
        return None
    document: Json = _with_null(json.loads(path.read_text()))
    return document


def _with_null(node: Any) -> Any:
    if isinstance(node, list):
        return [_with_null(item) for item in node]
    if not isinstance(node, dict):
        return node
    converted = {key: _with_null(value) for key, value in node.items()}
    if converted.pop("nullable", False) is True and isinstance(converted.get("type"), str):
        converted["type"] = [converted["type"], "null"]
        if "enum" in converted:
            converted["enum"] = [*converted["enum"], None]
    return converted


def operation(method: str, path: str) -> str | None:
    """The path template of the description that a request falls under; literal segments go first."""
    document, segments = openapi(), path.strip("/").split("/")
    if document is None:
        return None
    fitting = []
    for template, methods in document["paths"].items():
        parts = template.strip("/").split("/")
        if method.lower() not in methods or len(parts) != len(segments):
            continue
        if all(part.startswith("{") or part == segment for part, segment in zip(parts, segments, strict=True)):
            fitting.append((sum(part.startswith("{") for part in parts), template))
    return min(fitting)[1] if fitting else None


def check(method: str, path: str, status: int, body: Any) -> str | None:
    """The path template that an answer was checked under; raises if the description doesn't allow the answer."""
    document, template = openapi(), operation(method, path)
    if document is None or template is None:
        return None
    responses = document["paths"][template][method.lower()]["responses"]
    reference = (responses.get(str(status)) or responses["default"])["$ref"]
    content = document["components"]["responses"][reference.split("/")[-1]].get("content")
    if not content:
        assert body is None, f"{method} {path}: {status} has no body"
        return template
    _validator(f"{reference}/content/application~1json/schema").validate(body)
    return template


@cache
def _validator(pointer: str) -> jsonschema.Draft7Validator:
    document = openapi()
    assert document is not None
    schema = {"$ref": pointer, "components": document["components"]}
    return jsonschema.Draft7Validator(schema, format_checker=jsonschema.FormatChecker())


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; `body` is None where there is none."""

    status: int
    body: Any
    headers: dict[str, str]

    @property
    def message(self) -> str:
        """The message of an error body."""
        return str(self.body["message"])


@dataclass
class Api:
    """A client of the simulated API; `checked` collects (method, path template) of every answer that was held
    against the description."""

    cloud: Cloud
    server: Server
    session: aiohttp.ClientSession
    token: str = TOKEN
    checked: set[tuple[str, str]] = field(default_factory=set)

    async def call(
        self, method: str, path: str, body: Json | None = None, *, token: str | None = None, **query: Any
    ) -> Answer:
        """Send one request under /v2 (or /_world) and check its answer."""
        url = self.server.url + (path if path.startswith("/_world") else f"/v2{path}")
        headers = {"Authorization": f"Bearer {token or self.token}"}
        params = {name: str(value) for name, value in query.items()}
        async with self.session.request(method, url, json=body, params=params, headers=headers) as response:
            text = await response.text()
            parsed = json.loads(text) if text else None
            if (template := check(method, f"/v2{path}", response.status, parsed)) is not None:
                self.checked.add((method, template))
            return Answer(response.status, parsed, {k.lower(): v for k, v in response.headers.items()})

    async def get(self, path: str, **query: Any) -> Any:
        """The body of a successful GET."""
        answer = await self.call("GET", path, **query)
        assert answer.status == 200, answer
        return answer.body

    async def post(self, path: str, body: Json) -> Any:
        """The body of a successful POST."""
        answer = await self.call("POST", path, body)
        assert answer.status in (201, 202, 204), answer
        return answer.body

    async def droplet(self, name: str = "web-1", **wishes: Any) -> Json:
        """Create a droplet, wait for its machine, and return it as it stands then."""
        created = await self.post("/droplets", order(name, **wishes))
        await self.cloud.settle()
        shown: Json = (await self.get(f"/droplets/{created['droplet']['id']}"))["droplet"]
        return shown


def order(name: str = "web-1", **wishes: Any) -> Json:
    """The body of a droplet's creation."""
    return {"name": name, "region": "nyc3", "size": "s-1vcpu-1gb", "image": "debian-12-x64"} | wishes


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[Api]:
    """A cloud that is served, with a client. Without rate limits unless they are given."""
    cloud = Cloud(**({"limits": UNLIMITED} | options))
    server = await serve(cloud)
    try:
        async with aiohttp.ClientSession() as session:
            yield Api(cloud, server, session)
    finally:
        await server.close()


class Clock:
    """A clock that a test turns forward."""

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self.time = start

    def __call__(self) -> float:
        return self.time

    def advance(self, seconds: float) -> None:
        """Turn the clock forward."""
        self.time += seconds
