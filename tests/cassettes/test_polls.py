"""Polls of a process that a wider fixture started, by tests that came in another order."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_flymachines.cassettes.identities import started
from pytest_flymachines.cassettes.meaning import Meaning
from pytest_flymachines.cassettes.polls import Offsets, moved, without_offsets

SHARED = "{session/server process 1 process}"
AGENT = "POST /v1/apps/{app}/machines/m/agent/processes/%s/poll"
EXEC = "POST /v1/apps/{app}/machines/m/exec"


def agent(name: str, out: int) -> Meaning:
    return Meaning(AGENT % name, json.dumps({"forget": False, "stderr": 0, "stdout": out}))


def api(name: str, out: int) -> Meaning:
    words = ["/bin/sh", "-c", "fly", "", "/workspace", "/", "poll", name, str(out), "0", ""]
    return Meaning(EXEC, json.dumps({"command": words}))


@pytest.mark.parametrize("ask", [agent, api])
def test_offsets_count_only_for_a_process_of_the_test_itself(ask: Any) -> None:
    assert without_offsets(ask(SHARED, 3))[0] == without_offsets(ask(SHARED, 9))[0]
    assert without_offsets(ask(SHARED, 9))[1] == Offsets(9, 0)
    assert without_offsets(ask("p1-00000000", 3)) == (ask("p1-00000000", 3), None)


def test_any_other_request_is_left_as_it_is() -> None:
    for asked in (
        Meaning(EXEC, f'{{"command":["echo","{SHARED}"]}}'),
        Meaning("GET /x", SHARED),
        Meaning(AGENT.replace("poll", "stdin") % SHARED, "text"),
    ):
        assert without_offsets(asked) == (asked, None)


AGENT_ANSWER = {
    "id": "p1-00000000",
    "stdout": "got 1",
    "stderr": "",
    "stdout_size": 15,
    "stderr_size": 0,
}
API_ANSWER = {"exit_code": 0, "stdout": "p1-00000000 12 - 15 0 7 - -bg\nb\nZ290IDE=\n.\n.\n"}


def test_sizes_move_to_where_the_asker_is() -> None:
    now = json.loads(
        moved(json.dumps(AGENT_ANSWER).encode(), Offsets(10, 0), Offsets(2, 0), again=False)
    )
    assert (now["stdout"], now["stdout_size"]) == ("got 1", 7)
    now = json.loads(
        moved(json.dumps(API_ANSWER).encode(), Offsets(10, 0), Offsets(2, 0), again=False)
    )
    assert now["stdout"] == "p1-00000000 12 - 7 0 7 - -bg\nb\nZ290IDE=\n.\n.\n"


def test_the_same_answer_once_more_brings_nothing_new() -> None:
    now = json.loads(
        moved(json.dumps(AGENT_ANSWER).encode(), Offsets(10, 0), Offsets(7, 0), again=True)
    )
    assert (now["stdout"], now["stdout_size"]) == ("", 7)
    now = json.loads(
        moved(json.dumps(API_ANSWER).encode(), Offsets(10, 0), Offsets(7, 0), again=True)
    )
    assert now["stdout"] == "p1-00000000 12 - 7 0 7 - -bg\n.\n.\n"


def test_a_process_is_known_by_what_started_it() -> None:
    for answer in (AGENT_ANSWER, API_ANSWER):
        body = json.dumps(answer).encode()
        assert started("POST", "/v1/apps/a/machines/m/exec", 200, body) == {
            "process": "p1-00000000"
        }
        assert started("POST", "/v1/apps/a/machines/m/exec", 500, body) is None
        assert started("GET", "/v1/apps/a/machines/m/exec", 200, body) is None
    other = json.dumps({"exit_code": 0, "stdout": "p1-00000000 is no process"}).encode()
    assert started("POST", "/v1/apps/a/machines/m/exec", 200, other) is None
