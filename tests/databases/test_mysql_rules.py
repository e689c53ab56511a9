"""What MariaDB's and MySQL's drivers decide without a server: forks, names, settings, sets of transactions."""

import socket
import struct

import pytest
from hasite.guard.engines import mariadb_settings, mysql_settings
from hasite.guard.engines.mysqlcommon import DENIED_COMMON, History, Reign, fork, option_lines, quoted, server_ids
from hasite.guard.engines.mysqlcommon_gtids import difference, parse, size
from hasite.guard.engines.mysqlcommon_links import address, silent_peers
from hypothesis import given
from hypothesis import strategies as some

ONE, TWO = Reign(1, "alpha", 11, 0), Reign(2, "beta", 22, 100)
LONELY_TWO = Reign(2, "alpha", 11, 101)
THREE = Reign(3, "beta", 22, 100)

FORKS = {
    "a follower that is behind in the same epoch": (History((ONE,), 90), History((ONE,), 95), None),
    "a follower that has as much as the primary": (History((ONE,), 95), History((ONE,), 95), None),
    "a follower of the epoch before, within what the new primary had": (
        History((ONE,), 100),
        History((ONE, TWO), 130),
        None,
    ),
    "an old primary with more than the new one took over": (History((ONE,), 103), History((ONE, TWO), 130), 100),
    "one that has more than its primary": (History((ONE,), 99), History((ONE,), 95), 95),
    "an epoch that nobody else knows": (History((ONE, LONELY_TWO), 105), History((ONE, THREE), 120), 100),
    "an epoch that nobody else knows, begun earlier": (
        History((ONE, Reign(2, "gamma", 33, 80)), 85),
        History((ONE, THREE), 120),
        80,
    ),
    "histories without a common epoch": (History((ONE,), 5), History((THREE,), 5), 0),
    "a database in which nobody ever ruled": (History((), 3), History((ONE,), 5), None),
}


@pytest.mark.parametrize("case", FORKS, ids=str)
def test_where_two_histories_part(case: str) -> None:
    own, theirs, expected = FORKS[case]
    assert fork(own, theirs) == expected


@given(some.lists(some.text(min_size=1, max_size=30), unique=True, max_size=40))
def test_every_member_has_a_server_id_of_its_own(names: list[str]) -> None:
    given_ids = server_ids(names)
    assert len(set(given_ids.values())) == len(names)
    assert all(0 < number < 2**32 for number in given_ids.values())


@pytest.mark.parametrize(
    "name",
    [
        "read_only", "super_read_only", "sync_binlog", "gtid_mode", "gtid_strict_mode", "server_id", "port", "datadir",
        "ssl_ca", "skip_slave_start", "skip_grant_tables", "loose_read_only", "plugin_load", "plugin_load_add",
        "init_file", "event_scheduler", "rpl_semi_sync_master_timeout", "relay_log_recover", "read_onl", "bind_address",
        "Read_Only", "read-only", "read_only\nx", "", "secure_file_priv", "innodb_flush_log_at_trx_commit",
        "require_secure_transport", "slave_skip_errors", "replica_skip_errors", "tls_version",
    ],
)  # fmt: skip
def test_users_may_not_set_what_replication_rests_on(name: str) -> None:
    assert mariadb_settings.refusal(name, "1")
    assert mysql_settings.refusal(name, "1")


@pytest.mark.parametrize(
    "name",
    ["max_connections", "innodb_buffer_pool_size", "sort_buffer_size", "slow_query_log", "sql_mode", "wait_timeout"],
)
def test_users_may_set_what_is_theirs(name: str) -> None:
    assert mariadb_settings.refusal(name, "100") is None
    assert mysql_settings.refusal(name, "100") is None


@pytest.mark.parametrize("value", ["1\nread_only=OFF", 'x"', "x\\", "it's", "\x00", "é", "x" * 1001])
def test_a_value_that_could_end_its_line_is_refused(value: str) -> None:
    assert mariadb_settings.refusal("sql_mode", value)


def test_what_a_file_says_last_is_what_replication_rests_on() -> None:
    for settings in (mariadb_settings, mysql_settings):
        assert all(name in settings.DENIED or settings.refusal(name, "1") for name in settings.FIXED)


def test_an_option_file_can_not_be_broken_out_of() -> None:
    assert option_lines({"a": "x # y"}) == 'a = "x # y"\n'
    for value in ("x\ny", 'x"', "x\\"):
        with pytest.raises(ValueError, match="can't be written"):
            option_lines({"a": value})


def test_a_literal_of_sql_can_not_be_broken_out_of() -> None:
    assert quoted("it's \\ x") == "'it''s \\\\ x'"


A, B = "3e8a6270-e7ed-11f1-bfdb-02fc00000001", "4e8a6270-e7ed-11f1-bfdb-02fc00000001"

DIFFERENCES = [
    (f"{A}:1-15", f"{A}:1-14,{B}:1-3", f"{A}:15"),
    (f"{A}:1-15", f"{A}:1-15", ""),
    (f"{A}:1-15:17", f"{A}:3-5:9", f"{A}:1-2:6-8:10-15:17"),
    (f"{A}:1-2,\n{B}:7", "", f"{A}:1-2,{B}:7"),
    ("", f"{A}:1", ""),
    (f"{A}:tag:1-3", f"{A}:1-3", f"{A}:tag:1-3"),
]


@pytest.mark.parametrize(("one", "other", "lacking"), DIFFERENCES)
def test_what_one_set_of_transactions_has_and_another_lacks(one: str, other: str, lacking: str) -> None:
    assert difference(one, other) == lacking


@given(some.sets(some.integers(1, 60), max_size=40), some.sets(some.integers(1, 60), max_size=40))
def test_a_difference_is_that_of_the_sets(one: set[int], other: set[int]) -> None:
    texts = [f"{A}:" + ":".join(map(str, numbers)) if numbers else "" for numbers in (one, other)]
    left = parse(difference(*texts)).get(A, [])
    assert {number for first, last in left for number in range(first, last + 1)} == one - other
    assert size(texts) == len(one | other)


def test_a_connection_that_is_answered_is_not_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            assert silent_peers(port) == set()


def test_addresses_are_read_as_the_kernel_writes_them() -> None:
    assert address(socket.AF_INET, struct.pack("4B12x", 192, 0, 2, 7)) == "192.0.2.7"
    assert address(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, "::ffff:192.0.2.7")) == "192.0.2.7"
    assert address(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, "2001:db8::7")) == "2001:db8::7"


def test_denied_names_are_written_as_names_are_compared() -> None:
    assert all(name == name.lower() and "-" not in name for name in DENIED_COMMON)
