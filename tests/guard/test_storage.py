"""The vote on disk."""

import json
import os
from pathlib import Path

import pytest
from hasite.guard.model import Member, Membership, SyncRecord, Vote
from hasite.guard.storage import DamagedVote, VoteStore

VOTE = Vote(
    7,
    "a",
    Membership(2, (Member("a", "here", "192.0.2.1"), Member("b", "there", "2001:db8::2")), ("a", "b", "operator")),
    SyncRecord(7, 1, frozenset({"a", "b"}), 1),
)


def store(tmp_path: Path) -> VoteStore:
    return VoteStore(tmp_path / "vote.json", tmp_path / "data")


def test_a_guard_that_never_voted_starts_from_nothing(tmp_path: Path) -> None:
    assert store(tmp_path).load() == Vote()
    assert (tmp_path / "vote.json").exists()


def test_a_vote_is_read_as_it_was_stored(tmp_path: Path) -> None:
    store(tmp_path).store(VOTE)
    assert store(tmp_path).load() == VOTE


def test_a_vote_that_was_changed_by_another_hand_is_no_vote(tmp_path: Path) -> None:
    store(tmp_path).store(VOTE)
    path = tmp_path / "vote.json"
    value = json.loads(path.read_text())
    value["vote"]["epoch"] = 6
    path.write_text(json.dumps(value))
    with pytest.raises(DamagedVote, match="checksum"):
        store(tmp_path).load()


@pytest.mark.parametrize("text", [b"", b"{}", b"null", b"\x00" * 400, b'{"checksum": "0", "vote": {}}'])
def test_a_damaged_vote_is_never_read_as_none(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "vote.json").write_bytes(text)
    with pytest.raises(DamagedVote):
        store(tmp_path).load()


def test_every_torn_write_is_known_as_damage(tmp_path: Path) -> None:
    store(tmp_path).store(VOTE)
    path = tmp_path / "vote.json"
    whole = path.read_bytes()
    for length in range(len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedVote):
            store(tmp_path).load()


def test_a_member_with_data_and_no_vote_may_have_voted(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(DamagedVote, match="gone"):
        store(tmp_path).load()


def test_file_and_folder_are_synced_before_a_vote_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    sync, rename = os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        sync(descriptor)

    def renamed(old: Path, new: Path) -> None:
        done.append("rename")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", renamed)
    store(tmp_path).store(VOTE)
    assert done == ["file", "rename", "folder"]


def test_a_disk_that_fails_is_an_error_and_the_old_vote_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path).store(VOTE)

    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", broken)
        with pytest.raises(OSError, match="Input"):
            store(tmp_path).store(Vote(8, "b"))
    assert store(tmp_path).load() == VOTE
