"""The wire format of exec and poll, by a client that nobody here wrote."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.agent.running import RunningAgent

fast = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def http(agent: RunningAgent) -> Any:
    with agent.http() as client:
        yield client


def unpacked(value: Any) -> bytes:
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else value.encode()


def test_a_request_as_the_machines_api_takes_it_gets_its_answer(http: httpx.Client) -> None:
    answer = http.post("/exec", json={"cmd": "sh -c 'pwd; cat; exit 4'", "stdin": "in"})
    assert answer.status_code == 200
    assert answer.json() == {"exit_code": 4, "exit_signal": 0, "stdout": "/\nin", "stderr": ""}
    answer = http.post("/exec", json={"command": ["sh", "-c", "kill -9 $$"], "timeout": 10})
    assert answer.json() == {"exit_code": None, "exit_signal": 9, "stdout": "", "stderr": ""}
    answer = http.post("/exec", json={"command": ["printf", "\\377"]})
    assert answer.json()["stdout"] == "\ufffd"


def test_a_request_of_the_machines_api_has_none_of_its_limits(http: httpx.Client) -> None:
    text = "x" * 100_000
    answer = http.post("/exec", json={"command": ["cat"], "stdin": text * 10, "timeout": 600})
    assert answer.json()["stdout"] == text * 10


def test_a_time_out_of_the_machines_api_is_its_408(http: httpx.Client) -> None:
    answer = http.post("/exec", json={"command": ["sleep", "30"], "timeout": 1})
    assert (answer.status_code, answer.json()["error"][:17]) == (408, "deadline_exceeded")


def test_no_time_out_is_zero_for_clients_that_cannot_leave_it_out(http: httpx.Client) -> None:
    answer = http.post("/exec", json={"command": ["sleep", "0.1"], "timeout": 0})
    assert answer.json()["exit_code"] == 0


def test_output_that_is_mostly_nul_is_base64(http: httpx.Client) -> None:
    body = {"command": ["head", "-c", "300", "/dev/zero"], "wait_s": 20}
    assert http.post("/exec", json=body).json()["stdout"] == {"base64": "A" * 400}


def test_any_of_our_fields_makes_it_start_and_wait(http: httpx.Client) -> None:
    answer = http.post("/exec", json={"command": ["echo", "hi"], "wait_s": 20, "forget": True})
    body = answer.json()
    assert list(body) == [
        "id", "pid", "running", "exit_code", "exit_signal", "timed_out", "stdout", "stderr",
        "stdout_size", "stderr_size", "stdout_truncated", "stderr_truncated", "duration_s",
    ]  # fmt: skip
    assert body["stdout"] == "hi\n"
    assert body["id"].startswith("p")


def test_output_that_is_no_text_is_marked_base64(http: httpx.Client) -> None:
    body = {"command": ["printf", "a\\377"], "wait_s": 20}
    assert http.post("/exec", json=body).json()["stdout"] == {"base64": "Yf8="}
    body = {"command": ["cat"], "stdin": {"base64": "AP8="}, "wait_s": 20}
    assert http.post("/exec", json=body).json()["stdout"] == {"base64": "AP8="}


@fast
@given(text=st.text("aé€😀\n", min_size=1, max_size=40), cut=st.integers(0, 200))
def test_text_stays_text_where_a_write_cuts_a_character(
    http: httpx.Client, text: str, cut: int
) -> None:
    data = text.encode()
    cut %= len(data)
    stdin = {"base64": base64.b64encode(data[:cut]).decode()}
    start = {"command": ["cat"], "keep_stdin": True, "stdin": stdin, "wait_s": 0}
    process = http.post("/exec", json=start).json()
    path = f"/agent/processes/{process['id']}"
    whole = len(data[:cut].decode(errors="ignore").encode())
    got = b""
    while len(got) < whole:
        poll = {"stdout": len(got), "stderr": 0, "wait_s": 20}
        piece = http.post(f"{path}/poll", json=poll).json()["stdout"]
        assert isinstance(piece, str)
        got += piece.encode()
    http.post(f"{path}/stdin?eof=1", content=data[cut:])
    running = True
    while running or len(got) < len(data):
        poll = {"stdout": len(got), "stderr": 0, "wait_s": 20, "forget": True}
        answer = http.post(f"{path}/poll", json=poll).json()
        assert isinstance(answer["stdout"], str)
        got += answer["stdout"].encode()
        running = answer["running"]
    assert got == data


def test_a_lone_part_of_a_character_is_given_once_the_wait_is_over(http: httpx.Client) -> None:
    """Else a program that speaks a binary protocol, and waits for an answer, would hang."""
    start = {"command": ["sh", "-c", "printf '\\342'; exec sleep 30"], "wait_s": 0}
    process = http.post("/exec", json=start).json()
    path = f"/agent/processes/{process['id']}"
    answer: dict[str, Any] = {"stdout": ""}
    while not answer["stdout"]:
        poll = {"stdout": 0, "stderr": 0, "wait_s": 0.05}
        answer = http.post(f"{path}/poll", json=poll).json()
    assert unpacked(answer["stdout"]) == b"\xe2"
    http.delete(path)


def test_a_long_text_is_cut_between_characters(http: httpx.Client) -> None:
    script = "for i in 1 2 3 4 5; do head -c 300000 /dev/zero | sed 's/\\x00/€/g'; done; printf €"
    start = {"command": ["sh", "-c", script], "wait_s": 60}
    process = http.post("/exec", json=start).json()
    assert process["stdout_size"] == 4_500_003
    got = process["stdout"]
    polls = 0
    while (size := len(got.encode())) < 4_500_003:
        poll = {"stdout": size, "stderr": 0}
        got += http.post(f"/agent/processes/{process['id']}/poll", json=poll).json()["stdout"]
        polls += 1
    assert got == "€" * 1_500_001
    assert polls == 2


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, ["command=None", "list"]),
        ({"command": []}, ["command=[]"]),
        ({"command": ["a\0b"], "wait_s": 0}, ["NUL"]),
        ({"command": [3]}, ["command=3"]),
        ({"cmd": "echo 'open"}, ["echo 'open", "quotation"]),
        ({"command": ["true"], "wait_s": "5"}, ["wait_s='5'", "float"]),
        ({"command": ["true"], "timeout": -1}, ["timeout=-1"]),
        ({"command": ["true"], "pty": [0, 80]}, ["[0, 80]", "65535"]),
        ({"command": ["true"], "pty": [24]}, ["[24]"]),
        ({"command": ["true"], "env": {"A": 1}}, ["env A=1"]),
        ({"command": ["true"], "env": {"A": "\0"}}, ["NUL"]),
        ({"command": ["true"], "env": {"A=B": "1"}}, ["A=B", "without ="]),
        ({"command": ["true"], "env": {"": "1"}}, ["without ="]),
        ({"command": ["true"], "cwd": "\0", "wait_s": 0}, ["NUL"]),
        ({"command": ["true"], "stdin": {"base64": "?"}, "wait_s": 0}, ["stdin", "base64"]),
        ({"command": ["true"], "forget": 1}, ["forget=1", "bool"]),
    ],
)
def test_a_request_that_makes_no_sense_is_told_why(
    http: httpx.Client, body: dict[str, Any], words: list[str]
) -> None:
    answer = http.post("/exec", json=body)
    assert answer.status_code == 400
    for word in words:
        assert word in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("poll", {"stdout": -1}),
        ("signal", {"signal": 999}),
        ("signal", {"signal": "TERM"}),
        ("resize", {"rows": 24}),
    ],
)
def test_nonsense_about_a_process_is_told(
    http: httpx.Client, path: str, body: dict[str, Any]
) -> None:
    process = http.post("/exec", json={"command": ["true"], "wait_s": 20}).json()
    answer = http.post(f"/agent/processes/{process['id']}/{path}", json=body)
    assert answer.status_code == 400
    assert "expected" in answer.json()["error"]
