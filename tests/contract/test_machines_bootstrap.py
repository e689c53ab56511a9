"""User data: what a machine is born with, and how cloud-init merges it."""

import email
import importlib
import sys
from pathlib import Path
from typing import Any

import asyncssh
import pytest
import yaml
from hasite.errors import Permanent
from hasite.machines.bootstrap import (
    MAX_USER_DATA,
    Bootstrap,
    HostKey,
    generate_host_key,
    render_user_data,
    validate_user_data,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.golden import assert_golden

KEY = HostKey(
    "-----BEGIN OPENSSH PRIVATE KEY-----\nbm90IGEga2V5\n-----END OPENSSH PRIVATE KEY-----\n",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIexample",
)
USER = """#cloud-config
packages: [nginx]
package_update: false
runcmd: [[systemctl, start, shop]]
write_files: [{path: /etc/shop, content: hello}]
ssh_keys: {rsa_private: theirs}
ssh_genkeytypes: [rsa]
disable_root: true
merge_how: 'dict(no_replace)+list()+str()'
"""


def parts(text: str) -> list[tuple[str, str]]:
    message = email.message_from_string(text)
    found = []
    for part in message.walk():
        if not part.is_multipart():
            payload = part.get_payload(decode=True)
            assert isinstance(payload, bytes)
            found.append((part.get_content_type(), payload.decode()))
    return found


@pytest.mark.parametrize(
    ("name", "bootstrap"),
    [
        ("user-data-load-balancer.txt", Bootstrap("shop-lb-1", KEY, ("haproxy",))),
        ("user-data-app.txt", Bootstrap("shop-app-1", KEY, (), USER)),
        ("user-data-script.txt", Bootstrap("shop-app-1", None, (), "#!/bin/sh\necho ünï\n")),
    ],
)
def test_user_data_is_as_reviewed(name: str, bootstrap: Bootstrap) -> None:
    assert_golden(name, render_user_data(bootstrap))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("#cloud-config\npackages: [x]\n", "text/cloud-config"),
        ("#!/bin/sh\ntrue\n", "text/x-shellscript"),
        ("#cloud-boothook\ntrue\n", "text/cloud-boothook"),
        ("#cloud-config-archive\n- '#!/bin/sh'\n", "text/cloud-config-archive"),
        ("## template: jinja\n#cloud-config\na: {{ b }}\n", "text/jinja2"),
        ("#include\nhttp://192.0.2.1/x\n", "text/x-include-url"),
        ("#include-once\nhttp://192.0.2.1/x\n", "text/x-include-once-url"),
    ],
)
def test_the_users_part_comes_first_under_the_type_of_its_first_line(text: str, kind: str) -> None:
    assert parts(render_user_data(Bootstrap("x", KEY, (), text)))[0] == (kind, text)


def test_a_users_mime_archive_is_kept_whole() -> None:
    own = render_user_data(Bootstrap("theirs", None, (), "#!/bin/sh\ntrue\n"))
    kinds = [kind for kind, _ in parts(render_user_data(Bootstrap("x", KEY, ("haproxy",), own)))]
    assert kinds == ["text/x-shellscript", "text/cloud-config", "text/cloud-config", "text/cloud-config"]


@given(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=300))
def test_a_script_arrives_as_it_was_written(text: str) -> None:
    script = f"#!/bin/sh\n{text}"
    assert parts(render_user_data(Bootstrap("x", None, (), script)))[0][1] == script


