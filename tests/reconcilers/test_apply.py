"""How the steps of a plan are carried out side by side."""

import asyncio
import gc
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import pytest
from hasite.api import HASite
from hasite.errors import Conflict, HasiteError, LeadershipLost
from hasite.plan.steps import PowerOnDroplet, Step
from hasite.reconcilers.apply import Application
from hasite.reconcilers.services import Services
from hasite.reconcilers.values import Machine

from tests.scenarios.universe import manifest, site_spec

STEPS = [PowerOnDroplet(f"app-{number}", number, "it is off") for number in range(3)]


@dataclass
class Sharing(Application[HASite]):
    """Steps that fail as told, by the name of their machine; others wait until they are cancelled."""

    errors: Mapping[str, type[HasiteError]] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)

    async def _guarded(self, step: Step) -> None:
        assert isinstance(step, PowerOnDroplet)
        if step.name in self.errors:
            raise self.errors[step.name](step.name)
        self.waiting.add(step.name)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.waiting.discard(step.name)


def application(*errors: type[HasiteError]) -> Sharing:
    """The first steps fail so."""
    services = cast(Services, SimpleNamespace(wakes=SimpleNamespace(urgent=lambda *_: False)))
    site = HASite.model_validate(manifest("HASite", site_spec()))
    named = {step.name: error for step, error in zip(STEPS, errors, strict=False)}
    return Sharing(services, None, site, Machine("", "", (), ""), errors=named)


@pytest.mark.parametrize(
    ("errors", "raised"),
    [
        pytest.param([Conflict, Conflict, Conflict], Conflict, id="conflicts"),
        pytest.param([Conflict, LeadershipLost, Conflict], LeadershipLost, id="a lost leadership before a conflict"),
    ],
)
async def test_of_errors_side_by_side_one_ends_the_reconcile_and_none_goes_unheard(
    errors: list[type[HasiteError]], raised: type[HasiteError]
) -> None:
    unheard: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context["message"]))
    with pytest.raises(raised):
        await application(*errors).run(STEPS)
    gc.collect()  # asyncio tells of an error that nobody took when its task is collected
    assert unheard == []


async def test_steps_have_ended_when_the_reconcile_that_was_given_up_ends() -> None:
    sharing = application()
    run = asyncio.create_task(sharing.run(STEPS))
    while len(sharing.waiting) < len(STEPS):  # noqa: ASYNC110
        await asyncio.sleep(0)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert not sharing.waiting
