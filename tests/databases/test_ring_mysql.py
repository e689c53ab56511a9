"""Rings of real MySQL servers with their guards."""

from collections.abc import AsyncIterator

import pytest

from tests.databases.mysql_lab import Lab, available, mysql_tree
from tests.databases.ring_stories import *  # noqa: F403
from tests.databases.test_mysql import OPTIONS, make

pytestmark = [
    pytest.mark.skipif(
        not available(str(mysql_tree() / "usr/sbin/mysqld")), reason=f"needs MySQL in {mysql_tree()}, and to be root"
    ),
    pytest.mark.timeout(900),
]


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    yield Lab("mysql", make, small={**OPTIONS, "performance_schema": "ON"}, topology="PrimaryPrimary")
