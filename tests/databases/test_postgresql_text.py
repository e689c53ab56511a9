"""What PostgreSQL's driver writes and reads, without a server."""

import math
from pathlib import Path

import pytest
from hasite.guard.engines import postgresql_kin as kin
from hasite.guard.engines import postgresql_settings as settings
from hasite.guard.engines.postgresql_look import Look, Watch
from hasite.guard.engines.postgresql_saved import read_records
from hasite.guard.engines.postgresql_server import notation, number, record_end
from hasite.guard.engines.postgresql_settings import Place
from hasite.guard.model import SyncRecord

PLACE = Place(Path("/var/lib/hasite/postgresql"), Path("/usr/lib/postgresql/15/bin"))
KIB = 1024
SEGMENT = 16 * KIB * KIB

REFUSED = {
    "durability is not the user's": ("fsync", "off"),
    "nor by another spelling": ("FSYNC", "off"),
    "who is waited for": ("synchronous_standby_names", ""),
    "acknowledgement without a standby": ("synchronous_commit", "local"),
    "a program of the user's": ("archive_command", "rm -rf /"),
    "a recovery target": ("recovery_target_time", "yesterday"),
    "a library of the user's": ("shared_preload_libraries", "pg_stat_statements, /tmp/evil"),
    "slots without a bound": ("max_slot_wal_keep_size", "-1"),
    "a second line": ("work_mem", "4MB\nfsync = off"),
    "no name": ("work_mem = 4MB #", "1"),
    "an included file": ("include 'x'", "1"),
    "a huge value": ("search_path", "x" * 1001),
}


@pytest.mark.parametrize(("name", "value"), REFUSED.values(), ids=REFUSED)
def test_a_setting_that_replication_rests_on_is_refused(name: str, value: str) -> None:
    assert settings.refusal(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("work_mem", "4MB"), ("shared_preload_libraries", "pg_stat_statements"), ("pg_stat_statements.track", "all")],
)
def test_another_setting_is_the_users(name: str, value: str) -> None:
    assert settings.refusal(name, value) is None


def test_what_replication_rests_on_comes_after_the_users_settings() -> None:
    lines = settings.server(PLACE, "a", {"work_mem": "4MB", "fsync": "off"}).splitlines()
    assert "work_mem = '4MB'" in lines and "fsync = 'off'" not in lines
    assert lines.index("work_mem = '4MB'") < lines.index("fsync = 'on'")
    assert lines[-1] == "include_if_exists = '/var/lib/hasite/postgresql/role.conf'"


SYNC = {
    "asynchronous": (SyncRecord(1, 1, frozenset(), 0), ""),
    "degraded": (SyncRecord(1, 1, frozenset("a"), 0), ""),
    "one of two others": (SyncRecord(1, 1, frozenset("abc"), 1), 'ANY 1 ("b", "c")'),
    "more than there are: none is enough": (SyncRecord(1, 1, frozenset("ab"), 2), 'ANY 2 ("b")'),
    "nobody else: none is enough": (SyncRecord(1, 1, frozenset("a"), 1), 'ANY 1 ("a/nobody")'),
    "a quote in a name": (SyncRecord(1, 1, frozenset({"a", 'b"'}), 1), 'ANY 1 ("b""")'),
}


@pytest.mark.parametrize(("record", "names"), SYNC.values(), ids=SYNC)
def test_a_primary_waits_for_whom_the_record_says(record: SyncRecord, names: str) -> None:
    assert settings.standby_names(record, "a") == names


def test_values_are_quoted_for_files_and_for_connections() -> None:
    assert settings.quoted("a'b\\c") == "'a''b\\\\c'"
    assert settings.conninfo({"host": "a", "application_name": "it's \\"}) == "host='a' application_name='it\\'s \\\\'"
    with pytest.raises(ValueError, match="control"):
        settings.quoted("a\nb")


