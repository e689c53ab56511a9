"""What the operator is told at its start: by environment variables, each overridden by the flag of the same name."""

import argparse
import ipaddress
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal, get_args
from urllib.parse import urlsplit

LogFormat = Literal["json", "text"]
LEAST_LEASE: Final = 1.0
"""Seconds. Below it renewals would come faster than an API server answers."""

_POD_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_DEFAULT_NAMESPACE: Final = "hasite-system"


class ConfigError(Exception):
    """A setting that can't be used; the message names it."""


@dataclass(frozen=True)
class Config:
    """Every setting. ``from_environment`` and the command line make it."""

    namespace: str
    """Where the operator itself lives, and with it its Lease."""
    identity: str
    """This replica's name, for people; a random part is added, so that two replicas of one name are still two."""
    listen: tuple[str, int] = ("0.0.0.0", 8080)  # noqa: S104 - kubelet and Prometheus come from outside the pod
    """Of the health checks and metrics."""
    operator_cidrs: tuple[str, ...] = ()
    """Networks that the operator's SSH connections come from. Empty: any."""
    digitalocean_endpoint: str = "https://api.digitalocean.com"
    nameservers: tuple[str, ...] = ()
    """Recursive name servers, ``address`` or ``address:port``. Empty: those of the system."""
    watch_namespaces: tuple[str, ...] = ()
    """Empty: all."""
    lease_duration: float = 15.0
    """Seconds until a standby may take over from a leader that is silent."""
    log: LogFormat = "json"


_HELP: Final[Mapping[str, str]] = {
    "namespace": "namespace of the operator and its Lease",
    "identity": "name of this replica",
    "listen": "address and port of /healthz, /readyz and /metrics",
    "operator_cidrs": "networks that this operator's SSH connections come from, separated by commas; default: any",
    "digitalocean_endpoint": "base URL of DigitalOcean's API",
    "nameservers": "recursive name servers, separated by commas; default: the system's",
    "watch_namespaces": "namespaces to look after, separated by commas; default: all",
    "lease_duration": "seconds until a standby takes over from a silent leader",
    "log": "log format: json or text",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """One flag a setting, ``--watch-namespaces`` for HASITE_WATCH_NAMESPACES."""
    for field in fields(Config):
        help_text = f"{_HELP[field.name]} (HASITE_{field.name.upper()})"
        parser.add_argument(f"--{field.name.replace('_', '-')}", dest=field.name, metavar="VALUE", help=help_text)


def load(flags: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> Config:
    """Raises ConfigError."""
    given: dict[str, str] = {}
    for field in fields(Config):
        value = getattr(flags, field.name, None)
        value = environ.get(f"HASITE_{field.name.upper()}") if value is None else value
        if value:
            given[field.name] = value
    return _parse(given)


def _parse(given: Mapping[str, str]) -> Config:
    values: dict[str, Any] = {"namespace": _own_namespace(), "identity": socket.gethostname()}
    for name, text in given.items():
        try:
            values[name] = _value(name, text)
        except ValueError as error:
            raise ConfigError(f"HASITE_{name.upper()}: {error}") from error
    return Config(**values)


def _value(name: str, text: str) -> object:
    parse = _PARSERS.get(name)
    return text if parse is None else parse(text)


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _host_port(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is not ADDRESS:PORT")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104


def _url(text: str) -> str:
    if urlsplit(text).scheme not in ("http", "https") or not urlsplit(text).netloc:
        raise ValueError(f"{text!r} is not an http(s) URL")
    return text.rstrip("/")


def _at_least(number: float, least: float) -> float:
    if not number >= least:
        raise ValueError(f"{number:g} is less than {least:g}")
    return number


def _one_of(text: str, choices: Sequence[str]) -> str:
    if text not in choices:
        raise ValueError(f"{text!r} is none of {', '.join(choices)}")
    return text


def _own_namespace() -> str:
    return _POD_NAMESPACE.read_text().strip() if _POD_NAMESPACE.exists() else _DEFAULT_NAMESPACE


_PARSERS: Final[Mapping[str, Callable[[str], object]]] = {
    "listen": _host_port,
    "operator_cidrs": lambda text: tuple(str(ipaddress.ip_network(each)) for each in _split(text)),
    "nameservers": _split,
    "watch_namespaces": _split,
    "digitalocean_endpoint": _url,
    "lease_duration": lambda text: _at_least(float(text), LEAST_LEASE),
    "log": lambda text: _one_of(text, get_args(LogFormat)),
}
