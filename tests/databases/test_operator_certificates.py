"""The certificate authority of a database: whom its members and the operator trust."""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from hasite.databases.certificates import PERIOD, Authority, Identity, fits, issue, new_authority, rotation
from hasite.databases.memory import MemoryFile
from hasite.errors import Permanent

NOW = 1_800_000_000.0
ADDRESS = "192.0.2.10"
AUTHORITY = new_authority("HASite default/shop", NOW)


def own(authority: Authority = AUTHORITY, name: str = "shop-a", address: str = ADDRESS, now: float = NOW) -> Identity:
    return issue(authority, name, (address,), now)


@pytest.mark.parametrize(
    ("why", "held", "keep"),
    [
        ("its own", lambda: own().certificate, True),
        ("none", lambda: None, False),
        ("damaged", lambda: own().certificate[:200], False),
        ("of another authority", lambda: own(new_authority("other", NOW)).certificate, False),
        ("of another member", lambda: own(name="shop-b").certificate, False),
        ("for another address", lambda: own(address="192.0.2.99").certificate, False),
        ("that ends within two periods", lambda: own(now=NOW - 2.1 * PERIOD).certificate, False),
        ("that lasts for two more", lambda: own(now=NOW - 1.9 * PERIOD).certificate, True),
    ],
)
def test_which_certificate_a_member_may_keep(why: str, held: Callable[[], bytes | None], keep: bool) -> None:
    assert fits(held(), AUTHORITY, "shop-a", (ADDRESS,), NOW) is keep, why


def test_every_certificate_is_replaced_at_least_a_period_before_it_ends() -> None:
    """Members are looked at in each period, and what does not last two more is replaced."""
    made, now = NOW, NOW
    for _ in range(20):
        now += PERIOD
        if not fits(own(now=made).certificate, AUTHORITY, "shop-a", (ADDRESS,), now):
            made = now
        ends = x509.load_pem_x509_certificate(own(now=made).certificate).not_valid_after_utc.timestamp()
        assert ends - now > PERIOD


def test_a_period_is_the_same_for_all_who_count() -> None:
    assert rotation(NOW) == rotation(NOW + 1)
    assert rotation(NOW + PERIOD) == rotation(NOW) + 1


def test_an_authority_whose_parts_do_not_belong_together_is_refused() -> None:
    mixed = Authority(AUTHORITY.certificate, new_authority("other", NOW).key)
    with pytest.raises(Permanent, match="not that of its certificate"):
        own(mixed)
    with pytest.raises(Permanent, match="cannot be read"):
        own(Authority(b"", AUTHORITY.key))


def test_an_authority_signs_members_and_no_further_authorities() -> None:
    certificate = x509.load_pem_x509_certificate(AUTHORITY.certificate)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (constraints.ca, constraints.path_length) == (True, 0)
    leaf = x509.load_pem_x509_certificate(own().certificate)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_keys_reach_libraries_without_a_file_on_any_disk() -> None:
    mine = own()
    files = [MemoryFile("certificate", mine.certificate), MemoryFile("key", mine.key)]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(files[0].path, files[1].path)
    assert Path(files[1].path).stat().st_mode & 0o777 == 0o600
    for file in files:
        file.close()
        file.close()
    with pytest.raises(OSError):
        context.load_cert_chain(files[0].path, files[1].path)


def test_a_key_is_not_shown_by_accident() -> None:
    from hasite.databases.delivery import File

    assert b"PRIVATE" not in repr(File(own().key, secret=True)).encode()
