from __future__ import annotations

import datetime
import email.utils
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import stamina
from stamina.instrumentation import RetryDetails

from pytest_flymachines._http import ConnectError, Http, PoolTransport, Response, TransportError
from pytest_flymachines.api.calls import EXTENSION, Call
from pytest_flymachines.api.retry import RetryTransport, _retry_after_s
from tests.api.server import Answer, ApiServer, Cut, Hang, Reset, Step, free_port

FULL = Answer(429, {"error": "rate limit exceeded"})
BUSY = Answer(503, b"")
DONE = Answer(200, {"done": True})


@pytest.fixture
def http(server: ApiServer) -> Iterator[Http]:
    with RetryTransport(PoolTransport()) as transport:
        yield Http(transport, server.url)


def _send(http: Http, server: ApiServer, method: str, call: Call | None, *steps: Step) -> Response:
    server.on(method, "/x", *steps)
    extensions = {EXTENSION: call} if call else None
    return http.request(method, "/x", timeout_s=30, extensions=extensions)


@pytest.mark.parametrize(
    "failure", [FULL, BUSY, Answer(408), Answer(500), Answer(502, b"<html>"), Cut(), Reset()]
)
@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("GET", None),
        ("GET", Call("get", "m", repeat_safe=True)),
        ("DELETE", Call("destroy", "m", repeat_safe=True)),
    ],
)
@pytest.mark.usefixtures("no_back_off")
def test_what_is_safe_to_repeat_is_repeated(
    http: Http, server: ApiServer, method: str, call: Call | None, failure: Step
) -> None:
    assert _send(http, server, method, call, failure, failure, DONE).json() == {"done": True}
    assert len(server.requests) == 3


@pytest.mark.usefixtures("no_back_off")
def test_silence_is_outlived(http: Http, server: ApiServer) -> None:
    server.on("GET", "/x", Hang(), DONE)
    assert http.request("GET", "/x", timeout_s=0.5).json() == {"done": True}


@pytest.mark.parametrize("failure", [BUSY, Answer(408), Answer(500), Cut(), Reset()])
@pytest.mark.parametrize(
    ("method", "call"),
    [("POST", Call("create", "app")), ("POST", None), ("GET", Call("wait", "m"))],
)
def test_what_may_have_taken_effect_is_not_repeated(
    http: Http, server: ApiServer, method: str, call: Call | None, failure: Step
) -> None:
    if isinstance(failure, Answer):
        assert _send(http, server, method, call, failure, DONE).status_code == failure.status
    else:
        with pytest.raises(TransportError):
            _send(http, server, method, call, failure, DONE)
    assert len(server.requests) == 1


@pytest.mark.usefixtures("no_back_off")
def test_every_call_is_repeated_after_429(http: Http, server: ApiServer) -> None:
    assert _send(http, server, "POST", Call("create", "app"), FULL, FULL, DONE).status_code == 200
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 404, 409, 412, 422])
@pytest.mark.usefixtures("no_back_off")
def test_other_answers_are_final(http: Http, server: ApiServer, status: int) -> None:
    assert _send(http, server, "GET", None, Answer(status), DONE).status_code == status
    assert len(server.requests) == 1


@pytest.mark.usefixtures("no_back_off")
def test_the_last_answer_is_given_when_nothing_helps(http: Http, server: ApiServer) -> None:
    response = _send(http, server, "GET", None, FULL, BUSY, Answer(502, {"n": 3}), DONE)
    assert (response.status_code, response.json()) == (502, {"n": 3})


@pytest.mark.usefixtures("no_back_off")
def test_the_last_error_is_raised_when_nothing_helps(http: Http, server: ApiServer) -> None:
    with pytest.raises(TransportError):
        _send(http, server, "GET", None, FULL, BUSY, Cut(), DONE)


@pytest.mark.usefixtures("no_back_off")
def test_a_body_in_pieces_is_sent_once(http: Http, server: ApiServer) -> None:
    server.on("PUT", "/x", FULL, DONE)
    assert http.request("PUT", "/x", content=iter([b"a", b"b"])).status_code == 429
    assert len(server.requests) == 1


@pytest.fixture
def scheduled() -> Iterator[list[RetryDetails]]:
    """The retries that stamina has scheduled; pauses are real."""
    seen: list[RetryDetails] = []

    def hook(details: RetryDetails) -> None:
        seen.append(details)

    stamina.instrumentation.set_on_retry_hooks([hook])
    yield seen
    stamina.instrumentation.set_on_retry_hooks(None)


def test_a_server_that_is_not_there_is_tried_a_few_times(scheduled: list[RetryDetails]) -> None:
    with RetryTransport(PoolTransport(), retry_s=20) as transport, pytest.raises(ConnectError):
        Http(transport, f"http://127.0.0.1:{free_port()}").request("POST", "/")
    assert [detail.retry_num for detail in scheduled] == [1, 2, 3]


def test_retry_after_is_honoured(
    http: Http, server: ApiServer, scheduled: list[RetryDetails]
) -> None:
    patient = Answer(429, {"error": "rate limit exceeded"}, {"retry-after": "1"})
    assert _send(http, server, "POST", None, patient, DONE).status_code == 200
    assert [detail.wait_for for detail in scheduled] == [1.0]


def test_no_attempt_is_made_after_the_limit_of_the_call(http: Http, server: ApiServer) -> None:
    call = Call("wait", "m", retry_s=0.0)
    assert _send(http, server, "GET", call, FULL, FULL, FULL, DONE).status_code == 429
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("3", 3.0), ("0", 0.0), ("9999", 30.0), ("", 0.0), ("soon", 0.0), ("-5", 0.0)],
)
def test_retry_after_in_seconds(value: str, seconds: float) -> None:
    assert _retry_after_s(Response(429, headers={"retry-after": value})) == seconds


@pytest.mark.parametrize(("minutes", "least", "most"), [(60, 30.0, 30.0), (-60, 0.0, 0.0)])
def test_retry_after_as_a_date(minutes: int, least: float, most: float) -> None:
    date = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=minutes)
    value = email.utils.format_datetime(date, usegmt=True)
    assert least <= _retry_after_s(Response(429, headers={"retry-after": value})) <= most


FORK = """
import os, signal, sys, threading, time
from pytest_flymachines.api import retry

thread = threading.Thread(target=retry._stamina)
thread.start()
while "stamina" not in sys.modules:
    time.sleep(0.01)
child = os.fork()
if not child:
    signal.alarm(20)
    retry._stamina()
    os._exit(0)
print(os.waitpid(child, 0)[1])
thread.join()
"""


def test_a_fork_while_another_thread_begins_to_repeat_does_not_block_the_child(
    tmp_path: Path,
) -> None:
    (tmp_path / "stamina.py").write_text("import time\ntime.sleep(0.5)\n")
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{FORK}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("0\n", 0), done.stderr
