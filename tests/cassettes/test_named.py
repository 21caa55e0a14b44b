"""What the user names is written nowhere, whatever its signs, and the test replays."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pytest_flymachines._http import Http
from pytest_flymachines.cassettes import CassetteKey, Recorder, Scrubber
from pytest_flymachines.common_values import SHORTEST_NAMED, check_named
from pytest_flymachines.errors import SettingsError
from tests.cassettes.test_secrets import Echo, M

TEST = CassetteKey.test("test_a.py::test_x")
SIGNS = "abz09 .*+?[](){}|^$\\/\"'<>&%=:#-_\n\t\u00e9\u4e2d\U0001f511"
VALUES = st.text(SIGNS, min_size=SHORTEST_NAMED, max_size=40) | st.text(
    st.characters(exclude_categories=("Cs", "Cc")), min_size=6, max_size=20
)
OURS = "command stdout offset before after"


def is_named(value: str) -> bool:
    """Whether it may be named, and is in nothing that is recorded anyway."""
    try:
        check_named(value, value)
    except SettingsError:
        return False
    bare = value.strip()
    return len(bare.encode()) >= SHORTEST_NAMED and len(set(bare)) > 3 and bare not in OURS


def talk(http: Http, values: list[str], cut: int) -> list[str]:
    """Send the values in a command, in names and in a query, and get them in two pieces."""
    value = values[0]
    said = []
    for word in values:
        body = {"command": ["echo", word, f"--x={word}"], "labels": {f"key {word}": {word: 1}}}
        http.request("POST", f"{M}/exec", json=body)
        http.request("GET", f"{M}/x", params={"path": word})
    whole = f"before {value} after".encode()
    at = min(len(b"before ") + cut, len(whole))
    for offset in (0, at):
        asked = http.request("POST", f"{M}/agent/files/read", json={"path": "a", "offset": offset})
        said.append(asked.content.decode("latin-1"))
    return said


def answers(values: list[str], cut: int) -> list[bytes]:
    whole = f"before {values[0]} after".encode()
    at = min(len(b"before ") + cut, len(whole))
    outputs = [
        answer for word in values for answer in (json.dumps({"stdout": word}).encode(), b"{}")
    ]
    return [*outputs, whole[:at], whole[at:]]


def texts(value: object) -> list[str]:
    """Every text in what YAML holds, and in JSON within it."""
    if isinstance(value, dict):
        return [text for pair in value.items() for item in pair for text in texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    if isinstance(value, bytes):
        return [value.decode("utf-8", "replace")]
    text = str(value)
    try:
        inner = json.loads(text) if text[:1] in "{[" else None
    except ValueError:
        inner = None
    return [text, *(texts(inner) if inner else [])]


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(values=st.lists(VALUES.filter(is_named), min_size=1, max_size=3), cut=st.integers(1, 60))
@example(values=["(a+)+$.*[x"], cut=4)
@example(values=["line one\nline 2\n  three"], cut=9)
@example(values=["abc-part-of-it", "part-of", "xx abc-part-of-it xx"], cut=5)
@example(values=["stdout-of-it", "command-and-more"], cut=3)
@example(values=["long-and-varied-" * 100], cut=50)
@example(values=["\U0001f511\u4e2dk\u00e9y"], cut=2)
@example(values=["<scrubbed>x", "scrubbed"], cut=2)
def test_what_is_named_is_nowhere_on_the_disk_and_the_test_replays(
    tmp_path: Path, values: list[str], cut: int
) -> None:
    directory = tmp_path / "cassettes"
    shutil.rmtree(directory, ignore_errors=True)

    def recorder(mode: str) -> Recorder:
        scrubber = Scrubber(environ={})
        for value in values:
            scrubber.add("fly_scrub", value, shortest=SHORTEST_NAMED)
        return Recorder(directory, mode=mode, scrubber=scrubber)  # type: ignore[arg-type]

    recording = recorder("all")
    with recording.use(TEST):
        http = Http(recording.transport(Echo(answers(values, cut))), "https://x")
        live = talk(http, values, cut)
    recording.finish(TEST, passed=True)
    [path] = directory.rglob("*.yaml")
    written = texts(yaml.safe_load(path.read_text()))
    for value in values:
        assert not any(value.strip() in text for text in written)
    replaying = recorder("replay")
    with replaying.use(TEST):
        again = talk(Http(replaying.transport(None), "https://x"), values, cut)
    assert [len(text) for text in again] == [len(text) for text in live]
