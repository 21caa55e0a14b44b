"""Glob patterns, keys and words, without any machine."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from pytest_flymachines.sandbox.keys import key_bytes
from pytest_flymachines.sandbox.patterns import excluded, has_magic, matches
from pytest_flymachines.sandbox.runner import escape, quote
from pytest_flymachines.sandbox.text import argv_of, command_text, shown_command


@pytest.mark.parametrize(
    ("path", "pattern", "matched"),
    [
        ("a.py", "*.py", True),
        ("d/a.py", "*.py", False),
        (".hidden", "*", True),
        ("d/a.py", "**/*.py", True),
        ("a.py", "**/*.py", True),
        ("a/b/c", "**/c", True),
        ("a/b/c", "a/**", True),
        ("a", "a/**", False),
        ("a/b/c", "a/**/c", True),
        ("a/c", "a/**/c", True),
        ("A.py", "a.py", False),
        ("a\nb", "a*b", True),
        ("ab", "a[bc]", True),
        ("ad", "a[!bc]", True),
        ("a/b", "a*b", False),
    ],
)
def test_globs(path: str, pattern: str, matched: bool) -> None:
    assert matches(path.split("/"), pattern.split("/")) is matched


@pytest.mark.parametrize(
    ("path", "patterns", "out"),
    [
        ("a/b.pyc", ["*.pyc"], True),
        ("node_modules/x/y", ["node_modules"], True),
        ("node_modules/x/y", ["node_modules/"], True),
        ("a/build/x", ["build/*"], False),
        ("build/x/y", ["build/*"], True),
        ("build", ["build/*"], False),
        ("notes.txt", ["/notes.txt"], True),
        ("a/notes.txt", ["/notes.txt"], False),
        ("docs/a/b.png", ["docs/**/*.png"], True),
        ("a", [], False),
    ],
)
def test_exclusion(path: str, patterns: list[str], out: bool) -> None:
    assert excluded(path, patterns) is out


def test_magic() -> None:
    assert [has_magic(p) for p in ("a", "a*", "?", "[", "]")] == [False, True, True, True, False]


@pytest.mark.parametrize(
    ("key", "sent"),
    [
        ("a", b"a"),
        ("é", "é".encode()),
        ("Enter", b"\r"),
        ("ctrl-c", b"\x03"),
        ("CTRL-C", b"\x03"),
        ("ctrl-[", b"\x1b"),
        ("ctrl-@", b"\0"),
        ("alt-x", b"\x1bx"),
        ("alt-enter", b"\x1b\r"),
        ("f12", b"\x1b[24~"),
        ("up", b"\x1b[A"),
        ("-", b"-"),
    ],
)
def test_keys(key: str, sent: bytes) -> None:
    assert key_bytes(key) == sent


@pytest.mark.parametrize("key", ["", "no-such-key", "ctrl-", "ctrl-cc", "alt-", "f13"])
def test_what_is_no_key(key: str) -> None:
    with pytest.raises(ValueError, match="is no key"):
        key_bytes(key)


def test_commands_are_shown_as_they_were_given() -> None:
    assert shown_command("a b") == "a b"
    assert shown_command(["a", b"\xff", PurePosixPath("c")]) == ["a", "\udcff", "c"]
    assert command_text(["a b", "c"]) == "'a b' c"
    assert argv_of("a") == [b"/bin/sh", b"-c", b"a"]


def test_words_for_the_shell() -> None:
    assert quote(b"plain/1.txt") == b"plain/1.txt"
    assert quote(b"it's") == b"'it'\\''s'"
    assert quote(b"") == b"''"
    assert escape(b"a\\\n\xff") == "a\\0134\\0012\\0377"
