"""`kubectl hasite status` and `kubectl hasite plan`: what a person reads."""

import json

import pytest
from hasite import cli
from hasite.api.common import Condition
from hasite.cli.overview import good
from hasite.cli.tree import ago, coloured, plain
from hasite.errors import Permanent

from tests.cli import scene
from tests.fakes.kube import FakeKube
from tests.golden import assert_golden


async def shown(kube: FakeKube, command: str, name: str = "shop", output: str = "tree") -> str:
    seen = await cli.look(kube, name, scene.NAMESPACE)
    return cli.show(seen, command, output, plain, scene.NOW) + "\n"


async def test_status_is_a_tree_of_all_that_is_below_a_site() -> None:
    assert_golden("cli-status-at-rest.txt", await shown(scene.at_rest(), "status"))


async def test_status_of_a_site_in_trouble_says_what_is_wrong_where_and_since_when() -> None:
    assert_golden("cli-status-location-lost.txt", await shown(scene.new_york_lost(), "status"))


async def test_plan_numbers_the_steps_with_their_reasons() -> None:
    assert_golden("cli-plan-location-lost.txt", await shown(scene.new_york_lost(), "plan"))


async def test_plan_at_rest_has_nothing_to_do() -> None:
    assert (await shown(scene.at_rest(), "plan")).count("nothing to do") == 2


async def test_plan_of_an_observed_site_says_that_it_is_not_carried_out() -> None:
    steps = ["CreateDroplet shop-app-new-york-0: it is wanted"]
    kube = scene.kube(scene.site([], policy="Observe", plan=steps), None)
    text = await shown(kube, "plan")
    assert "1 step would be done (managementPolicy: Observe)" in text
    assert "1. CreateDroplet shop-app-new-york-0: it is wanted" in text


async def test_a_refusal_is_shown_word_for_word() -> None:
    words = "shop.example.com has records that are not ours (203.0.113.9): delete them, or choose another name"
    kube = scene.kube(scene.site([scene.condition("Stalled", "True", "ForeignRecords", words)]), None)
    for command in ("status", "plan"):
        assert f"stalled: ForeignRecords: {words}" in await shown(kube, command)


async def test_a_spec_that_the_operator_has_not_seen_yet_is_said_to_be_so() -> None:
    kube = scene.kube(scene.site([scene.condition("Ready", "True", "Ready")], generation=2), None)
    text = await shown(kube, "status")
    assert "not looked at yet" in text
    assert "waiting: the operator has not looked at the latest change of the spec yet" in text


async def test_what_a_deletion_left_behind_is_shown() -> None:
    kube = scene.kube(scene.site([], leftBehind="droplet 7 in nyc3"), None)
    assert "left behind: droplet 7 in nyc3" in await shown(kube, "status")


async def test_a_pool_without_a_site_shows_the_servers_that_its_spec_names() -> None:
    healthy = {"name": "blog-1", "state": "Active", "healthy": True}
    text = await shown(scene.kube(None, scene.pool([], servers=[healthy])), "status", "lbp/shop")
    assert "blog-1  active, healthy" in text


@pytest.mark.parametrize("name", ["shop", "hasites/shop", "HASite/shop", "has/shop"])
async def test_a_site_is_named_as_kubectl_would(name: str) -> None:
    assert "HASite default/shop" in await shown(scene.at_rest(), "status", name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("blog", 'hasites.hasite.dev "blog" not found in namespace default'),
        ("lbp/blog", 'loadbalancerpools.hasite.dev "blog" not found in namespace default'),
        ("pod/shop", "pod is no kind of HASite"),
    ],
)
async def test_what_is_not_there_is_an_error_that_names_it(name: str, words: str) -> None:
    with pytest.raises(Permanent, match=words):
        await shown(scene.at_rest(), "status", name)


