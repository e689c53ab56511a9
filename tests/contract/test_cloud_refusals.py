"""The table of answers that are no success."""

import pytest
from hasite.clouds.refusals import Effect, Gone, no_answer, refusal, seconds_to_wait
from hasite.errors import HasiteError, Permanent, RateLimited, Transient, Unauthorized, Unclear, Unreachable

NOT_FOUND = {"id": "not_found", "message": "The resource you were accessing could not be found."}
READ, WRITE, CREATE = Effect.READ, Effect.WRITE, Effect.CREATE


@pytest.mark.parametrize(
    ("status", "body", "effect", "expected"),
    [
        (401, {"id": "unauthorized", "message": "Unable to authenticate you"}, READ, Unauthorized),
        (403, {"id": "forbidden", "message": "You do not have access"}, CREATE, Unauthorized),
        (404, NOT_FOUND, READ, Gone),
        (404, NOT_FOUND, WRITE, Gone),
        (404, "<html>no such page</html>", READ, Unreachable),
        (404, None, CREATE, Unclear),
        (408, None, READ, Unreachable),
        (409, {"id": "conflict", "message": "duplicate name"}, CREATE, Permanent),
        (422, {"id": "unprocessable_entity", "message": "You specified an invalid size"}, CREATE, Permanent),
        (422, {"id": "unprocessable_entity", "message": "Droplet already has a pending event."}, WRITE, Transient),
        (429, {"id": "too_many_requests", "message": "API rate limit exceeded."}, CREATE, RateLimited),
        (500, {"id": "server_error", "message": "Unexpected server-side error"}, READ, Transient),
        (502, "<html>bad gateway</html>", WRITE, Transient),
        (500, {"id": "server_error", "message": "Unexpected server-side error"}, CREATE, Unclear),
        (503, None, CREATE, Unclear),
        (302, None, READ, Transient),
        (302, None, CREATE, Unclear),
    ],
)
def test_an_answer_says_what_may_be_done_next(
    status: int, body: object, effect: Effect, expected: type[HasiteError]
) -> None:
    assert type(refusal("droplets.create", effect, status, body, 7.0)) is expected


def test_the_words_of_the_api_reach_the_error() -> None:
    error = refusal("droplets.create", CREATE, 422, {"id": "unprocessable_entity", "message": "no such size"}, 0.0)
    assert isinstance(error, Permanent)
    assert error.reason == "InvalidRequest"
    assert "no such size" in str(error)


@pytest.mark.parametrize(
    ("effect", "sent", "expected"),
    [
        (CREATE, True, Unclear),
        (CREATE, False, Unreachable),
        (WRITE, True, Unreachable),
        (READ, True, Unreachable),
    ],
)
def test_silence_is_unclear_only_for_a_create_that_was_sent(
    effect: Effect, sent: bool, expected: type[HasiteError]
) -> None:
    assert type(no_answer("x.y", effect, "silence", sent=sent)) is expected


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "30"}, 30.0),
        ({"ratelimit-reset": "1090"}, 90.0),
        ({"retry-after": "2", "ratelimit-reset": "1090"}, 2.0),
        ({"retry-after": "0"}, 1.0),
        ({"retry-after": "soon"}, 60.0),
        ({"ratelimit-reset": "999999"}, 3600.0),
        ({}, 60.0),
    ],
)
def test_a_429_says_how_long_to_wait(headers: dict[str, str], seconds: float) -> None:
    assert seconds_to_wait(headers, wall_clock=1000.0) == seconds
