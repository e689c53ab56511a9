"""The manners of the API: error bodies, JSON requests, paginated lists."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlencode

from aiohttp import web

Json = dict[str, Any]
T = TypeVar("T")

PAGE_SIZE = 20
LARGEST_PAGE = 200


class ApiError(Exception):
    """An answer that refuses: status, DigitalOcean's error id, a message and further headers."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})

    def body(self, request_id: str) -> Json:
        """The error body."""
        return {"id": self.code, "message": self.message, "request_id": request_id}


class TagError(ApiError):
    """The tag endpoint reports a malformed name in a form of its own."""

    def body(self, request_id: str) -> Json:
        return {"error": self.message, "messages": None, "root_causes": [f"rpc error: {self.message}"]}


def not_found(message: str = "The resource you were accessing could not be found.") -> ApiError:
    """404."""
    return ApiError(404, "not_found", message)


def unprocessable(message: str) -> ApiError:
    """422."""
    return ApiError(422, "unprocessable_entity", message)


def bad_request(message: str = "error parsing request body") -> ApiError:
    """400."""
    return ApiError(400, "bad_request", message)


async def body_of(request: web.Request) -> Json:
    """The request's JSON object; raises ApiError 400 for anything else."""
    text = await request.text()
    try:
        body = json.loads(text) if text else {}
    except ValueError:
        raise bad_request() from None
    if not isinstance(body, dict):
        raise bad_request()
    return body


def strings(body: Json, key: str) -> list[str]:
    """A list of strings, null and absence being empty."""
    value = body.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise unprocessable(f"{key} must be a list of strings")
    return value


def integers(body: Json, key: str) -> list[int]:
    """A list of integers, null and absence being empty."""
    value = body.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, int) for item in value):
        raise unprocessable(f"{key} must be a list of integers")
    return value


def path_id(request: web.Request, name: str) -> int:
    """A number in the path; what is no number names nothing."""
    try:
        return int(request.match_info[name])
    except ValueError:
        raise not_found() from None


def timestamp(seconds: float) -> str:
    """ISO 8601 in UTC with whole seconds, as the API writes times."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def listing(request: web.Request, key: str, items: Sequence[T], render: Callable[[T], Json]) -> web.Response:
    """One page of a list, with `links` and `meta`. Only the items of the page are rendered."""
    page, per_page = _number(request, "page", 1), min(_number(request, "per_page", PAGE_SIZE), LARGEST_PAGE)
    start = (page - 1) * per_page
    shown = [render(item) for item in items[start : start + per_page]]
    last = max(1, -(-len(items) // per_page))
    body = {key: shown, "links": _links(request, page, per_page, last), "meta": {"total": len(items)}}
    return web.json_response(body)


def _number(request: web.Request, name: str, default: int) -> int:
    try:
        value = int(request.query.get(name, default))
    except ValueError:
        return default
    return value if value >= 1 else default


def _links(request: web.Request, page: int, per_page: int, last: int) -> Json:
    def url(number: int) -> str:
        query = {**request.query, "page": str(number), "per_page": str(per_page)}
        return f"{request.url.origin()}{request.path}?{urlencode(query)}"

    pages: dict[str, str] = {}
    if page > 1:
        pages |= {"first": url(1), "prev": url(page - 1)}
    if page < last:
        pages |= {"next": url(page + 1), "last": url(last)}
    return {"pages": pages} if pages else {}
