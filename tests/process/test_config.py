"""What the operator's settings mean."""

import argparse

import pytest
from hasite.config import Config, ConfigError, add_flags, load


def loaded(*flags: str, **environ: str) -> Config:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return load(parser.parse_args(flags), environ)


def test_without_any_setting_there_are_defaults() -> None:
    config = loaded()
    assert config.listen == ("0.0.0.0", 8080)
    assert config.digitalocean_endpoint == "https://api.digitalocean.com"
    assert (config.watch_namespaces, config.nameservers, config.operator_cidrs) == ((), (), ())
    assert (config.lease_duration, config.log) == (15.0, "json")
    assert config.identity


def test_a_flag_goes_before_the_environment() -> None:
    assert loaded("--identity=flag", HASITE_IDENTITY="variable").identity == "flag"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("listen", "127.0.0.1:9000", ("127.0.0.1", 9000)),
        ("listen", "[::1]:9000", ("::1", 9000)),
        ("listen", ":9000", ("0.0.0.0", 9000)),
        ("operator_cidrs", "192.0.2.0/24, 2001:db8::/32", ("192.0.2.0/24", "2001:db8::/32")),
        ("operator_cidrs", "192.0.2.7", ("192.0.2.7/32",)),
        ("nameservers", "192.0.2.53,198.51.100.53:5353", ("192.0.2.53", "198.51.100.53:5353")),
        ("watch_namespaces", "shop, blog ,", ("shop", "blog")),
        ("digitalocean_endpoint", "http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("lease_duration", "2.5", 2.5),
        ("log", "text", "text"),
        ("namespace", "", "hasite-system"),
    ],
)
def test_a_setting_is_read(name: str, text: str, value: object) -> None:
    assert getattr(loaded(**{f"HASITE_{name.upper()}": text}), name) == value


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("LISTEN", "8080", "is not ADDRESS:PORT"),
        ("LISTEN", "127.0.0.1:99999", "is not ADDRESS:PORT"),
        ("OPERATOR_CIDRS", "192.0.2.1/24", "host bits set"),
        ("DIGITALOCEAN_ENDPOINT", "api.digitalocean.com", "is not an http"),
        ("LEASE_DURATION", "0.2", "is less than 1"),
        ("LEASE_DURATION", "nan", "is less than 1"),
        ("LEASE_DURATION", "soon", "could not convert"),
        ("LOG", "xml", "is none of json, text"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_by_its_name(name: str, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"HASITE_{name}: .*{words}"):
        loaded(**{f"HASITE_{name}": text})
