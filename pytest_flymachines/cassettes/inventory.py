"""Which tests and fixtures a project has, to tell whose cassettes have no owner any more."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import msgspec

from pytest_flymachines.cassettes.catalog import Entry
from pytest_flymachines.cassettes.collecting import ANSWER, QUESTION, Answer, Facts
from pytest_flymachines.cassettes.identities import EXISTING
from pytest_flymachines.errors import CassetteError

__all__ = ["orphans"]

_COMMAND = [
    *(sys.executable, "-m", "pytest", "--collect-only", "-q", "--rootdir", "."),
    *("-p", "pytest_flymachines.cassettes.collecting", "-p", "no:cacheprovider"),
]


def orphans(entries: Iterable[Entry], rootdir: Path) -> list[Entry]:
    """Cassettes whose test, fixture or spec is not there any more.

    Args:
        entries: All cassettes of a project.
        rootdir: The project's directory, to which node ids are relative.

    Raises:
        CassetteError: The tests cannot be collected, so nothing is known.
    """
    readable = [entry for entry in entries if not entry.problem]
    wanted = [entry.header["fixture"] for entry in readable if "fixture" in entry.header]
    found = _collect(wanted, rootdir, [])
    collected = {test.partition("::")[0] for test in found.tests}
    # tests that nobody runs by default were recorded by name
    others = {_file(entry) for entry in readable} - collected - {""}
    if there := sorted(file for file in others if (rootdir / file).exists()):
        more = _collect(wanted, rootdir, there)
        found = Answer(found.tests + more.tests, found.fixtures + more.fixtures)
    tests = set(found.tests)
    gone = [entry for entry in readable if _is_gone(entry, tests, found.fixtures)]
    kept = [entry for entry in readable if entry not in gone]
    needed = {alias for entry in kept if "sandbox" not in entry.header for alias in entry.machines}
    return gone + [entry for entry in kept if not needed.issuperset(_alias(entry))]


def _collect(wanted: list[Facts], rootdir: Path, files: list[str]) -> Answer:
    """Ask pytest, in a process of its own, what it would run."""
    with tempfile.TemporaryDirectory(prefix="pytest-flymachines-") as scratch:
        question, answer = Path(scratch, "question"), Path(scratch, "answer")
        question.write_bytes(msgspec.json.encode(wanted))
        done = subprocess.run(
            [*_COMMAND, *files],
            cwd=rootdir,
            env={**os.environ, QUESTION: str(question), ANSWER: str(answer)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in (0, 5) or not answer.exists():
            raise CassetteError(
                f"the tests of {rootdir} could not be collected, so it is not known whose "
                "cassettes have no test any more; pytest said:\n"
                f"{_errors(done.stdout)}\n{done.stderr.strip()}"
            )
        return msgspec.json.decode(answer.read_bytes(), type=Answer)


def _errors(output: str) -> str:
    """What pytest says of errors, without the tests that it lists before."""
    return output[max(0, output.find("= ERRORS =")) :].strip()


def _file(entry: Entry) -> str:
    """The test file that an entry is of; empty if it is of none."""
    return str(entry.header.get("test", "")).partition("::")[0]


def _alias(entry: Entry) -> list[str]:
    """What the machine of a provisioning is called by those who use it; none for all others."""
    if "sandbox" not in entry.header:
        return []
    return [EXISTING if entry.header.get("machine") else f"sandboxes/{entry.header['sandbox']}"]


def _is_gone(entry: Entry, tests: set[str], fixtures: list[Facts]) -> bool:
    header = entry.header
    if "test" in header:
        return header["test"] not in tests
    return "fixture" in header and header["fixture"] not in fixtures
