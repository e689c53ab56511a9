"""What a database's status says, and that it holds still while nothing happens."""

import pytest
from hasite.api.common import Condition
from hasite.plan.database import plan_database
from hasite.plan.databasestatus import database_report, steady

from tests.plan.database_build import AMSTERDAM, beat, member, reigning, world

HEIR = member(AMSTERDAM, 1).name


def refused(before: tuple[Condition, ...], reason: str) -> Condition:
    """FailoverRefused, when the standby says so."""
    of = reigning(status={"conditions": before})
    seen = world(of, heard={HEIR: beat(HEIR, member("new-york", 0).name, refusal=reason)})
    conditions = database_report(of, seen, plan_database(of, seen), ()).conditions
    return next(each for each in conditions if each.type == "FailoverRefused")


def test_a_refusal_whose_figures_alone_change_does_not_change_the_status() -> None:
    first = refused((), "7.3 s behind, 2 s allowed; a unheard")
    assert first.message == f"{HEIR}: 7.3 s behind, 2 s allowed; a unheard"
    assert refused((first,), "7.9 s behind, 2 s allowed; a unheard") == first


def test_another_reason_is_told() -> None:
    first = refused((), "7.3 s behind, 2 s allowed; a unheard")
    assert refused((first,), "no answer from a").message == f"{HEIR}: no answer from a"


SAME = {
    "how far a copy is": ("c: 1024/39481 kB (2%), 0/1 tablespace", "c: 30512/39481 kB (77%), 0/1 tablespace"),
    "how long ago": ("b: a reigns and said so 0.1 s ago", "b: a reigns and said so 1.4 s ago"),
}
OTHER = {
    "another member": ("no answer from shop-db-1", "no answer from shop-db-2"),
    "another epoch": ("epoch 3 is granted to a", "epoch 4 is granted to a"),
    "another number of members": ("1 of 2 members replicate", "2 of 2 members replicate"),
}


@pytest.mark.parametrize("case", SAME)
def test_measured_figures_are_no_news(case: str) -> None:
    one, other = (Condition(type="Ready", status="False", reason="X", message=text) for text in SAME[case])
    assert steady((one,), (other,)) == (one,)


@pytest.mark.parametrize("case", OTHER)
def test_other_figures_are(case: str) -> None:
    one, other = (Condition(type="Ready", status="False", reason="X", message=text) for text in OTHER[case])
    assert steady((one,), (other,)) == (other,)


def test_a_figure_is_told_anew_when_the_condition_has_changed_in_between() -> None:
    one, other = (
        Condition(type="Ready", status=s, reason="X", message=f"{n} s behind") for s, n in (("True", 1), ("False", 2))
    )
    assert steady((one,), (other,)) == (other,)
