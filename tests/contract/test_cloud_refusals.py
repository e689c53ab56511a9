"""The table of answers that are no success."""

import pytest
from hasite.clouds.refusals import MOST_WORDS, Effect, Gone, no_answer, refusal, seconds_to_wait
from hasite.clouds.transport import Operation, malformed
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


CLEARS_A_TERMINAL = "no\x1b[2J such\nsize\u202e" + "!" * 10_000
FIT_TO_BE_SHOWN = "droplets.create: no[2J such size" + "!" * (MOST_WORDS - len("no[2J such size"))


@pytest.mark.parametrize("status", [401, 404, 408, 409, 422, 429, 500])
@pytest.mark.parametrize("effect", Effect)
def test_words_of_the_api_become_one_short_line_of_printable_text(status: int, effect: Effect) -> None:
    body = {"id": "not_found", "message": CLEARS_A_TERMINAL}
    assert str(refusal("droplets.create", effect, status, body, 0.0)) == FIT_TO_BE_SHOWN


def test_so_do_those_about_an_answer_that_did_not_come_or_cannot_be_read() -> None:
    assert str(no_answer("droplets.create", CREATE, CLEARS_A_TERMINAL)) == FIT_TO_BE_SHOWN
    assert str(malformed(Operation("droplets.create", CREATE), CLEARS_A_TERMINAL)) == FIT_TO_BE_SHOWN


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
