"""What holds for any bytes, names, arguments and values, over every way."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_flymachines.sandbox import Sandbox

COMMON = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

arguments = st.binary(max_size=200).filter(lambda b: b"\0" not in b)
names = (
    st.binary(min_size=1, max_size=255)
    .map(lambda b: b.replace(b"\0", b"0").replace(b"/", b"1"))
    .filter(lambda b: b not in (b".", b".."))
)
variables = st.dictionaries(
    st.text(st.characters(codec="utf-8", exclude_characters="=\0"), min_size=1, max_size=30),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=100),
    max_size=5,
)


@COMMON
@given(content=st.binary(max_size=20_000))
def test_any_content_of_a_file(sandbox: Sandbox, content: bytes) -> None:
    sandbox.write_file("file", content)
    assert sandbox.read_file("file") == content


@COMMON
@given(content=st.binary(max_size=20_000))
def test_any_input_and_output(sandbox: Sandbox, content: bytes) -> None:
    assert sandbox.exec("cat", stdin=content).stdout_bytes == content


@COMMON
@given(words=st.lists(arguments, max_size=6))
def test_any_arguments(sandbox: Sandbox, words: list[bytes]) -> None:
    argv: list[str | bytes] = ["/usr/bin/printf", "%s\\0", "first", *words]
    output = sandbox.exec(argv).stdout_bytes
    assert output.split(b"\0")[:-1] == [b"first", *words]


@COMMON
@given(name=names, content=st.binary(max_size=50))
def test_any_legal_name(sandbox: Sandbox, name: bytes, content: bytes) -> None:
    sandbox.write_file(b"dir/" + name, content)
    (info,) = sandbox.list_files("dir")
    assert info.name.encode("utf-8", "surrogateescape") == name
    assert sandbox.read_file(b"dir/" + name) == content
    assert [bytes(p) for p in sandbox.glob("dir/*")] == [b"dir/" + name]
    sandbox.remove("dir", recursive=True)


@COMMON
@given(env=variables)
def test_any_variables(sandbox: Sandbox, env: dict[str, str]) -> None:
    seen = sandbox.exec(["env", "-0"], env=env).stdout_bytes.split(b"\0")
    for name, value in env.items():
        assert f"{name}={value}".encode() in seen
