"""Users and databases declared on a real PostgreSQL server, over TLS with the operator's certificate."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio
from hasite.databases.declare import (
    DECLARE,
    Declaration,
    Server,
    _pattern,
    declare_postgresql,
)
from hasite.errors import Permanent, Transient

from tests.databases.postgresql_lab import Authority, Lab, Node, missing, sync

postgresql = pytest.mark.skipif(bool(missing()), reason=missing() or "-")


@pytest_asyncio.fixture
async def primary() -> AsyncIterator[tuple[Node, Server]]:
    lab = Lab.open("a")
    try:
        node = lab.nodes["a"]
        await node.be("primary", epoch=1, create=True, sync=sync(1, "a", 0))
        yield node, server_of(node, lab.authority, lab.folder)
    finally:
        await lab.close()


def server_of(node: Node, authority: Authority, folder: Path) -> Server:
    tls = folder / "operator"
    authority.issue(tls, "hasite-operator", "127.0.0.1")
    for file in tls.iterdir():
        file.chmod(0o600)
    return Server(
        node.member.address, node.place.port, str(tls / "ca.pem"), str(tls / "cert.pem"), str(tls / "key.pem")
    )


def login(server: Server, user: str, password: str, database: str) -> str:
    """Who one is there."""
    with psycopg.connect(
        host=server.address,
        port=server.port,
        user=user,
        password=password,
        dbname=database,
        sslmode="verify-full",
        sslrootcert=server.ca,
    ) as connection:
        row = connection.execute("SELECT current_user").fetchone()
        return str(row[0]) if row else ""


FIRST = Declaration({"shop": 'it\'s "quoted" \\ %s', "reader": "x"}, {"shop": "shop"})


@postgresql
async def test_what_is_declared_is_there_and_declaring_it_again_changes_nothing(primary: tuple[Node, Server]) -> None:
    node, server = primary
    for _ in range(2):
        await asyncio.to_thread(declare_postgresql, server, FIRST)
    assert await asyncio.to_thread(login, server, "shop", FIRST.passwords["shop"], "shop") == "shop"
    owner = node.sql("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'shop'")
    assert owner == [("shop",)]
    assert "quoted" not in node.log()


@postgresql
async def test_a_changed_password_and_a_changed_owner_are_carried_out_and_nothing_is_dropped(
    primary: tuple[Node, Server],
) -> None:
    node, server = primary
    await asyncio.to_thread(declare_postgresql, server, FIRST)
    await asyncio.to_thread(declare_postgresql, server, Declaration({"reader": "y"}, {"shop": "reader"}))
    assert await asyncio.to_thread(login, server, "reader", "y", "shop") == "reader"
    assert await asyncio.to_thread(login, server, "shop", FIRST.passwords["shop"], "shop") == "shop"
    assert node.sql("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'shop'") == [("reader",)]


@postgresql
async def test_a_server_of_another_authority_gets_no_password(primary: tuple[Node, Server]) -> None:
    node, _ = primary
    stranger = server_of(node, Authority(), node.layout.run / "stranger")
    with pytest.raises(Transient):
        await asyncio.to_thread(declare_postgresql, stranger, FIRST)


@postgresql
async def test_what_the_server_refuses_is_a_matter_for_a_person(primary: tuple[Node, Server]) -> None:
    _, server = primary
    with pytest.raises(Permanent, match="does not exist"):
        await asyncio.to_thread(declare_postgresql, server, Declaration({}, {"shop": "nobody"}))


def test_a_database_in_a_grant_of_mysql_is_no_pattern() -> None:
    assert _pattern("shop_one") == "`shop\\_one`"


@pytest.mark.parametrize("engine", sorted(DECLARE))
def test_nobody_is_made_the_owner_of_a_database_of_the_system(engine: str) -> None:
    nowhere = Server("192.0.2.1", 1, "", "", "")
    with pytest.raises(Permanent, match="mysql, postgres: kept for the system"):
        DECLARE[engine](nowhere, Declaration({"shop": "x"}, {"mysql": "shop", "postgres": "shop", "shop": "shop"}))
