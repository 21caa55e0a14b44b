"""What makes two requests the same."""

from __future__ import annotations

import base64
import gzip
import io
import json
import tarfile

import pytest

from pytest_flymachines.cassettes.commands import may_be_left_out, may_repeat, sends_tree
from pytest_flymachines.cassettes.meaning import Meaning, meaning

M = "/v1/apps/{app}/machines/d5683210c7968e"


def of(method: str, path: str, body: object = None, service: str = "") -> Meaning:
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return meaning(method, path, data, service=service)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            ("GET", "https://api.machines.dev/v1/apps/one/machines"),
            ("GET", "http://127.0.0.1:4280/v1/apps/two/machines"),
        ),
        (("GET", "/v1/orgs/me/machines"), ("GET", "/v1/orgs/you/machines")),
        (("GET", "/x?a=1&b=2"), ("GET", "/x?b=2&a=1")),
        (
            ("GET", "/v1/apps/a/machines/m/wait?state=started&timeout=60&version=01A"),
            ("GET", "/v1/apps/a/machines/m/wait?timeout=7&state=started"),
        ),
        (
            ("POST", "/v1/apps/a/machines/m/exec", {"command": ["ls"], "timeout": 10}),
            ("POST", "/v1/apps/a/machines/m/exec", {"timeout": 3, "command": ["ls"]}),
        ),
        (
            ("POST", "/v1/apps/a/machines/m/agent/processes/p1/poll", {"stdout": 4, "wait_s": 1}),
            ("POST", "/v1/apps/a/machines/m/agent/processes/p1/poll", {"stdout": 4, "wait_s": 0}),
        ),
        (
            ("POST", "/v1/apps/a/machines", {"name": "x", "region": "ord", "config": {"a": 1}}),
            ("POST", "/v1/apps/a/machines", {"name": "y", "region": "fra", "config": {"a": 1}}),
        ),
        (
            (
                "POST",
                "/v1/apps/a/machines",
                {
                    "config": {
                        "metadata": {"pytest_flymachines_run": "1", "k": "v"},
                        "files": [
                            {"guest_path": "/etc/x", "raw_value": "eA=="},
                            {"guest_path": "/opt/pytest-flymachines/a.pyz", "raw_value": "eA=="},
                        ],
                    }
                },
            ),
            (
                "POST",
                "/v1/apps/a/machines",
                {
                    "config": {
                        "metadata": {"k": "v", "pytest_flymachines_owner": "me"},
                        "files": [{"raw_value": "eA==", "guest_path": "/etc/x"}],
                    }
                },
            ),
        ),
        (
            ("POST", "/exec", {"command": ["x"], "env": {"API_TOKEN": "one", "A": "1"}}),
            ("POST", "/exec", {"command": ["x"], "env": {"A": "1", "API_TOKEN": "two"}}),
        ),
        (
            ("PUT", "/v1/apps/a/machines/m/agent/file?path=.pytest-flymachines.pack", b"\x00one"),
            ("PUT", "/v1/apps/a/machines/m/agent/file?path=.pytest-flymachines.pack", b""),
        ),
    ],
)
def test_requests_that_mean_the_same_are_equal(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    assert of(*one) == of(*other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("GET", "/v1/apps/a/machines"), ("POST", "/v1/apps/a/machines")),
        (("GET", "/v1/apps/a/machines/m1"), ("GET", "/v1/apps/a/machines/m2")),
        (("GET", "/x?a=1"), ("GET", "/x?a=2")),
        (("GET", "/x?a="), ("GET", "/x")),
        (
            ("GET", "/v1/apps/a/machines/m/wait?state=started"),
            ("GET", "/v1/apps/a/machines/m/wait?state=stopped"),
        ),
        (
            ("POST", "/v1/apps/a/machines/m/exec", {"command": ["ls", "a"]}),
            ("POST", "/v1/apps/a/machines/m/exec", {"command": ["ls", "b"]}),
        ),
        (
            ("POST", "/v1/apps/a/machines", {"config": {"image": "a"}}),
            ("POST", "/v1/apps/a/machines", {"config": {"image": "b"}}),
        ),
        (("POST", "/x", {"name": "a"}), ("POST", "/x", {"name": "b"})),
        (("POST", "/exec", {"env": {"A": "1"}}), ("POST", "/exec", {"env": {"A": "2"}})),
        (("PUT", "/file", b"one"), ("PUT", "/file", b"two")),
        (("PUT", "/file", b"\xff" * 9), ("PUT", "/file", b"\xfe" * 9)),
        (("PUT", "/file", b"a" * 9000), ("PUT", "/file", b"b" * 9000)),
    ],
)
def test_requests_that_mean_something_else_differ(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    assert of(*one) != of(*other)


def test_a_service_is_told_from_the_api_and_keeps_its_own_fields() -> None:
    api = of("POST", "/v1/apps/a/machines", {"name": "x"})
    web = of("POST", "/v1/apps/a/machines", {"name": "x"}, service="port 8000")
    assert api != web
    assert web != of("POST", "/v1/apps/a/machines", {"name": "x"}, service="port 9000")
    assert web != of("POST", "/v1/apps/a/machines", {"name": "y"}, service="port 8000")


def archive(content: bytes, *, mtime: int, uid: int, mode: int, reverse: bool = False) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(("a.txt", "dir/b.sh"), reverse=reverse):
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uid, info.mode = len(content), mtime, uid, mode
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_an_archive_means_its_members_not_who_packed_it_and_when() -> None:
    one = archive(b"x", mtime=1, uid=1000, mode=0o644)
    other = archive(b"x", mtime=2**31, uid=0, mode=0o664, reverse=True)
    assert of("PUT", "/tree", one) == of("PUT", "/tree", other)
    assert of("PUT", "/tree", one) == of("PUT", "/tree", gzip.compress(other))
    assert of("PUT", "/tree", one) != of("PUT", "/tree", archive(b"y", mtime=1, uid=1, mode=0o644))
    assert of("PUT", "/tree", one) != of("PUT", "/tree", archive(b"x", mtime=1, uid=1, mode=0o755))


def test_lines_show_json_over_several_lines() -> None:
    assert of("POST", "/x", {"b": 1, "a": [2]}).lines() == [
        "POST /x",
        "{",
        '  "a": [',
        "    2",
        "  ],",
        '  "b": 1',
        "}",
    ]


def test_a_command_to_our_runner_means_what_it_does_not_which_version_does_it() -> None:
    def start(version: str, key: str, wait: str, script: str) -> Meaning:
        stub = f"_S=${{ROOT}}/opt/pytest-flymachines/api;{version}"
        head = ["/bin/sh", "-c", stub, "fly", version, "", "/workspace", "."]
        command = [*head, "start", wait, "1", key, "120", "", "", "", "./.", script]
        return of("POST", "/v1/apps/a/machines/m/exec", {"command": command})

    assert start("v1", "k1", "5", "echo a") == start("v2", "k2", "3", "echo a")
    assert start("v1", "k1", "5", "echo a") != start("v1", "k1", "5", "echo b")

    def packed(mtime: int, content: bytes) -> str:
        tar = gzip.compress(archive(content, mtime=mtime, uid=0, mode=0o644))
        return "b" + base64.b64encode(tar).decode()

    assert start("v", "k", "5", packed(1, b"x")) == start("v", "k", "5", packed(2, b"x"))
    assert start("v", "k", "5", packed(1, b"x")) != start("v", "k", "5", packed(1, b"y"))


def runner(*words: str, version: str = "v1") -> Meaning:
    stub = f"_S=${{ROOT}}/opt/pytest-flymachines/api;{version}"
    command = ["/bin/sh", "-c", stub, "fly", version, "", "/workspace", "/", *words]
    return of("POST", "/v1/apps/a/machines/m/exec", {"command": command})


def test_pieces_of_a_tree_are_equal_whatever_times_are_in_them_and_those_of_a_file_are_not() -> (
    None
):
    one, other = runner("stage", "s1", "0", "bAAAA"), runner("stage", "s1", "8", "bBBBB")
    assert one != other
    one = runner("stage", "s1", "0", "bAAAA", "tree")
    assert one == runner("stage", "s1", "8", "bBBBB", "tree")
    assert one != runner("stage", "s2", "0", "bAAAA", "tree")
    assert may_repeat(one.body)
    assert sends_tree(one.body)


def test_asking_the_runner_may_be_repeated_and_telling_it_may_not() -> None:
    assert may_repeat(runner("read", "./a", "0", "9").body)
    assert may_repeat(runner("hello").body)
    assert not may_repeat(runner("append", "./read", "t").body)
    assert not may_repeat(runner("put", "read", "hello").body)


def test_of_an_uploaded_file_neither_time_nor_what_the_umask_decides_is_compared() -> None:
    def upload(ns: int, path: str, mode: int = 0o644) -> list[Meaning]:
        where = f"/v1/apps/a/machines/m/agent/files?path={path}&mode={mode}&parents=1&mtime_ns={ns}"
        put = ("put", path, "tx", f"{mode:o}", "1", "1", "5feceb66", str(ns))
        return [of("PUT", where, b"x"), runner(*put)]

    assert upload(17, "/a") == upload(18, "/a") == upload(18, "/a", 0o600)
    for one, b, x in zip(upload(1, "/a"), upload(1, "/b"), upload(1, "/a", 0o755), strict=True):
        assert len({one, b, x}) == 3


def test_the_mode_of_a_file_that_is_written_is_compared() -> None:
    def write(mode: int) -> list[Meaning]:
        where = f"/v1/apps/a/machines/m/agent/files?path=a&mode={mode}&parents=1"
        put = ("put", "a", "tx", f"{mode:o}", "1", "1", "5feceb66")
        return [of("PUT", where, b"x"), runner(*put)]

    for one, other in zip(write(0o644), write(0o600), strict=True):
        assert one != other


def test_a_packed_repository_is_not_compared_however_it_is_sent() -> None:
    staged = runner("put", "./.pytest-flymachines.pack", "@s1-00000000", "600", "", "9", "ab")
    assert staged == runner("put", "./.pytest-flymachines.pack", "t", "600", "", "0", "cd")
    assert staged != runner("put", "./.pytest-flymachines.pack", "t", "644", "", "0", "cd")
    assert may_be_left_out(runner("stage", "", "0", "bAAAA", "pack").body)
    assert may_be_left_out(runner("hello").body)
    assert not may_be_left_out(runner("stage", "", "0", "bAAAA").body)


def test_the_name_of_a_volume_is_not_compared() -> None:
    def create(name: str, gb: int) -> Meaning:
        return of("POST", "/v1/apps/a/volumes", {"name": name, "size_gb": gb})

    assert create("ptfm_1", 1) == create("ptfm_2", 1)
    assert create("ptfm_1", 1) != create("ptfm_1", 2)


def test_a_new_version_of_the_runner_is_put_there_like_the_old_one() -> None:
    def install(version: str, piece: str) -> Meaning:
        script = "_S=${ROOT}/opt/pytest-flymachines/api;mkdir"
        command = ["/bin/sh", "-c", script, "fly", version, "1", "2", piece, "z"]
        return of("POST", "/v1/apps/a/machines/m/exec", {"command": command})

    assert install("v1", "H4sIAAAA") == install("v2", "H4sIBBBB")
