"""What is told of a MariaDB server that does not answer."""

import os
import signal

from hasite.guard.model import Desired

from tests.databases.test_mariadb import SYNC, lab, pair, pytestmark, streaming, template

__all__ = ["lab", "pair", "pytestmark", "template"]


async def test_a_server_that_does_not_answer_tells_no_position_from_before(pair: tuple) -> None:  # type: ignore[type-arg]
    alpha, beta = pair
    await alpha.reach(SYNC)
    await beta.reach(Desired("standby", 1, "alpha", sync=SYNC.sync), alpha)
    await streaming(beta)
    before = await beta.driver.observe()
    assert before.position is not None and before.streaming
    for pid in beta.service.pids():
        os.kill(pid, signal.SIGSTOP)
    late = await beta.driver.observe()
    assert (late.state, late.position, late.drained, late.streaming) == ("standby", None, False, False)
    beta.driver.kill()
