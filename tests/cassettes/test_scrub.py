"""No secret passes, however it is written, and what is no secret stays."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_flymachines.cassettes.scrub import Scrubber
from pytest_flymachines.cassettes.spelling import without_padding

SECRET = "fo1_s3cr3t/tok+en&=value!"


@pytest.fixture
def scrubber() -> Scrubber:
    return Scrubber(environ={"FLY_API_TOKEN": SECRET})


def wrapped(data: bytes) -> bytes:
    return base64.encodebytes(b"x" * 40 + data + b"y" * 70)


SPELLINGS: dict[str, Callable[[bytes], bytes]] = {
    "raw": lambda s: s,
    "in text": lambda s: b"export X='" + s + b"';",
    "url": lambda s: quote(s, safe="").encode(),
    "url path": lambda s: quote(s).encode(),
    "form": lambda s: quote_plus(s).encode(),
    "json": lambda s: json.dumps({"a": s.decode()}).encode(),
    "json in json": lambda s: json.dumps(json.dumps({"a": s.decode()})).encode(),
    "base64 0": base64.b64encode,
    "base64 1": lambda s: base64.b64encode(b"x" + s + b"yz"),
    "base64 2": lambda s: base64.b64encode(b"xx" + s + b"y"),
    "base64 url-safe": lambda s: base64.urlsafe_b64encode(b"x" + s + b"\xff\xfe"),
    "base64 wrapped": wrapped,
    "base64 wrapped in json": lambda s: json.dumps({"o": wrapped(s).decode()}).encode(),
    "base64 unpadded": lambda s: base64.b64encode(s + b"x").rstrip(b"="),
    "base64 after letters": lambda s: b"data/" + base64.b64encode(s),
    "base64 twice": lambda s: base64.b64encode(base64.b64encode(s)),
    "hex": lambda s: s.hex().encode(),
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "gzip in base64": lambda s: base64.b64encode(gzip.compress(b"a" * 100 + s)),
    "basic": lambda s: b"Basic " + base64.b64encode(b"user:" + s),
    "binary": lambda s: b"\x00\xff" + s + b"\xfe",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_secret_is_found_and_taken_out_in_every_spelling(
    scrubber: Scrubber, spelling: str
) -> None:
    data = SPELLINGS[spelling](SECRET.encode())
    assert scrubber.find(data) == {"FLY_API_TOKEN"}
    clean = scrubber.data(data)
    assert not scrubber.find(clean)
    assert SECRET.encode() not in clean
    if "gzip" not in spelling and spelling != "zlib":
        assert len(clean) == len(data)


def test_what_surrounds_a_secret_survives(scrubber: Scrubber) -> None:
    data = b"head " + SECRET.encode() + b" tail"
    coded = scrubber.data(base64.b64encode(data))
    plain = base64.b64decode(coded)
    assert plain.startswith(b"head <FLY_API_TOKEN**")
    assert plain.endswith(b"> tail")
    lines = scrubber.data(base64.encodebytes(b"a" * 100 + SECRET.encode() + b"b" * 100))
    assert [len(line) for line in lines.splitlines()] == [76, 76, 76, 72]
    assert base64.decodebytes(lines).startswith(b"a" * 100 + b"<FLY")


def test_text_without_secret_is_the_same_object(scrubber: Scrubber) -> None:
    for text in ("", "plain text of some words", "aGVsbG8gd29ybGQgaGVsbG8=", "x" * 5000):
        assert scrubber.text(text) is text


@given(st.text(min_size=8, max_size=60), st.binary(max_size=80), st.binary(max_size=80))
def test_any_secret_is_taken_out_between_any_bytes(
    secret: str, before: bytes, after: bytes
) -> None:
    """Random secrets, plain and in base64."""
    secret = secret.strip()
    raw = secret.encode("utf-8", "surrogatepass")
    if len(raw) < 8 or set(secret) <= set(
        "*<>ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_"
    ):
        return
    try:
        secret.encode()
    except UnicodeEncodeError:
        return
    scrubber = Scrubber(environ={"FLY_API_TOKEN": secret})
    for data in (before + raw + after, base64.b64encode(before + raw + after)):
        assert scrubber.find(data)
        assert "FLY_API_TOKEN" not in scrubber.find(scrubber.data(data))


def test_a_token_of_several_parts_is_a_secret_in_each_part() -> None:
    scrubber = Scrubber(environ={"FLY_API_TOKEN": "FlyV1 fm2_permission,fm2_discharge"})
    assert scrubber.text("a fm2_discharge") == "a *************"
    assert scrubber.text("the fm2_permission,fm2_discharge") == "the <FLY_API_TOKEN*************>"
    assert "fm2_permission" not in scrubber.text("Bearer fm2_permission")


def test_the_environment_gives_what_its_names_call_secret() -> None:
    scrubber = Scrubber(
        environ={
            "DB_PASSWORD": "hunter2hunter2",
            "AWS_SECRET_ACCESS_KEY": "abcdefgh12345678",
            "SSH_AUTH_SOCK": "/tmp/agent.1234",
            "MY_TOKEN": "short",
            "HOME": "/home/somebody",
            "TOKEN_COUNT": "1234567890",
            "PWD": "current-directory",
        }
    )
    assert scrubber.find(b"hunter2hunter2 abcdefgh12345678") == {
        "DB_PASSWORD",
        "AWS_SECRET_ACCESS_KEY",
    }
    assert not scrubber.find(b"/tmp/agent.1234 short /home/somebody 1234567890 current-directory")


def test_the_user_names_a_variable_or_a_value() -> None:
    scrubber = Scrubber(["LICENSE", "plainvalue"], environ={"LICENSE": "ab-12"})
    assert scrubber.text("key ab-12, plainvalue!") == "key *****, <scrubbed>!"


@pytest.mark.parametrize(
    "text",
    [
        "https://me:pa55word@example.com/x.git",
        "https://ghp_0123456789abcdef0123@github.com/x",
        "postgres://app:s3cret@db:5432/x",
        "Authorization: Bearer eyJhbGciOi.J9",
        '{"authorization": "Basic dXNlcjpwYXNz"}',
    ],
)
def test_credentials_are_found_without_being_known(text: str) -> None:
    scrubber = Scrubber(environ={})
    clean = scrubber.text(text)
    assert clean != text
    assert len(clean) == len(text)
    assert not scrubber.find(clean.encode())


@pytest.mark.parametrize(
    "text",
    [
        "git@github.com:me/x.git",
        "ssh://git@github.com/me/x",
        "see https://example.com/@me and mail me@example.com",
        "Authorization: Basic authentication is required",
        "user: name@host",
    ],
)
def test_what_only_looks_like_credentials_stays(text: str) -> None:
    assert Scrubber(environ={}).text(text) == text


def test_placeholders_of_different_length_are_equal_in_a_comparison() -> None:
    long, short = "x" * 40, "y" * 30
    one = Scrubber(environ={"FLY_TOKEN": long}).text(f"a {long} b")
    other = Scrubber(environ={"FLY_TOKEN": short}).text(f"a {short} b")
    assert one != other
    assert without_padding(one) == without_padding(other) == "a <FLY_TOKEN> b"