def test_a_part_that_holds_the_boundary_cannot_end_itself() -> None:
    script = "#!/bin/sh\ncat <<E\n--==hasite==--\n--==hasite==\nE\n"
    assert parts(render_user_data(Bootstrap("x", KEY, (), script)))[0][1] == script


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("#cloud-config\na: [1\n", "not valid YAML at line 3"),
        ("#cloud-config\na: b: c\n", "not valid YAML at line 2, column 5"),
        ("#cloud-config\n- a\n", "must hold a mapping, and this holds a list"),
        ("#cloud-config\n", "holds nothing"),
        ("#cloud-config\npackages: nginx\n", "packages in a #cloud-config must be a list"),
        ("#cloud-config\na: " + "[" * 30000, "nested more than 50 deep"),
        ("#cloud-config\n" + "- " * 30000, "nested more than 50 deep"),
        ("#cloud-config\n" + "? " * 30000, "nested more than 50 deep"),
        ("#cloud-config\na: \x01\n", "not valid YAML"),
        ("packages: [a]\n", "its first line, 'packages: [a]', is none that cloud-init knows"),
        ("#!/bin/sh\n\0", "NUL"),
        ("#!/bin/sh\n" + "#" * MAX_USER_DATA, f"bytes as it is sent, {MAX_USER_DATA - 4096} at most"),
        ("#!/bin/sh\n" + "ü" * 25000, "bytes as it is sent"),
        ("Content-Type: multipart/mixed; boundary=x\n\nnothing", "not a whole one"),
    ],
)
def test_user_data_that_cannot_work_is_refused_in_words(text: str, words: str) -> None:
    wrong = validate_user_data(text)
    assert wrong is not None
    assert words in wrong
    with pytest.raises(Permanent) as raised:
        render_user_data(Bootstrap("x", KEY, (), text))
    assert raised.value.reason == "InvalidUserData"


@pytest.mark.parametrize(
    "text", ["", "\n", "#cloud-config\nruncmd: [ls]\n", "#!/bin/sh\n", "\n\n#cloud-config\na: 1\n"]
)
def test_user_data_that_can_work_is_accepted(text: str) -> None:
    assert validate_user_data(text) is None


def test_the_largest_accepted_user_data_fits_with_ours() -> None:
    script = "#!/bin/sh\n" + "#" * (MAX_USER_DATA - 4096 - 300)
    assert validate_user_data(script) is None
    assert len(render_user_data(Bootstrap("x" * 63, generate_host_key(), ("haproxy",), script))) <= MAX_USER_DATA


def test_a_host_key_is_new_each_time_and_its_halves_belong_together() -> None:
    one, other = generate_host_key(), generate_host_key()
    assert one != other
    private = asyncssh.import_private_key(one.private_openssh)
    assert private.export_public_key("openssh").decode().split()[:2] == one.public.split()


def cloud_init() -> Any:
    """The real merging code: of this system, or of an image that the local world has built."""
    roots = [Path("/"), *Path.home().glob(".cache/hasite/image/*")]
    found = [path for root in roots if (path := root / "usr/lib/python3/dist-packages/cloudinit").exists()]
    if not found:
        pytest.skip("cloud-init is neither installed nor in a built image")
    sys.path.append(str(found[0].parent))
    try:
        return importlib.import_module("cloudinit.mergers")
    finally:
        sys.path.remove(str(found[0].parent))


def merged(text: str, mergers: Any) -> dict[str, Any]:
    """As ``CloudConfigPartHandler`` does it: each part by its own mergers, or replacing."""
    buffer: dict[str, Any] = {}
    for part in email.message_from_string(text).walk():
        if part.get_content_type() == "text/cloud-config":
            content = yaml.safe_load(str(part.get_payload()))
            how = mergers.dict_extract_mergers(content)
            how += mergers.string_extract_mergers(str(part.get("Merge-Type", "")))
            how = how or mergers.string_extract_mergers("dict(replace)+list()+str()")
            buffer = mergers.construct(how).merge(buffer, content)
    return buffer


def test_cloud_init_keeps_what_is_the_users_and_what_must_be_ours() -> None:
    result = merged(render_user_data(Bootstrap("shop-1", KEY, ("haproxy",), USER)), cloud_init())
    assert result["packages"] == ["nginx", "haproxy"]
    assert result["runcmd"] == [["systemctl", "start", "shop"]]
    assert result["write_files"] == [{"path": "/etc/shop", "content": "hello"}]
    assert result["ssh_keys"] == {"ed25519_private": KEY.private_openssh, "ed25519_public": f"{KEY.public} shop-1"}
    assert (result["ssh_genkeytypes"], result["disable_root"], result["package_update"]) == ([], False, True)
