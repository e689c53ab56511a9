"""DigitalOcean's API through pydo: one request, sent once, and its answer or one of our errors."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from azure.core.exceptions import HttpResponseError, ServiceRequestError, ServiceRequestTimeoutError

from hasite.clouds.limiter import Limiter
from hasite.clouds.metrics import ApiMetrics
from hasite.clouds.refusals import Effect, Gone, no_answer, refusal, seconds_to_wait, telling
from hasite.errors import Transient, Unclear

T = TypeVar("T")
Json = Mapping[str, Any]

CONNECT_TIMEOUT = 5.0
PER_PAGE = 200  # the API's largest page
ATTEMPTS = 3  # at a list that changes while it is read


@dataclass(frozen=True)
class Operation:
    """A call of pydo's: ``group.method``, its effect, the root key of its answer ("": none), seconds to wait."""

    name: str
    effect: Effect
    root: str = ""
    timeout: float = 10.0


@dataclass(frozen=True)
class _Reply:
    status: int
    headers: Mapping[str, str]
    body: object


class Api:
    """One token at one endpoint.

    Invariant: every call sends at most one request. There is neither a retry nor a redirect below it: what has failed
    is repeated by whoever decided it, if at all.
    """

    def __init__(self, token: str, endpoint: str, *, clock: Callable[[], float], metrics: ApiMetrics) -> None:
        self._client = _client(token, endpoint)
        self._clock = clock
        self._metrics = metrics
        self.limiter = Limiter(clock)

    async def call(self, operation: Operation, *args: object, **params: object) -> Json:
        """The answer's JSON, its root key checked; {} for an operation without one.

        Raises Gone for a definite 404, and otherwise as ``Cloud`` says: Unclear only where ``operation`` creates.
        """
        await self.limiter.admit()
        started = self._clock()
        status: int | str = "cancelled"
        try:
            reply = await self._exchange(operation, args, params)
            status = reply.status
        except Transient:
            status = "unreachable"
            raise
        except Unclear:
            status = "no answer"
            raise
        finally:
            self._metrics.on_call(operation.name, status, self._clock() - started)
        self._learn(reply)
        return self._accept(operation, reply)

    async def list(self, operation: Operation, *args: object, **params: object) -> Sequence[Json]:
        """All items of a list. Raises Transient when a page is missing or the list never held still."""
        for _ in range(ATTEMPTS):
            items = await self._pages(operation, args, params)
            if items is not None:
                return items
        raise Transient(f"{operation.name}: the list changed again and again while it was read")

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _exchange(self, operation: Operation, args: Sequence[object], params: Mapping[str, object]) -> _Reply:
        group, method = operation.name.split(".")
        function = getattr(getattr(self._client, group), method)
        effect = operation.effect
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT + operation.timeout):
                response = await function(
                    *args, cls=_response, connection_timeout=CONNECT_TIMEOUT, read_timeout=operation.timeout, **params
                )
        except HttpResponseError as error:
            if error.response is None:
                raise no_answer(operation.name, effect, str(error)) from error
            response = error.response
        except TimeoutError:
            raise no_answer(operation.name, effect, f"no answer within {operation.timeout:.0f} s") from None
        except Exception as error:
            raise no_answer(operation.name, effect, _words(error), sent=not _never_sent(error)) from error
        return _Reply(response.status_code, {k.lower(): v for k, v in response.headers.items()}, _parsed(response))

    def _learn(self, reply: _Reply) -> None:
        limit, left = reply.headers.get("ratelimit-limit", ""), reply.headers.get("ratelimit-remaining", "")
        if limit.isdecimal() and left.isdecimal():
            self.limiter.budget.learn(self._clock(), int(limit), int(left))

    def _accept(self, operation: Operation, reply: _Reply) -> Json:
        wait = seconds_to_wait(reply.headers, time.time())
        if reply.status == 429:
            self.limiter.budget.refused(self._clock(), wait)
        if not 200 <= reply.status < 300:
            raise refusal(operation.name, operation.effect, reply.status, reply.body, wait)
        if not operation.root:
            return {}
        if not isinstance(reply.body, Mapping) or reply.body.get(operation.root) is None:
            raise malformed(operation, f"an answer without {operation.root!r}")
        return reply.body

    async def _pages(
        self, operation: Operation, args: Sequence[object], params: Mapping[str, object]
    ) -> Sequence[Json] | None:
        """All pages, or None when items came or went meanwhile: one may then have moved to a page already read."""
        items: list[Json] = []
        total, page = None, 1
        while True:
            body = await self._page(operation, page, args, params)
            count = _total(body)
            if count is None or not isinstance(body[operation.root], list):
                raise malformed(operation, "a page without its list or its total")
            if total is not None and total != count:
                return None
            total = count
            items += body[operation.root]
            if len(items) >= total:
                break
            if len(body[operation.root]) < PER_PAGE:
                raise Transient(f"{operation.name}: {len(items)} items were given, {total} were promised")
            page += 1
        return items if len({_identity(item) for item in items}) == total else None

    async def _page(
        self, operation: Operation, page: int, args: Sequence[object], params: Mapping[str, object]
    ) -> Json:
        try:
            return await self.call(operation, *args, per_page=PER_PAGE, page=page, **params)
        except Gone as error:
            if page == 1:
                raise
            raise Transient(f"{operation.name}: page {page} is missing") from error


def malformed(operation: Operation, why: str) -> Exception:
    """The error for a success whose answer can't be read: for a create it has happened, or it may have."""
    text = telling(operation.name, why)
    return Unclear(text) if operation.effect is Effect.CREATE else Transient(text)


def read(operation: Operation, reader: Callable[[Json], T], item: Json) -> T:
    """An item of an answer, or the error for one that can't be read."""
    try:
        return reader(item)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise malformed(operation, f"an answer that can't be read ({error!r})") from error


def _client(token: str, endpoint: str) -> Any:
    # Importing pydo takes 0.3 s and tens of megabytes; only those who talk to the API shall pay for it.
    from azure.core.credentials import AzureKeyCredential
    from azure.core.pipeline import policies
    from pydo.aio import Client

    key = policies.AzureKeyCredentialPolicy(AzureKeyCredential(token), "Authorization", prefix="Bearer")
    user_agent = policies.UserAgentPolicy(base_user_agent="hasite-operator")
    # The whole list, in place of pydo's own: that one re-sends POSTs, follows redirects and refuses http://.
    return Client(token, endpoint=endpoint.rstrip("/"), policies=[policies.HeadersPolicy(), user_agent, key])


def _response(pipeline_response: Any, _body: object, _headers: object) -> Any:
    """pydo's ``cls`` hook: the response itself, since some of its methods return a 404's body like a success's."""
    return pipeline_response.http_response


def _parsed(response: Any) -> object:
    try:
        return json.loads(response.text())
    except (ValueError, LookupError):
        return None


def _never_sent(error: Exception) -> bool:
    """No connection was made: the request can't have reached the other side."""
    from aiohttp import ClientConnectorError

    if isinstance(error, ServiceRequestTimeoutError):
        return True
    return isinstance(error, ServiceRequestError) and isinstance(error.inner_exception, ClientConnectorError)


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _total(body: Json) -> int | None:
    meta = body.get("meta")
    total = meta.get("total") if isinstance(meta, Mapping) else None
    return total if isinstance(total, int) else None


def _identity(item: object) -> object:
    if not isinstance(item, Mapping):
        return None
    return item.get("id") or item.get("name")