def test_slots_of_different_members_have_different_names() -> None:
    long = "the-shop-database-of-amsterdam-"
    names = ["a-b", "a_b", "A-b", "ab", f"{long}east-1", f"{long}east-2", f"{long}{'x' * 20}1", f"{long}{'x' * 20}2"]
    assert len({settings.slot_name(name) for name in names}) == len(names)
    assert all(name.replace("_", "").isalnum() and len(name) <= 63 for name in map(settings.slot_name, names))


def test_nobody_comes_in_without_tls_and_clients_only_when_they_are_let_in() -> None:
    closed = settings.access("postgres", clients=False).splitlines()
    opened = settings.access("postgres", clients=True).splitlines()
    assert [line for line in opened if line not in closed] == [
        "local all all scram-sha-256",
        "hostssl all all all scram-sha-256",
    ]
    assert not [line for line in opened if line.startswith("host ") and not line.endswith("reject")]


def test_a_standby_starts_with_no_less_than_its_primary_had() -> None:
    control = {"max_connections setting": "300", "max_worker_processes setting": "8"}
    found = settings.at_least(control, {"max_connections": "50", "max_worker_processes": "12"})
    assert (found["max_connections"], found["max_worker_processes"]) == ("300", "12")


ENDS = {
    "within a page": (0x3000028, 114, 0x30000A0),
    "up to a page's end": (8192 - 120, 114, 8192),
    "over a page's end: its header is skipped": (8192 - 104, 114, 8192 + 24 + 16),
    "into the next segment: its header is longer": (SEGMENT - 104, 114, SEGMENT + 40 + 16),
}


@pytest.mark.parametrize(("start", "length", "end"), ENDS.values(), ids=ENDS)
def test_a_record_ends_where_the_server_says(start: int, length: int, end: int) -> None:
    assert record_end(start, length) == end


def test_positions_are_read_and_written_as_the_server_does() -> None:
    assert number("1A/2B") == (0x1A << 32) + 0x2B
    assert notation(number("16/B374D848")) == "16/B374D848"


OPEN = math.inf
FORKS = {
    "an old primary and its successor": (((1, OPEN),), ((1, 100.0), (2, OPEN)), 100),
    "two successors of one": (((1, 100.0), (2, OPEN)), ((1, 150.0), (2, OPEN)), 100),
    "two successors at the same position": (((1, 100.0), (2, OPEN)), ((1, 100.0), (3, OPEN)), 100),
    "nothing to be seen": (((1, 100.0), (2, OPEN)), ((1, 100.0), (2, OPEN)), None),
}


@pytest.mark.parametrize(("own", "other", "place"), FORKS.values(), ids=FORKS)
def test_timelines_tell_where_histories_part(own: kin.Timelines, other: kin.Timelines, place: int | None) -> None:
    assert kin.fork(own, other) == place


def test_a_timelines_history_is_read() -> None:
    text = "1\t0/3000000\tno recovery target specified\n\n2\t0/4000000\tno recovery target specified\n"
    assert kin.timelines(text, 3) == ((1, 0x3000000), (2, 0x4000000), (3, math.inf))


OWN = kin.Own("7", 1000, frozenset({1, 2}), Path(), b"log", 1)
TOLD = {
    "system": "7",
    "recovering": False,
    "position": 2000,
    "timelines": (),
    "epochs": {1: 0, 2: 0, 3: 0},
    "slot": True,
}
KIN = {
    "it has our log": ({"data": b"log"}, kin.Kin.SAME),
    "its log is another": ({"data": b"lag"}, kin.Kin.DIVERGED),
    "its log starts later": ({"data": None}, kin.Kin.OUTDATED),
    "a primary that is not as far": ({"data": None, "position": 999}, kin.Kin.DIVERGED),
    "a standby that is not as far": ({"data": None, "position": 999, "recovering": True}, kin.Kin.BEHIND),
    "a primary that knows nothing of our reign": ({"data": b"log", "epochs": {1: 0, 3: 0}}, kin.Kin.DIVERGED),
    "another database": ({"data": b"log", "system": "8"}, kin.Kin.FOREIGN),
}


