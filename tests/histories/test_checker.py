"""What the history checker finds, and what it must not take for a fault."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e.histories import Operation, check, dump, load


def append(value: int, at: float = 0.0, outcome: str = "ok", node: str = "a", epoch: int = 1) -> Operation:
    return Operation("c", "append", outcome, at, at + 0.5, key=1, value=value, node=node, epoch=epoch)  # type: ignore[arg-type]


def read(*found: int, at: float = 0.0) -> Operation:
    return Operation("c", "read", "ok", at, at + 0.5, key=1, found=found, node="a", epoch=1)


def total(value: int) -> Operation:
    return Operation("c", "sum", "ok", 0.0, 0.5, value=value, node="a", epoch=1)


CASES = [
    ("a clean history", [append(1), append(2, 1), read(1), read(1, 2)], [1, 2], []),
    ("an unknown append that came through", [append(1), append(2, 1, "unknown")], [1, 2], []),
    ("an unknown append that did not", [append(1), append(2, 1, "unknown")], [1], []),
    ("an acknowledged append that is gone", [append(1), append(2, 1)], [1], ["lost"]),
    ("two reads that tell two histories", [append(1), append(2), read(1), read(2, 1)], [2, 1], ["diverged"]),
    ("a read that the end contradicts", [append(1), append(2), read(1, 2)], [2, 1], ["diverged"]),
    ("a refused append that is found", [append(1), append(2, 1, "failed")], [1, 2], ["resurrected"]),
    ("a refused append that was seen once", [append(1), append(2, 1, "failed"), read(1, 2)], [1],
     ["diverged", "resurrected"]),
    ("a value from nowhere", [append(1)], [1, 9], ["invented"]),
    ("a value twice", [append(1)], [1, 1], ["invented"]),
    ("two nodes in one epoch", [append(1), append(2, 1, node="b")], [1, 2], ["two primaries"]),
    ("a failover", [append(1), append(2, 1, node="b", epoch=2)], [1, 2], []),
    ("two reigns that touch while both were asked", [append(1), append(2, 0.3, node="b", epoch=2)], [1, 2], []),
    ("an old primary that answers again", [append(1, 2), append(2, 1, node="b", epoch=2)], [1, 2],
     ["epoch went back"]),
    ("money that vanished", [append(1), total(99)], [1], ["money"]),
    ("money that is all there", [append(1), total(100)], [1], []),
]  # fmt: skip


@pytest.mark.parametrize(("history", "final", "rules"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_checker_finds(history: Sequence[Operation], final: Sequence[int], rules: Sequence[str]) -> None:
    assert sorted({violation.rule for violation in check(history, {1: final}, 100)}) == sorted(rules)


def test_a_history_without_an_acknowledged_append_proves_nothing() -> None:
    with pytest.raises(ValueError, match="nothing was tested"):
        check([append(1, outcome="unknown")], {1: ()}, 100)


@given(st.integers(1, 40), st.randoms(use_true_random=False))
def test_one_list_served_in_order_is_never_found_fault_with(length: int, chance: random.Random) -> None:
    history: list[Operation] = []
    served: list[int] = []
    for value in range(length):
        outcome = chance.choice(["ok", "ok", "unknown", "failed"]) if value else "ok"
        if outcome == "ok" or (outcome == "unknown" and chance.random() < 0.5):
            served.append(value)
        history.append(append(value, float(value), outcome))
        if chance.random() < 0.5:
            history.append(read(*served, at=value + 0.6))
    assert check(history, {1: served}, 0) == []


@given(st.integers(2, 40), st.randoms(use_true_random=False))
def test_one_lost_value_is_always_found(length: int, chance: random.Random) -> None:
    history = [append(value, float(value)) for value in range(length)]
    final = list(range(length))
    del final[chance.randrange(length)]
    assert "lost" in {violation.rule for violation in check(history, {1: final}, 0)}


def test_operations_survive_their_way_through_a_file() -> None:
    history = [append(1), read(1, 2), total(3)]
    assert list(load([*(dump(op) for op in history), "\n"])) == history
