from __future__ import annotations

from typing import Any

import pytest

from pytest_flymachines.api import MachinesClient
from pytest_flymachines.errors import ApiError, ApiUnreachable, Conflict, SettingsError
from tests.api.samples import ID, PATH
from tests.api.server import Answer, ApiServer, Cut

EXEC = f"{PATH}/exec"


def _body(stdout: str = "", **fields: Any) -> dict[str, Any]:
    return {"exit_code": 0, "exit_signal": 0, "stdout": stdout, "stderr": "", **fields}


def test_a_command_is_sent_as_arguments(client: MachinesClient, server: ApiServer) -> None:
    server.on("POST", EXEC, Answer(200, _body("hi ü\n", exit_code=3, stderr="no"), chunked=True))
    ended = client.exec("app", ID, ["/bin/sh", "-c", "echo hi; exit 3"], timeout_s=10)
    (seen,) = server.requests
    assert seen.json == {"command": ["/bin/sh", "-c", "echo hi; exit 3"], "timeout": 10}
    assert seen.headers["content-type"] == "application/json"
    assert (ended.exit_code, ended.stdout, ended.stderr) == (3, "hi ü\n", "no")


def test_only_what_is_given_is_sent(client: MachinesClient, server: ApiServer) -> None:
    server.on("POST", EXEC, _body())
    client.exec("app", ID, ("true",))
    client.exec("app", ID, ["cat"], stdin="in", container="side", timeout_s=0.2)
    assert [request.json for request in server.requests] == [
        {"command": ["true"]},
        {"command": ["cat"], "timeout": 1, "stdin": "in", "container": "side"},
    ]


@pytest.mark.parametrize(
    ("body", "code", "signal"),
    [
        ({}, 0, 0),
        ({"stdout": None, "stderr": None, "exit_code": None, "exit_signal": None}, 0, 0),
        ({"exit_code": 7}, 7, 0),
        ({"exit_signal": 9}, 137, 9),
        ({"exit_code": None, "exit_signal": 15}, 143, 15),
        ({"exit_code": 137, "exit_signal": 9}, 137, 9),
        ({"exit_code": 5, "exit_signal": -1}, 5, -1),
        ({"exit_signal": -1}, 0, -1),
        ({"exit_code": 0, "new_field": [1]}, 0, 0),
    ],
)
def test_missing_zeros_and_signals_become_exit_codes(
    client: MachinesClient, server: ApiServer, body: dict[str, Any], code: int, signal: int
) -> None:
    server.on("POST", EXEC, body)
    ended = client.exec("app", ID, ["x"])
    assert (ended.exit_code, ended.exit_signal, ended.stdout, ended.stderr) == (
        code,
        signal,
        "",
        "",
    )


REFUSAL = "Unhandled rejection: Rejection([PayloadTooLarge, MethodNotAllowed])"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_an_error_of_the_exec_server_that_looks_like_a_success_is_an_error(
    client: MachinesClient, server: ApiServer, stream: str
) -> None:
    server.on("POST", EXEC, _body() | {stream: f"{REFUSAL}\n"})
    with pytest.raises(ApiError, match="PayloadTooLarge") as caught:
        client.exec("app", ID, ["x"])
    assert caught.value.status == 200


def test_a_command_may_print_such_a_text_itself(client: MachinesClient, server: ApiServer) -> None:
    server.on("POST", EXEC, _body(f"log of yesterday:\n{REFUSAL}\n"))
    assert REFUSAL in client.exec("app", ID, ["cat", "log"]).stdout


@pytest.mark.parametrize("extra", [0, 1])
def test_a_request_that_fly_would_refuse_is_not_sent(
    client: MachinesClient, server: ApiServer, extra: int
) -> None:
    """Fly takes less than 16384 bytes of JSON, quotes and escapes included."""
    server.on("POST", EXEC, _body())
    overhead = len('{"command":[""],"timeout":60}')
    fits = "x" * (16383 - overhead)
    client.exec("app", ID, [fits], timeout_s=60)
    assert len(server.requests[0].body) == 16383
    with pytest.raises(SettingsError, match=r"16384|16385"):
        client.exec("app", ID, [fits + "x" * (1 + extra)], timeout_s=60)
    with pytest.raises(SettingsError, match=r"config\.files"):
        client.exec("app", ID, ["\n" * 8200], timeout_s=60)
    assert len(server.requests) == 1


@pytest.mark.parametrize("timeout_s", [60.1, 120, 0, -1, float("nan")])
def test_a_time_that_fly_would_refuse_is_not_sent(
    client: MachinesClient, server: ApiServer, timeout_s: float
) -> None:
    with pytest.raises(SettingsError, match=f"timeout_s={timeout_s!r}"):
        client.exec("app", ID, ["x"], timeout_s=timeout_s)
    assert server.requests == []


@pytest.mark.parametrize("command", ["ls -l", []])
def test_a_command_that_is_no_sequence_of_arguments_is_refused(
    client: MachinesClient, command: Any
) -> None:
    with pytest.raises(SettingsError, match="sequence of arguments"):
        client.exec("app", ID, command)


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (412, "failed_precondition: machine not running", Conflict),
        (412, "failed_precondition: exec request failed: EOF", Conflict),
        (
            408,
            'deadline_exceeded: Post "http://unix/v1/exec": net/http: request canceled',
            ApiError,
        ),
        (500, "internal: boom", ApiError),
    ],
)
def test_an_exec_is_sent_once(
    client: MachinesClient, server: ApiServer, status: int, text: str, kind: type[ApiError]
) -> None:
    """It may have run: whether to repeat it is the caller's business."""
    server.on("POST", EXEC, Answer(status, {"error": text}), _body())
    with pytest.raises(kind, match=text.split(":")[0]) as caught:
        client.exec("app", ID, ["x"])
    assert caught.value.ambiguous is (status != 412)
    assert len(server.requests) == 1


def test_a_lost_answer_says_that_the_command_may_have_run(
    client: MachinesClient, server: ApiServer
) -> None:
    server.on("POST", EXEC, Cut(), _body())
    with pytest.raises(ApiUnreachable) as caught:
        client.exec("app", ID, ["x"])
    assert caught.value.ambiguous
    assert len(server.requests) == 1


@pytest.mark.usefixtures("no_back_off")
def test_an_exec_waits_for_the_rate_limit(client: MachinesClient, server: ApiServer) -> None:
    server.on("POST", EXEC, Answer(429, {"error": "rate limit exceeded"}), _body("done"))
    assert client.exec("app", ID, ["x"]).stdout == "done"


@pytest.mark.parametrize("body", [b"raw output", b"", b'{"exit_code": "three"}', b'"\xff"'])
def test_an_answer_of_another_shape_is_shown(
    client: MachinesClient, server: ApiServer, body: bytes
) -> None:
    server.on("POST", EXEC, Answer(200, body))
    with pytest.raises(ApiUnreachable, match="cannot be read") as caught:
        client.exec("app", ID, ["x"])
    assert caught.value.ambiguous
