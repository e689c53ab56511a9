"""Whole guards, as processes: three members at three locations, with a toy database each."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest
from hasite.guard.model import Membership

from tests.guard import groups
from tests.guard.toy.cluster import Cluster, Node, accepted
from tests.guard.waiting import wait

pytestmark = [
    pytest.mark.skipif(not groups.possible(), reason="no control group can be made here"),
    pytest.mark.timeout(120),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster"), ("a", "b", "c")) as made:
        yield made


@pytest.fixture
def cluster(shared: Cluster) -> Iterator[Cluster]:
    """In order, and brought back into it after the test."""
    settle(shared)
    yield shared
    shared.revive()


def settle(cluster: Cluster) -> Node:
    """Until there is a primary that the others follow, and every voter knows that they do."""
    try:
        wait(cluster.settled, 30)
    except TimeoutError:
        pytest.fail(cluster.logs())
    found = cluster.primary()
    assert found is not None
    return found


def test_a_cluster_makes_its_database_and_takes_writes(cluster: Cluster) -> None:
    primary = settle(cluster)
    assert primary.write("hello").startswith("OK")
    wait(lambda: all("hello" in node.history() for node in cluster.nodes.values()))
    assert sum(node.write("x").startswith("OK") for node in cluster.nodes.values()) == 1


def test_when_the_primarys_machine_dies_another_takes_over_within_eight_seconds(cluster: Cluster) -> None:
    primary = settle(cluster)
    done = [value for value in map(str, range(50)) if primary.write(value).startswith("OK")]
    cluster.crash(primary.name)
    heir, seconds = accepted(cluster, "after", but=primary.name)
    assert heir.name != primary.name
    assert seconds < 8.0, cluster.logs()
    assert [value for value in done if value not in heir.history()] == []


def test_a_machine_that_comes_back_is_taken_in_as_a_standby(cluster: Cluster) -> None:
    primary = settle(cluster)
    cluster.crash(primary.name)
    heir, _ = accepted(cluster, "after", but=primary.name)
    cluster.start(primary.name)
    assert settle(cluster).name == heir.name
    wait(lambda: primary.history() == heir.history())


def test_a_primary_whose_guard_is_stopped_is_dead_before_another_accepts(cluster: Cluster) -> None:
    primary = settle(cluster)
    assert primary.guard is not None
    died: list[float] = []

    def watch() -> None:
        wait(lambda: not primary.server(), 20)
        died.append(time.monotonic())

    watcher = threading.Thread(target=watch)
    watcher.start()
    os.kill(primary.guard.pid, signal.SIGSTOP)
    _, seconds = accepted(cluster, "after", but=primary.name)
    taken = time.monotonic()
    watcher.join()
    assert died and died[0] < taken
    assert seconds < 6.0
    os.kill(primary.guard.pid, signal.SIGCONT)
    assert settle(cluster) is not primary
    assert not primary.write("never").startswith("OK")


def test_a_primary_that_is_cut_off_fences_itself(cluster: Cluster) -> None:
    """Both others are stopped: nobody vouches, and nobody may take over."""
    primary = settle(cluster)
    for node in cluster.nodes.values():
        if node is not primary and node.guard is not None:
            os.kill(node.guard.pid, signal.SIGSTOP)
    wait(lambda: primary.page("/primary") == 503, 4.0)
    wait(lambda: not primary.write("late").startswith("OK"), 1.0)
    for node in cluster.nodes.values():
        if node is not primary and node.guard is not None:
            os.kill(node.guard.pid, signal.SIGCONT)
    settle(cluster)


def test_a_guard_that_is_killed_and_restarted_costs_no_data(cluster: Cluster) -> None:
    primary = settle(cluster)
    done = [value for value in map(str, range(20)) if primary.write(value).startswith("OK")]
    assert primary.guard is not None
    primary.guard.kill()
    primary.guard.wait()
    if primary.fuse is not None:
        primary.fuse.kill()
        primary.fuse.wait()
    cluster.start(primary.name)
    heir, _ = accepted(cluster, "after")
    settle(cluster)
    assert [value for value in done if value not in heir.history()] == []


def test_a_guard_that_is_asked_to_end_hands_over_first(cluster: Cluster) -> None:
    primary = settle(cluster)
    done = [value for value in map(str, range(20)) if primary.write(value).startswith("OK")]
    before = len(primary.log())
    assert primary.guard is not None
    primary.guard.terminate()
    heir, _ = accepted(cluster, "after", but=primary.name)
    assert primary.guard.wait(20) == 0
    told = primary.log()[before:]
    assert "is to end: hands over" in told
    assert "lease is over" not in told
    assert not primary.server()
    assert [value for value in done if value not in heir.history()] == []


def test_a_guard_whose_vote_is_damaged_does_not_vote(cluster: Cluster) -> None:
    primary = settle(cluster)
    other = next(node for node in cluster.nodes.values() if node is not primary)
    assert other.guard is not None
    other.guard.kill()
    other.guard.wait()
    vote = (other.root / "vote.json").read_text()
    (other.root / "vote.json").write_text("{}")
    cluster.start(other.name)
    try:
        assert other.guard.wait(10) != 0
    finally:
        (other.root / "vote.json").write_text(vote)
    assert "checksum" in other.log()
    assert primary.page("/primary") == 200


def test_a_guard_that_cannot_store_its_vote_ends(cluster: Cluster) -> None:
    primary = settle(cluster)
    other = next(node for node in cluster.nodes.values() if node is not primary)
    assert other.guard is not None
    (other.root / "vote.json.new").mkdir()
    cluster.crash(primary.name)
    try:
        assert other.guard.wait(20) != 0
    finally:
        (other.root / "vote.json.new").rmdir()
    assert "can't be stored" in other.log()


def test_new_settings_are_taken_in_and_those_that_do_not_fit_are_not(cluster: Cluster) -> None:
    primary = settle(cluster)
    wider = Membership(2, cluster.settings("a").membership.members, cluster.members)
    cluster.reconfigure(membership=wider)
    wait(
        lambda: all((node.status().get("vote") or {})["membership"]["version"] == 2 for node in cluster.nodes.values())
    )
    cluster.reconfigure(membership=wider, engine="mysql")
    wait(lambda: all("engine can't change" in node.log() for node in cluster.nodes.values()))
    assert primary.page("/primary") == 200