@pytest.mark.parametrize(("told", "relation"), KIN.values(), ids=KIN)
def test_histories_are_compared(told: dict[str, object], relation: kin.Kin) -> None:
    assert kin.kinship(OWN, kin.Upstream(**{**TOLD, **told})) is relation  # type: ignore[arg-type]


RECORDS = """\
rmgr: Heap        len (rec/tot):     59/    59, tx:        735, lsn: 0/1, prev 0/0, desc: INSERT off 2 flags 0x00, \
blkref #0: rel 1663/5/16384 blk 0
rmgr: Btree       len (rec/tot):     64/    64, tx:        735, lsn: 0/2, prev 0/1, desc: INSERT_LEAF off 1, \
blkref #0: rel 1663/5/16388 blk 1
rmgr: Heap        len (rec/tot):     59/    59, tx:        736, lsn: 0/3, prev 0/2, desc: UPDATE off 2, \
blkref #0: rel 1663/5/16400 blk 0
rmgr: Transaction len (rec/tot):     34/    34, tx:        735, lsn: 0/4, prev 0/3, desc: COMMIT 2026-01-01 00:00:00; \
subxacts: 740 741; inval msgs
rmgr: Transaction len (rec/tot):     34/    34, tx:        736, lsn: 0/5, prev 0/4, desc: ABORT 2026-01-01 00:00:00
"""


def test_only_committed_changes_count_as_had() -> None:
    changes = read_records(RECORDS.splitlines())
    assert changes.commits == 1
    assert changes.transactions == {"735", "740", "741"}
    assert changes.touched == {(5, 1663, 16384)}


def look(**values: object) -> Look:
    seen = {
        "received": 100,
        "replayed": 100,
        "epoch": 1,
        "sender": "a",
        "streaming": True,
        "heard": "t",
        "waiting": False,
        "streamed": True,
    }
    rest = {"upstream_end": 100, "behind_seconds": 9.0, "paused": False, "read_only": True, "followers": frozenset()}
    return Look(recovering=True, **{**seen, **rest, **values})  # type: ignore[arg-type]


def test_a_stream_that_says_nothing_for_two_seconds_is_not_live_whatever_the_servers_clock_says() -> None:
    now = [10.0]
    watch = Watch(lambda: now[0])
    assert watch.live(look(heard="12:00"))
    now[0] += 1.9
    assert watch.live(look(heard="12:00"))
    now[0] += 0.2
    assert not watch.live(look(heard="12:00"))
    assert watch.live(look(heard="11:00"))


def test_a_log_that_ends_within_a_record_is_drained_when_the_recovery_has_looked_for_more_in_vain() -> None:
    now = [10.0]
    watch = Watch(lambda: now[0])
    cut = look(received=120, sender=None, waiting=True)
    assert not watch.drained(cut)
    now[0] += 0.12
    assert watch.drained(cut)
    assert not watch.drained(look(received=120, sender=None, waiting=False))


def test_a_server_that_was_started_is_drained_when_it_waits_for_more_where_it_waited_before() -> None:
    now = [10.0]
    watch = Watch(lambda: now[0])

    def drained(**values: object) -> bool:
        now[0] += 0.01
        return watch.drained(look(sender=None, streamed=False, **values))

    assert not drained(waiting=False)
    assert not drained(waiting=True)
    assert not drained(waiting=True, received=101, replayed=101)
    assert drained(waiting=True, received=101, replayed=101)
    assert not drained(waiting=False, received=101, replayed=101)


def test_lag_is_what_it_was_when_the_stream_broke() -> None:
    now = [10.0]
    watch = Watch(lambda: now[0])
    assert watch.database(look(sender=None, streaming=False), None).lag_seconds is None
    assert watch.database(look(replayed=90), "a").lag_seconds == 9.0
    assert watch.database(look(replayed=90, streaming=False, behind_seconds=60.0), "a").lag_seconds == 9.0
    assert watch.database(look(), "a").lag_seconds == 0.0
