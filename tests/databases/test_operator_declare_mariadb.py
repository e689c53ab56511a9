"""Users and databases declared on a real MariaDB server, over TLS with the operator's certificate."""

import asyncio
from collections.abc import AsyncIterator

import pymysql
import pytest
import pytest_asyncio
from hasite.databases.declare import Declaration, Server, declare_mariadb, native_hash

from tests.databases.mysql_lab import Lab, Node, available, primary
from tests.databases.test_mariadb import SERVER, make

pytestmark = pytest.mark.skipif(not available(SERVER), reason="needs mariadb-server, and to be root")

WORD = 'it\'s "quoted" \\ %s'
FIRST = Declaration({"shop": WORD, "reader": "grün-und-geheim"}, {"shop": "shop"})


@pytest_asyncio.fixture
async def alone() -> AsyncIterator[tuple[Node, Server]]:
    lab = Lab("mariadb", make)
    try:
        (node,) = await lab.add("alpha")
        await node.reach(primary(1, "alpha", create=True))
        yield node, server_of(lab, node)
    finally:
        await lab.close()


def server_of(lab: Lab, node: Node) -> Server:
    tls = node.layout.tls.with_name("operator")
    lab.authority.issue(tls, "hasite-operator", "127.0.0.1")
    paths = [str(tls / name) for name in ("ca.pem", "cert.pem", "key.pem")]
    return Server(node.member.address, node.place.port, *paths)


def login(server: Server, user: str, password: str) -> str:
    with (
        pymysql.connect(
            host=server.address, port=server.port, user=user, password=password.encode(), ssl_ca=server.ca
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT CURRENT_USER()")
        row = cursor.fetchone()
        return str(row[0]) if row else ""


def binary_log(node: Node) -> bytes:
    return b"".join(path.read_bytes() for path in node.layout.data.glob("binlog.0*"))


async def test_passwords_work_again_and_again_and_stand_in_no_binary_log(alone: tuple[Node, Server]) -> None:
    node, server = alone
    for _ in range(2):
        await asyncio.to_thread(declare_mariadb, server, FIRST)
    for user, password in FIRST.passwords.items():
        assert await asyncio.to_thread(login, server, user, password) == f"{user}@%"
    with pytest.raises(pymysql.err.OperationalError):
        await asyncio.to_thread(login, server, "shop", "another")
    written = await asyncio.to_thread(binary_log, node)
    assert native_hash("grün-und-geheim").encode() in written
    assert not any(word.encode() in written for word in ("quoted", "geheim"))
