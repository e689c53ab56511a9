"""Conditions and columns."""

from dataclasses import replace
from typing import Any

import pytest
from hasite.api.common import Condition
from hasite.api.hasite import HASiteStatus
from hasite.api.loadbalancerpool import LoadBalancerPool, LoadBalancerPoolStatus
from hasite.plan.failover import Publication
from hasite.plan.pool import PoolPlan, members_of, plan_pool
from hasite.plan.site import members_of as site_members
from hasite.plan.site import plan_site
from hasite.plan.status import Problem, condition, kstatus, machine_problems, merge, pool_report, site_report
from hasite.plan.steps import Refusal
from hasite.plan.world import Impostor, MachineView, Probe, Unknown

from tests.plan.build import (
    AMSTERDAM,
    NEW_YORK,
    NOW,
    A,
    B,
    address,
    answer,
    machine,
    pool_world,
    record,
    server_status,
    serving_pool,
    serving_site,
    site_world,
)

STALLED, MENDING = Problem("Broken", "a person must act", True), Problem("Busy", "it will pass")

KSTATUS: dict[str, tuple[list[Problem], str | None, tuple[str, str, str], str]] = {
    "all is well": ([], None, ("True", "False", "False"), "Ready"),
    "it is on its way": ([], "creating", ("False", "True", "False"), "Progressing"),
    "a problem that passes": ([MENDING], None, ("False", "False", "False"), "Busy"),
    "a problem that a person must mend": ([STALLED], None, ("False", "False", "True"), "Broken"),
    "the gravest problem is the reason": ([MENDING, STALLED], "creating", ("False", "True", "True"), "Broken"),
}


@pytest.mark.parametrize(("problems", "progress", "truths", "reason"), KSTATUS.values(), ids=KSTATUS)
def test_kstatus(problems: list[Problem], progress: str | None, truths: tuple[str, ...], reason: str) -> None:
    conditions = kstatus(problems, progress)
    assert tuple(c.type for c in conditions) == ("Ready", "Reconciling", "Stalled")
    assert tuple(c.status for c in conditions) == truths
    assert conditions[0].reason == reason


def test_a_transition_time_changes_only_with_the_status() -> None:
    before = (Condition(type="Ready", status="True", reason="Ready", last_transition_time="then"),)
    same = merge(before, (condition("Ready", True, "Other"),), 2, "now")[0]
    assert (same.last_transition_time, same.reason, same.observed_generation) == ("then", "Other", 2)
    assert merge(before, (condition("Ready", False, "Broken"),), 2, "now")[0].last_transition_time == "now"
    assert merge((), (condition("Ready", True, "Ready"),), 2, "now")[0].last_transition_time == "now"


FAILED = MachineView("key", "error", NOW, cloud_init_error="E: no package haproxy")
MACHINES: dict[str, tuple[dict[str, Any], MachineView | Impostor | Unknown, str | None]] = {
    "set up": ({}, machine(), None),
    "silent": ({}, Unknown("no answer"), None),
    "its bootstrap failed": ({"served": False}, FAILED, "BootstrapFailed"),
    "it serves although its bootstrap failed": ({}, FAILED, None),
    "it shows a foreign host key": ({}, Impostor("SHA256:x"), "HostKeyMismatch"),
    "it shows a stray host key while its bootstrap runs": ({"host_key": None}, Impostor("SHA256:x"), None),
}


@pytest.mark.parametrize(("more", "view", "reason"), MACHINES.values(), ids=MACHINES)
def test_a_machine(more: dict[str, Any], view: MachineView | Impostor | Unknown, reason: str | None) -> None:
    of = record(**more)
    assert [p.reason for p in machine_problems([of], {of.name: view})] == ([reason] if reason else [])


def test_a_failed_bootstrap_is_told_in_its_own_words() -> None:
    assert "E: no package haproxy" in machine_problems([record(served=False)], {record().name: FAILED})[0].message


def report(of: LoadBalancerPool, plan: PoolPlan | None = None, **more: Any) -> LoadBalancerPoolStatus:
    world = pool_world(of, **more)
    plan = plan or plan_pool(of, world)
    members = members_of(of, world, plan.status.droplets, Publication(plan.status.addresses, None))
    return pool_report(of, world, plan, (), members)


def truths(status: LoadBalancerPoolStatus | HASiteStatus) -> dict[str, str]:
    return {c.type: c.status for c in status.conditions}


def reason(status: LoadBalancerPoolStatus | HASiteStatus, kind: str = "Ready") -> str:
    return next(c.reason for c in status.conditions if c.type == kind)


def test_a_pool_at_rest_is_ready_and_says_so_in_its_columns() -> None:
    status = report(serving_pool())
    assert truths(status) == {
        "Ready": "True",
        "Reconciling": "False",
        "Stalled": "False",
        "DNSPublished": "True",
        "DegradedLocation": "False",
        "Blind": "False",
    }
    assert (status.locations_ready, status.load_balancers_ready) == ("2/2", "2/2")
    assert status.published == ",".join(sorted((A, B)))


