"""Rings of real MariaDB servers with their guards: all take writes, one may be lost, conflicts stop and are told."""

from collections.abc import AsyncIterator

import pytest

from tests.databases.mysql_lab import Lab, available
from tests.databases.ring_stories import *  # noqa: F403
from tests.databases.test_mariadb import SERVER, make

pytestmark = [
    pytest.mark.skipif(not available(SERVER), reason="needs mariadb-server, mariadb-backup, and to be root"),
    pytest.mark.timeout(240),
]


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    yield Lab("mariadb", make, topology="PrimaryPrimary")