async def test_json_has_the_machines_with_the_names_of_the_resources_fields() -> None:
    whole = json.loads(await shown(scene.new_york_lost(), "status", output="json"))
    new_york = whole["places"][0]
    assert new_york["loadBalancers"][0]["dropletId"] == 11
    assert new_york["loadBalancers"][0]["addresses"][0]["state"] == "Withdrawn"
    assert whole["parts"][0]["waitingFor"] == "shop-app-new-york-0 does not serve yet"
    assert set(json.loads(await shown(scene.new_york_lost(), "plan", output="json"))) == {"parts"}


async def test_colours_are_not_used_unless_they_are_asked_for() -> None:
    seen = await cli.look(scene.new_york_lost(), "shop", scene.NAMESPACE)
    assert "\x1b" not in cli.show(seen, "status", "tree", plain, scene.NOW)
    assert "\x1b[31;1mWithdrawn\x1b[0m" in cli.show(seen, "status", "tree", coloured, scene.NOW)


NASTY = "a\x1b[2Jb\x1b]0;title\x07c\x9b31md\re\nf\u202eg\u200bh\x7fi"
SPELLED = r"a\x1b[2Jb\x1b]0;title\x07c\x9b31md e f\u202eg\u200bh\x7fi"


def said_everywhere(words: str) -> FakeKube:
    """Every free text of both objects is ``words``."""
    conditions = [scene.condition(kind, "True", "Reason", words) for kind in ("Reconciling", "Stalled")]
    lost = scene.address("192.0.2.11", "new-york", "Withdrawn", words)
    server = {"name": words, "state": "Active", "healthy": True}
    balancer = scene.droplet("shop-lb-new-york-0", "new-york", 11, template=words)
    return scene.kube(
        scene.site(conditions, plan=[words], leftBehind=words, published=words),
        scene.pool(conditions, droplets=[balancer], addresses=[lost], servers=[server], plan=[words]),
    )


@pytest.mark.parametrize("name", ["shop", "lbp/shop"])
@pytest.mark.parametrize("command", ["status", "plan"])
async def test_words_of_machines_cannot_steer_the_terminal_and_nothing_of_them_is_hidden(
    command: str, name: str
) -> None:
    text = await shown(said_everywhere(NASTY), command, name)
    assert all(line.isprintable() for line in text.split("\n"))
    assert f"stalled: Reason: {SPELLED}" in text


async def test_words_in_many_scripts_are_shown_as_they_are() -> None:
    words = "dépôt übersetzt, 東京, no answer — 3 s"
    assert f"stalled: Reason: {words}" in await shown(said_everywhere(words), "status")


async def test_json_cannot_steer_the_terminal_either_and_a_program_reads_what_was_said() -> None:
    words = NASTY + "\U000e0041 東京"
    text = await shown(said_everywhere(words), "status", output="json")
    assert all(line.isprintable() for line in text.split("\n"))
    assert "東京" in text
    assert json.loads(text)["parts"][0]["conditions"][0]["message"] == words


def test_an_error_cannot_steer_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nonexistent/\x1b[2J")
    cli.main(["status", "shop"])
    assert capsys.readouterr().err.startswith(r"error: /nonexistent/\x1b[2J: ")


@pytest.mark.parametrize(
    ("kind", "status", "fine"),
    [
        ("Ready", "True", True),
        ("Ready", "Unknown", False),
        ("Stalled", "True", False),
        ("DegradedLocation", "False", True),
    ],
)
def test_some_conditions_are_good_when_they_are_false(kind: str, status: str, fine: bool) -> None:
    assert good(Condition.model_validate({"type": kind, "status": status, "reason": "R"})) is fine


@pytest.mark.parametrize(
    ("seconds", "text"), [(-3, "0s"), (119, "119s"), (120, "2m"), (10799, "179m"), (10800, "3h"), (200_000, "2d")]
)
def test_ages_are_written_as_kubectl_does(seconds: float, text: str) -> None:
    assert ago(seconds) == text


def test_a_kubeconfig_that_is_not_there_is_one_line_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nonexistent/config")
    assert cli.main(["status", "shop"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: /nonexistent/config: ")
