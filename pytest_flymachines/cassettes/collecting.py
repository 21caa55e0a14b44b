"""A pytest plugin that tells what was collected, to the process that started pytest for it."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import msgspec
import pytest

from pytest_flymachines.cassettes.owners import fixture_base, test_key

__all__ = ["ANSWER", "QUESTION", "Answer", "Facts"]

QUESTION = "PYTEST_FLYMACHINES_WANTED_FIXTURES"
ANSWER = "PYTEST_FLYMACHINES_COLLECTED"

Facts = dict[str, str]


class Answer(msgspec.Struct):
    """What is there.

    Attributes:
        tests: Node ids.
        fixtures: Those of the wanted fixtures that exist.
    """

    tests: list[str]
    fixtures: list[Facts]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, items: list[pytest.Item]
) -> Generator[None, None, None]:
    """Look before anything is deselected."""
    wanted = msgspec.json.decode(Path(os.environ[QUESTION]).read_bytes(), type=list[Facts])
    places = list({item.parent: item for item in items}.values())
    answer = Answer(
        sorted({test_key(item).label for item in items}),
        [facts for facts in wanted if any(_sees(session, item, facts) for item in places)],
    )
    Path(os.environ[ANSWER]).write_bytes(msgspec.json.encode(answer))
    yield


def _sees(session: pytest.Session, item: pytest.Item, facts: Facts) -> bool:
    """Whether a test could use the fixture that a cassette is of."""
    if not item.nodeid.startswith(facts.get("node", "")):
        return False
    manager = session._fixturemanager  # noqa: SLF001 - pytest has no public way to ask
    return any(
        definition.scope == facts.get("scope") and fixture_base(definition) == facts.get("base", "")
        for definition in manager.getfixturedefs(facts.get("name", ""), item) or ()
    )