def test_what_a_name_server_does_not_give_yet_is_not_called_published() -> None:
    status = report(serving_pool(), answers={"1": answer(A, B), "2": answer(B), "3": Unknown("no answer")})
    assert status.published == B
    assert truths(status)["DNSPublished"] == "False"


def test_while_no_name_server_answers_the_published_set_is_what_it_was() -> None:
    of = serving_pool()
    known = of.model_copy(update={"status": of.status.model_copy(update={"published": A})})
    assert report(known, answers={"1": Unknown("no answer")}).published == A


def test_a_lost_location_is_told() -> None:
    out = address(A, "Withdrawn", since=NOW - 9, withdrawals=(NOW - 9,), reason="neither reaches it")
    of = serving_pool(addresses=[out, address(B)])
    world = pool_world(of)
    status = report(of, probes={**world.probes, A: Probe(False, NOW, "no answer in time")})
    assert truths(status)["DegradedLocation"] == "True"
    assert truths(status)["Stalled"] == "False"
    assert reason(status) == "LocationDown"
    assert status.locations_ready == "1/2"
    message = next(c.message for c in status.conditions if c.type == "DegradedLocation")
    assert message == "neither reaches it"


def test_an_address_that_was_replaced_is_no_lost_location() -> None:
    flapped = address(A, "Withdrawn", since=NOW - 9, withdrawals=(NOW - 300,))
    of = serving_pool(droplets=[record(leaving_since=NOW - 9), record(AMSTERDAM)], addresses=[flapped, address(B)])
    assert truths(report(of))["DegradedLocation"] == "False"


def test_a_refusal_reaches_the_condition_word_for_word() -> None:
    of = serving_pool()
    plan = replace(plan_pool(of, pool_world(of)), refusals=(Refusal("ForeignRecords", "shop is not ours"),))
    ready = next(c for c in report(of, plan).conditions if c.type == "Ready")
    assert (ready.status, ready.reason, ready.message) == ("False", "ForeignRecords", "shop is not ours")


def test_a_refused_configuration_is_told_in_the_checkers_words() -> None:
    status = report(serving_pool(), rejected={record().name: "unknown keyword 'x' in 'global' section"})
    assert reason(status, "Stalled") == "ConfigurationRejected"


def test_an_operator_that_reaches_nothing_says_that_it_is_blind() -> None:
    of = serving_pool()
    down = dict.fromkeys((A, B), Probe(False, NOW, "no answer in time"))
    silent = dict.fromkeys((r.name for r in of.status.droplets), Unknown("no answer"))
    assert truths(report(of, probes=down, machines=silent))["Blind"] == "True"
    assert truths(report(of, probes=down))["Blind"] == "False"


def test_a_pool_report_is_the_same_at_every_look() -> None:
    of = serving_pool()
    assert report(of) == report(of, now=NOW + 1000, probes={a: Probe(True, NOW + 999) for a in (A, B)})


def site_status(**pool_status: Any) -> HASiteStatus:
    of = serving_site()
    world = site_world(of)
    assert world.pool is not None
    ready = (condition("Ready", True, "Ready"), condition("DNSPublished", True, "Published"))
    values = {"conditions": ready, "published": f"{A},{B}", "locations_ready": "2/2", "load_balancers_ready": "2/2"}
    status = world.pool.status.model_copy(update=values | pool_status)
    world = replace(world, pool=world.pool.model_copy(update={"status": status}))
    return site_report(of, world, plan_site(of, world), (), site_members(of, world))


def test_a_site_is_ready_when_its_apps_serve_and_its_pool_is_ready() -> None:
    status = site_status()
    assert truths(status)["Ready"] == "True"
    assert truths(status)["DNSPublished"] == "True"
    assert (status.apps_ready, status.locations_ready, status.published) == ("2/2", "2/2", f"{A},{B}")


def test_a_site_is_not_ready_before_its_pool_is() -> None:
    assert truths(site_status(conditions=(condition("Ready", False, "Progressing", "waits"),)))["Ready"] == "False"


def test_a_site_tells_the_problem_of_its_pool() -> None:
    broken = (condition("Ready", False, "ForeignRecords", "not ours"), condition("Stalled", True, "ForeignRecords"))
    status = site_status(conditions=broken)
    assert reason(status) == "ForeignRecords"
    assert truths(status)["Stalled"] == "True"


def test_a_site_counts_the_apps_that_serve() -> None:
    ill = server_status(record(NEW_YORK, role="app"), healthy=False)
    status = site_status(servers=(ill, server_status(record(AMSTERDAM, role="app"))))
    assert status.apps_ready == "1/2"
    assert truths(status)["AppsAvailable"] == "False"
    assert truths(status)["Ready"] == "False"
