"""What cloud-init's files say of a machine's birth."""

import json
from typing import Any, Literal

import pytest
from hasite.errors import Transient
from hasite.machines.base import Result
from hasite.machines.observe import judge, observe_machine

from tests.contract.local_machine import LocalSession

APT = "('package-update-upgrade-install', ProcessExecutionError(\"Unexpected error while running command.\"))"
LOCALE = "('locale', ProcessExecutionError(\"locale-gen failed\"))"
FINISHED = {"v1": {"datasource": "DataSourceNoCloud", "errors": []}}


def stages(*errors: str, **more: Any) -> dict[str, Any]:
    final = {"errors": list(errors), "start": 1.0, "finished": 2.0, **more}
    return {"v1": {"stage": None, "datasource": "DataSourceNoCloud", "modules-final": final}}


@pytest.mark.parametrize(
    ("status", "result", "never", "log", "expected"),
    [
        pytest.param({}, {}, False, "", ("running", ""), id="it has not begun"),
        pytest.param(stages(APT), {}, False, "", ("running", ""), id="it failed but has not ended"),
        pytest.param(stages(), FINISHED, False, "", ("done", ""), id="it ended well"),
        pytest.param({}, {}, True, "", ("done", ""), id="it never runs here"),
        pytest.param(stages(LOCALE), FINISHED, False, "", ("done", ""), id="only the locale module failed"),
        pytest.param(
            stages(recoverable_errors={"WARNING": ["deprecated"]}), FINISHED, False, "", ("done", ""), id="degraded"
        ),
        pytest.param(
            stages(LOCALE, APT),
            FINISHED,
            False,
            "E: Unable to locate package nginz\nE: Unable to locate package nginz\n",
            ("error", f"Unable to locate package nginz; {APT}"),
            id="apt failed, in its own words, once",
        ),
        pytest.param(
            {}, {"v1": {"errors": ["boom"]}}, False, "", ("error", "boom"), id="only the result knows the error"
        ),
        pytest.param(
            stages("no\x1b]0;you\x07\nmore"), FINISHED, False, "", ("error", "no]0;you more"), id="a terminal's escapes"
        ),
        pytest.param({"v1": 1}, {"v1": {"errors": 7}}, False, "", ("done", ""), id="files of another form"),
        pytest.param(
            stages(), FINISHED, False, "E: something that a script survived\n", ("done", ""), id="words without failure"
        ),
    ],
)
def test_the_state_follows_the_files(
    status: dict[str, Any],
    result: dict[str, Any],
    never: bool,
    log: str,
    expected: tuple[Literal["running", "done", "error"], str],
) -> None:
    assert judge(status, result, never, log) == expected


def test_the_words_fit_into_a_condition() -> None:
    assert len(judge(stages("x" * 5000), FINISHED, False, "")[1]) <= 1000


class Answering(LocalSession):
    """Answers every command with ``output``."""

    output = ""

    async def run(self, command: str, *, stdin: bytes = b"", timeout: float = 10.0) -> Result:  # noqa: ASYNC109
        self.runs.append(command)
        return Result(0, self.output, "")


async def test_a_machine_is_observed_in_one_round_trip(tmp_path: Any) -> None:
    session = Answering(tmp_path)
    mark = "\n==hasite==\n"
    session.output = json.dumps(stages()) + mark + json.dumps(FINISHED) + mark + mark[1:]
    view = await observe_machine(session, 17.0)
    assert (view.cloud_init, view.cloud_init_error, view.seen_at, view.host_key) == ("done", "", 17.0, session.host_key)
    assert len(session.runs) == 1


async def test_a_file_that_is_nested_without_end_says_nothing(tmp_path: Any) -> None:
    session = Answering(tmp_path)
    mark = "\n==hasite==\n"
    session.output = "[" * 100_000 + mark + "[" * 100_000 + mark + mark[1:]
    assert (await observe_machine(session, 17.0)).cloud_init == "running"


async def test_an_answer_that_was_cut_off_says_nothing(tmp_path: Any) -> None:
    session = Answering(tmp_path)
    session.output = "{"
    with pytest.raises(Transient):
        await observe_machine(session, 17.0)


async def test_the_script_runs_in_a_plain_shell(tmp_path: Any) -> None:
    assert (await observe_machine(LocalSession(tmp_path), 1.0)).cloud_init in ("running", "done", "error")
