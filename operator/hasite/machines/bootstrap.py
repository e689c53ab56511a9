"""The user data of a droplet: our part and the user's, as one MIME archive for cloud-init. Pure, but for making keys.

cloud-init merges the cloud-config parts in their order, each by the rules that the *incoming* part names. So the user's
part comes first, then our packages, which are appended to the user's, and last what must be ours alone, which replaces.
Source: cloud-init's "Merging user data sections", and its ``CloudConfigPartHandler``.
"""

import base64
import email
import email.message
import hashlib
from dataclasses import dataclass

import asyncssh
import yaml

from hasite.errors import Permanent

MAX_USER_DATA = 65536
"""Bytes of user data that DigitalOcean takes for a droplet."""

RESERVED = 4096
"""Bytes kept for our own parts."""

MAX_DEPTH = 50

_HEADERS = {
    "#cloud-config-archive": "text/cloud-config-archive",
    "#cloud-config-jsonp": "text/cloud-config-jsonp",
    "#cloud-config": "text/cloud-config",
    "#cloud-boothook": "text/cloud-boothook",
    "#include-once": "text/x-include-once-url",
    "#include": "text/x-include-url",
    "#part-handler": "text/part-handler",
    "## template: jinja": "text/jinja2",
    "#!": "text/x-shellscript",
}
"""What the first line of the user's part may begin with, the longer first, and the type that cloud-init gives it."""


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
    parts = [_user_part(bootstrap.user_data)] if bootstrap.user_data.strip() else []
    if bootstrap.packages:
        packages: dict[str, object] = {"packages": list(bootstrap.packages)}
        merge = "Merge-Type: list(append)+dict(no_replace,recurse_list)+str()\n"
        parts.append(_cloud_config("hasite-packages", packages, merge))
    parts.append(_cloud_config("hasite-machine", _machine(bootstrap), ""))
    text = _archive(parts)
    if len(text.encode()) > MAX_USER_DATA:
        raise Permanent(f"the user data has {len(text.encode())} bytes, {MAX_USER_DATA} at most", "InvalidUserData")
    return text


def validate_user_data(text: str) -> str | None:
    """What is wrong with the user's part, in words for its author; None when cloud-init can use it, or it is empty."""
    if not text.strip():
        return None
    if "\0" in text:
        return "it holds a NUL character"
    if (size := len(_user_part(text).encode())) > MAX_USER_DATA - RESERVED:
        return f"it has {size} bytes as it is sent, {MAX_USER_DATA - RESERVED} at most"
    if _is_archive(text):
        return _wrong_archive(text)
    kind = _kind(text)
    if kind is None:
        first = text.lstrip().splitlines()[0][:60]
        return f"its first line, {first!r}, is none that cloud-init knows: use #cloud-config, or #! for a script"
    return _wrong_cloud_config(text) if kind == "text/cloud-config" else None


def _kind(text: str) -> str | None:
    start = text.lstrip()[:64].lower()
    return next((kind for prefix, kind in _HEADERS.items() if start.startswith(prefix)), None)


def _wrong_cloud_config(text: str) -> str | None:
    try:
        if _too_deep(text):
            return f"its YAML is nested more than {MAX_DEPTH} deep"
        parsed = yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        return f"it is not valid YAML{where}: {error.problem}"
    except (yaml.YAMLError, ValueError) as error:
        return f"it is not valid YAML: {str(error).splitlines()[0][:200]}"
    if not isinstance(parsed, dict):
        found = "nothing" if parsed is None else f"a {type(parsed).__name__}"
        return f"a #cloud-config must hold a mapping, and this holds {found}"
    if not isinstance(parsed.get("packages", []), list):
        return "packages in a #cloud-config must be a list"
    return None


def _too_deep(text: str) -> bool:
    """libyaml's composer follows nesting with the C stack, and would end this process where the stack ends."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            return True
    return False


def _is_archive(text: str) -> bool:
    return text.lstrip()[:13].lower() in ("content-type:", "mime-version:")


def _wrong_archive(text: str) -> str | None:
    message = email.message_from_string(text.lstrip())
    if not message.is_multipart() or message.defects:
        return "it begins like a MIME archive but is not a whole one"
    if not text.isascii():
        return "a MIME archive must be ASCII: encode its parts"
    return None


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
    if _is_archive(text):
        return text.lstrip()
    header = _part_header(_kind(text) or "text/plain", "user")
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
