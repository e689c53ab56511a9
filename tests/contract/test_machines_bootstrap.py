"""User data: what a machine is born with, and how cloud-init merges it."""

import email
import importlib
import sys
import time
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
from hypothesis import given, settings
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
        ("#cloud-config # shop\r\na: ü\r\n", "text/cloud-config"),
        ("#!/bin/sh\ntrue\n", "text/x-shellscript"),
    ],
)
def test_the_users_part_comes_first_under_the_type_of_its_first_line(text: str, kind: str) -> None:
    assert parts(render_user_data(Bootstrap("x", KEY, (), text)))[0] == (kind, text)


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
        ("#cloud-config\na:\n" + "- " * 30000, "nested more than 50 deep"),
        ("#cloud-config\n" + "? " * 30000, "a mapping stands where a key must on line 2"),
        ("#cloud-config\na: {{ b }}\n", "a mapping stands where a key must on line 2"),
        ("#cloud-config\nword\n", "must hold a mapping, and this holds a text"),
        ("#cloud-config\nb: &a nginx\npackages: *a\n", "packages in a #cloud-config must be a list"),
        ("#cloud-config\na: *b\n", "the alias *b stands for nothing that ends before it"),
        ("#cloud-config\na: &b [*b]\n", "the alias *b stands for nothing that ends before it"),
        ("#cloud-config\na: &b 1\nc: &b 2\n", "the anchor &b is there twice"),
        ("#cloud-config\na: !Ref b\n", "the tag !Ref on line 2 is none that cloud-init knows"),
        ("#cloud-config\na: 1\n---\nb: 1\n", "more than one YAML document"),
        ("#cloud-config\na: \x01\n", "not valid YAML"),
        ("packages: [a]\n", "its first line, 'packages: [a]', is neither #cloud-config nor the #! of a script"),
        ("#cloud-config-archive\n- '#!/bin/sh'\n", "is neither #cloud-config nor the #! of a script"),
        ("\n#cloud-config\na: 1\n", "its first line, '', is neither"),
        ("#!/bin/sh\n\0", "NUL"),
        ("#!/bin/sh\n" + "#" * MAX_USER_DATA, f"bytes as it is sent, {MAX_USER_DATA - 4096} at most"),
        ("#!/bin/sh\n" + "ü" * 25000, "bytes as it is sent"),
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
    "text",
    [
        "",
        "#cloud-config\nruncmd: [ls]\n",
        "#!/bin/sh\n",
        "#cloud-config\nx: &common {owner: root}\nwrite_files: [{<<: *common, path: /a}, {<<: *common, path: /b}]\n",
        "#cloud-config\nx: &names [nginx]\npackages: *names\n",
        "#cloud-config\na: !!binary aGk=\nb: ! 1\n",
    ],
)
def test_user_data_that_can_work_is_accepted(text: str) -> None:
    assert validate_user_data(text) is None
    assert parts(render_user_data(Bootstrap("x", KEY, (), text)))


def seconds_to_judge(text: str) -> float:
    """Of processor time, the best of three, without the kept verdicts."""
    times = []
    for _ in range(3):
        began = time.process_time()
        validate_user_data.__wrapped__(text)
        times.append(time.process_time() - began)
    return min(times)


def nested(level: str) -> str:
    """Each level holds ten times the one before."""
    return "a0: &a0 {k: v}\n" + "".join(
        f"a{n}: &a{n} {level.replace('X', ', '.join([f'*a{n - 1}'] * 10))}\n" for n in range(1, 30)
    )


BOMBS = {"merge keys": nested("{<<: [X]}"), "aliases": nested("[X]")}
HEAVY = {
    "small values": "a: [" + "[]," * 16000 + "]",
    "keys": "a: {" + ",".join(["a"] * 24000) + "}",
    "aliases of a word": "a: &a x\nb: [" + "*a," * 15000 + "]",
    "anchors": "a: [" + ",".join(f"&a{n} x" for n in range(4000)) + "]",
    "tag directives": "".join(f"%TAG !{n}! x\n" for n in range(3500)) + "--- {}",
    "documents": "---\n" * 12000,
    "a number of base 60": "a: 1" + ":1" * 24000,
    "an honest file": "write_files:\n" + "- {path: /srv/shop/index.html, content: hello}\n" * 1000,
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_what_expands_to_gigabytes_is_refused(bomb: str) -> None:
    wrong = validate_user_data(f"#cloud-config\n{bomb}")
    assert wrong is not None
    assert "more than 10000 values, each alias counted as what it stands for" in wrong


@pytest.mark.parametrize("text", [*BOMBS.values(), *HEAVY.values()], ids=[*BOMBS, *HEAVY])
def test_no_cloud_config_of_48_kib_takes_50_ms_to_judge(text: str) -> None:
    assert seconds_to_judge(f"#cloud-config\n{text}"[:49152]) < 0.05


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="&*<{}[],:?!|>-'\"# \na0%", min_size=1, max_size=30))
def test_no_repeated_scrap_of_yaml_takes_50_ms_to_judge(scrap: str) -> None:
    assert seconds_to_judge(f"#cloud-config\na: {scrap * (49000 // len(scrap))}") < 0.05


def test_a_verdict_is_kept() -> None:
    text = f"#cloud-config\n{HEAVY['an honest file']}"
    validate_user_data(text)
    before = validate_user_data.cache_info().hits
    render_user_data(Bootstrap("x", KEY, (), text))
    assert validate_user_data.cache_info().hits == before + 1


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
