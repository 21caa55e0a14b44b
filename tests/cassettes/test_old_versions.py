"""What older versions and vcrpy itself have recorded replays, from where nothing can be written.

`recorded/` holds files as they were written then: `first` and `second` by versions of this project,
with the tests that they are of (`tally.py`), and `plain.yaml` by vcrpy 9.4 alone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from vcr.request import Request as VcrRequest

from pytest_flymachines._http import Http
from pytest_flymachines.cassettes import CassetteKey, Recorder, Scrubber
from pytest_flymachines.cassettes.catalog import Catalog, Entry
from pytest_flymachines.cassettes.verify import differences
from pytest_flymachines.errors import CassetteError, CassetteMiss

RECORDED = Path(__file__).parent / "recorded"
VERSIONS = ["first", "second"]
URL = "/v1/apps/app/machines/m/exec"


def lay_out(project: Path, version: str) -> Path:
    """A project whose cassettes are those of another version."""
    (project / "tests").mkdir(parents=True)
    shutil.copy(RECORDED / "tally.py", project / "tests" / "test_tally.py")
    (project / "pytest.ini").write_text("[pytest]\nfly_repo = .\n")
    shutil.copytree(RECORDED / version, project / "cassettes")
    return project


@pytest.mark.parametrize("version", VERSIONS)
def test_recordings_of_older_versions_replay_in_a_read_only_checkout(
    tmp_path: Path, version: str
) -> None:
    """With neither network nor token."""
    project = lay_out(tmp_path / "a project \u00fc", version)
    elsewhere = tmp_path / "elsewhere"
    (project / "cassettes").rename(elsewhere)
    (project / "cassettes").symlink_to(elsewhere)
    read_only = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && cd "$2" && shift 2'
    words = ["sh", "-c", f'{read_only} && exec "$@"', "sh", str(tmp_path), str(project)]
    options = ["-q", "-p", "no:cacheprovider", "-p", "flymachines", "--fly-missing-cassette=fail"]
    done = subprocess.run(
        ["unshare", "-rnm", *words, sys.executable, "-m", "pytest", *options, "--fly-unused=fail"],
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("FLY_")},
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "8 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("version", VERSIONS)
def test_recordings_of_older_versions_are_listed(version: str) -> None:
    catalog = Catalog(RECORDED / version)
    paths = catalog.paths()
    assert len(paths) == 10
    for path in paths:
        seen, entry = catalog.summary(path), catalog.read(path)
        assert seen.entry.header == entry.header
        assert seen.requests == len(entry.requests) > 0
        assert entry.problem == ""
        assert entry.header["format"] == 1
        assert entry.owner in {"sandbox cook-sandbox-latest-f5f095c7", *OWNERS}


OWNERS = {
    "fixture tally@tests/test_tally.py (session)",
    *(
        f"tests/test_tally.py::test_{name}"
        for name in (
            *("a_missing_file_is_exit_code_1", "a_wrong_option_raises_with_the_output"),
            *("any_bytes_can_be_counted", "it_counts", "it_serves"),
            *("the_installed_program_is_executable", "the_machine_is_not_this_computer"),
            "the_repository_is_in_the_workspace",
        )
    ),
}


def test_recordings_of_two_days_do_not_differ_in_meaning(tmp_path: Path) -> None:
    """Though a server logs when it was asked, and each git packs the repository anew."""
    old = Catalog(RECORDED / "first")
    shutil.copytree(RECORDED / "second", tmp_path / "second")
    new = Catalog(tmp_path / "second")

    def told() -> list[str]:
        pairs = ((path, new.directory / path.relative_to(old.directory)) for path in old.paths())
        return [
            line for ours, theirs in pairs for line in differences(*map(new.read, (ours, theirs)))
        ]

    assert told() == []
    path = new.directory / "tests" / "test_tally.py" / "test_it_counts.yaml"
    path.write_text(path.read_text().replace('\\"words\\": 3', '\\"words\\": 4'))
    assert any('\\"words\\": 4' in line for line in told())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[28/Nov/2026 00:03:16] GET", "[29/Dec/2026 10:13:59] GET"),
        ("28/Nov/2026:00:03:16 +0000", "29/Dec/2026:00:03:16 +0100"),
        ("at 2026-11-28T00:03:16Z", "at 2026-12-28T00:03:17Z"),
        ("at 2026-11-28 00:03:16.123456+00:00", "at 2026-11-28 00:03:16.654321+00:00"),
        ("2026-11-28 00:03:16,123 INFO", "2026-11-28 10:03:16,124 INFO"),
        ("Sat, 28 Nov 2026 02:39:33 GMT", "Sun, 29 Nov 2026 02:39:33 GMT"),
        ("Sat Nov 28 02:43:30 UTC 2026", "Sun Nov  1 02:43:30 UTC 2026"),
    ],
)
def test_moments_in_output_are_no_difference(tmp_path: Path, old: str, new: str) -> None:
    def entry(text: str) -> Entry:
        answer = {"exit_code": 0, "stdout": f"before {text} after"}
        response = {"status": {"code": 200}, "body": {"string": json.dumps(answer).encode()}}
        asked = VcrRequest("POST", f"http://x{URL}", b'{"command":["date"]}', {})
        return Entry(tmp_path, {}, [asked], [response])

    assert differences(entry(old), entry(new)) == []
    assert differences(entry(old), entry(f"{new} words"))
    assert differences(entry("100-200"), entry("100-300"))


def test_what_vcrpy_alone_has_recorded_replays(tmp_path: Path) -> None:
    path = tmp_path / "test_a.py" / "test_x.yaml"
    path.parent.mkdir()
    shutil.copy(RECORDED / "plain.yaml", path)
    recorder = Recorder(tmp_path, mode="replay", scrubber=Scrubber(environ={}))
    with recorder.use(CassetteKey.test("test_a.py::test_x")):
        http = Http(recorder.transport(None), "https://elsewhere.invalid")
        for word in ("one", "two"):
            body = {"command": ["echo", word]}
            assert http.request("POST", URL, json=body).json()["stdout"] == f"{word}\n"
        with pytest.raises(CassetteMiss, match="three"):
            http.request("POST", URL, json={"command": ["echo", "three"]})
    (entry,) = Catalog(tmp_path).entries()
    assert entry.problem == ""


def test_what_a_newer_version_has_recorded_says_what_to_do(tmp_path: Path) -> None:
    shutil.copytree(RECORDED / "second", tmp_path / "new")
    path = tmp_path / "new" / "tests" / "test_tally.py" / "test_it_counts.yaml"
    path.write_text(path.read_text().replace("format: 1", "format: 2"))
    recorder = Recorder(tmp_path / "new", mode="replay", scrubber=Scrubber(environ={}))
    with recorder.use(CassetteKey.test("tests/test_tally.py::test_it_counts")):
        http = Http(recorder.transport(None), "https://elsewhere.invalid")
        with pytest.raises(CassetteError, match="record it again with --fly-record=all"):
            http.request("POST", URL, json={})
