"""The user data of a droplet: our part and the user's, as one MIME archive for cloud-init. Pure, but for making keys.

cloud-init merges the cloud-config parts in their order, each by the rules that the *incoming* part names. So the user's
part comes first, then our packages, which are appended to the user's, and last what must be ours alone, which replaces.
Source: cloud-init's "Merging user data sections", and its ``CloudConfigPartHandler``.
"""

import base64
import functools
import hashlib
import re
from dataclasses import dataclass

import asyncssh
import yaml

from hasite.errors import Permanent
from hasite.machines.cloudconfig import wrong_cloud_config

MAX_USER_DATA = 65536
"""Bytes of user data that DigitalOcean takes for a droplet."""

RESERVED = 4096
"""Bytes kept for our own parts."""

_CLOUD_CONFIG = re.compile(r"#cloud-config(?![\w-])")
"""Not ``#cloud-config-archive`` and ``#cloud-config-jsonp``, which are other formats."""


@dataclass(frozen=True)
class HostKey:
    """An ed25519 host key: the private half as an OpenSSH file, the public one as ``type base64``."""

    private_openssh: str
    public: str


@dataclass(frozen=True)
class Bootstrap:
    """What a machine is born with. Without ``host_key`` it makes its own; ``user_data`` is the user's part or ""."""

    hostname: str
    host_key: HostKey | None
    packages: tuple[str, ...] = ()
    user_data: str = ""


def generate_host_key() -> HostKey:
    """A new host key for one machine."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    public = " ".join(key.export_public_key("openssh").decode().split()[:2])
    return HostKey(key.export_private_key("openssh").decode(), public)


def render_user_data(bootstrap: Bootstrap) -> str:
    """The same text for the same input. Raises ``Permanent`` (reason ``InvalidUserData``)."""
    wrong = validate_user_data(bootstrap.user_data)
    if wrong is not None:
        raise Permanent(f"the user data cannot be used: {wrong}", reason="InvalidUserData")
    parts = [_user_part(bootstrap.user_data)] if bootstrap.user_data else []
    if bootstrap.packages:
        packages: dict[str, object] = {"packages": list(bootstrap.packages)}
        merge = "Merge-Type: list(append)+dict(no_replace,recurse_list)+str()\n"
        parts.append(_cloud_config("hasite-packages", packages, merge))
    parts.append(_cloud_config("hasite-machine", _machine(bootstrap), ""))
    text = _archive(parts)
    if len(text.encode()) > MAX_USER_DATA:
        raise Permanent(f"the user data has {len(text.encode())} bytes, {MAX_USER_DATA} at most", "InvalidUserData")
    return text


@functools.lru_cache(maxsize=128)
def validate_user_data(text: str) -> str | None:
    """What is wrong with the user's part, in words for its author; None when cloud-init can use it, or it is "".

    Some milliseconds for the largest text that the schema admits, whatever it holds. The verdicts are kept.
    """
    if not text:
        return None
    if "\0" in text:
        return "it holds a NUL character"
    if (size := len(_user_part(text).encode())) > MAX_USER_DATA - RESERVED:
        return f"it has {size} bytes as it is sent, {MAX_USER_DATA - RESERVED} at most"
    if _CLOUD_CONFIG.match(text):
        return wrong_cloud_config(text)
    if text.startswith("#!"):
        return None
    first = (text.splitlines() or [""])[0][:60]
    return f"its first line, {first!r}, is neither #cloud-config nor the #! of a script"


def _machine(bootstrap: Bootstrap) -> dict[str, object]:
    machine: dict[str, object] = {
        "allow_public_ssh_keys": True,
        "disable_root": False,
        "hostname": bootstrap.hostname,
    }
    if bootstrap.packages:
        machine["package_update"] = True
    if bootstrap.host_key is not None:
        keys = {
            "ed25519_private": bootstrap.host_key.private_openssh,
            "ed25519_public": f"{bootstrap.host_key.public} {bootstrap.hostname}",
        }
        machine |= {"ssh_deletekeys": True, "ssh_genkeytypes": [], "ssh_keys": keys}
    return machine


def _cloud_config(name: str, content: dict[str, object], header: str) -> str:
    dumped = yaml.dump(content, Dumper=_Blocks, sort_keys=True, width=1000)
    return f"{_part_header('text/cloud-config', name)}{header}\n#cloud-config\n{dumped}"


def _user_part(text: str) -> str:
    """ASCII as it is, so that a person can read it; anything else as base64, which keeps every byte."""
    header = _part_header("text/cloud-config" if _CLOUD_CONFIG.match(text) else "text/x-shellscript", "user")
    if text.isascii() and "\r" not in text:
        return f"{header}\n{text}"
    encoded = base64.encodebytes(text.encode()).decode()
    return f"{header.replace('us-ascii', 'utf-8')}Content-Transfer-Encoding: base64\n\n{encoded}"


def _part_header(kind: str, name: str) -> str:
    return f'Content-Type: {kind}; charset="us-ascii"\nContent-Disposition: attachment; filename="{name}"\n'


def _archive(parts: list[str]) -> str:
    boundary = _boundary(parts)
    body = "".join(f"--{boundary}\n{part}\n" for part in parts)
    return f'Content-Type: multipart/mixed; boundary="{boundary}"\nMIME-Version: 1.0\n\n{body}--{boundary}--\n'


def _boundary(parts: list[str]) -> str:
    """Fixed by the content, and found in none of the parts."""
    seed = "\0".join(parts).encode(errors="surrogatepass")
    boundary = "==hasite=="
    while any(boundary in part for part in parts):
        seed = hashlib.sha256(seed).digest()
        boundary = f"==hasite-{seed.hex()[:32]}=="
    return boundary


class _Blocks(yaml.SafeDumper):
    """Strings of several lines as literal blocks."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Blocks.add_representer(str, _text)
