"""What the API's error answers become."""

from __future__ import annotations

import logging
import pickle
import traceback
from typing import Any

import pytest

from pytest_flymachines.api import MachinesClient
from pytest_flymachines.errors import (
    ApiError,
    ApiUnreachable,
    CapacityError,
    Conflict,
    FlyMachinesError,
    NotFound,
    RateLimited,
    SettingsError,
    Unauthorized,
)
from tests.api.conftest import TOKEN
from tests.api.server import REQUEST_ID, Answer, ApiServer, Cut, Hang, free_port

MACHINE = "/v1/apps/app/machines/d5683210c7968e"


def _fail(client: MachinesClient, server: ApiServer, status: int, body: Any) -> ApiError:
    server.on("POST", f"{MACHINE}/suspend", Answer(status, body, chunked=True))
    with pytest.raises(ApiError) as caught:
        client.suspend_machine("app", "d5683210c7968e")
    return caught.value


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ApiError),
        (401, Unauthorized),
        (403, Unauthorized),
        (404, NotFound),
        (408, ApiError),
        (409, Conflict),
        (412, Conflict),
        (422, ApiError),
        (429, RateLimited),
        (500, ApiError),
        (503, ApiError),
    ],
)
@pytest.mark.usefixtures("no_back_off")
def test_each_status_has_its_error(
    client: MachinesClient, server: ApiServer, status: int, kind: type[ApiError]
) -> None:
    error = _fail(client, server, status, {"error": "unknown: it broke"})
    assert type(error) is kind
    assert (error.method, error.path, error.status) == ("POST", f"{MACHINE}/suspend", status)
    assert (error.message, error.request_id) == ("unknown: it broke", REQUEST_ID)
    for part in (str(status), f"POST {MACHINE}/suspend", "unknown: it broke", REQUEST_ID):
        assert part in str(error)
    assert str(error).startswith("unknown: it broke")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (
            409,
            {
                "error": "aborted: could not reserve resource for machine: insufficient memory "
                "available to fulfill request"
            },
        ),
        (409, {"error": "aborted: insufficient IPs available to fulfill request"}),
        (409, {"error": "aborted: no capacity"}),
        (
            412,
            {
                "error": "insufficient resources to create new machine with existing volume id "
                "'vol_1'",
                "status": "volume_placement_capacity",
            },
        ),
        (422, {"error": "could not find a candidate host", "status": "insufficient_capacity"}),
        (422, {"error": "worded anew", "status": "insufficient_capacity"}),
    ],
)
def test_lack_of_room_is_recognized_by_text_or_status(
    client: MachinesClient, server: ApiServer, status: int, body: dict[str, str]
) -> None:
    assert type(_fail(client, server, status, body)) is CapacityError


@pytest.mark.parametrize(
    "text",
    [
        "aborted: machine still attempting to resume",
        "invalid config.guest.memory_mb, minimum required 1024 MiB",
    ],
)
def test_other_conflicts_are_no_lack_of_room(
    client: MachinesClient, server: ApiServer, text: str
) -> None:
    assert type(_fail(client, server, 409, {"error": text})) is Conflict


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            {"status": "error", "message": "machine ID x lease currently held", "code": "invalid"},
            "machine ID x lease currently held",
        ),
        ({"error": "old", "message": "new"}, "new"),
        ({"error": {"unexpected": True}}, '{"error": {"unexpected": true}}'),
        ([1], "[1]"),
        (b"404 page not found\n", "404 page not found"),
        (b"<html>502 Bad Gateway</html>", "<html>502 Bad Gateway</html>"),
        (b"", "(empty body)"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_every_shape_of_body_gives_a_message(
    client: MachinesClient, server: ApiServer, body: Any, message: str
) -> None:
    assert _fail(client, server, 500, body).message == message


def test_an_unauthorized_error_says_where_the_token_comes_from(
    client: MachinesClient, server: ApiServer
) -> None:
    error = _fail(client, server, 401, {"error": "Authenticate: token validation error"})
    assert isinstance(error, PermissionError)
    assert "FLY_API_TOKEN" in str(error)


def test_a_redirect_is_an_error_and_not_followed(client: MachinesClient, server: ApiServer) -> None:
    server.on("GET", MACHINE, Answer(302, b"", {"location": "/elsewhere"}))
    with pytest.raises(ApiError, match="302"):
        client.get_machine("app", "d5683210c7968e")
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", [b"<html>Welcome</html>", b"", b"[1, 2]", b'{"name": "no id"}'])
def test_a_success_that_cannot_be_read_names_the_answer(
    client: MachinesClient, server: ApiServer, body: bytes
) -> None:
    server.on("GET", MACHINE, Answer(200, body))
    with pytest.raises(ApiUnreachable, match="cannot be read as Machine") as caught:
        client.get_machine("app", "d5683210c7968e")
    assert not caught.value.ambiguous


@pytest.mark.parametrize(
    ("status", "ambiguous"), [(408, True), (500, True), (502, True), (400, False), (429, False)]
)
@pytest.mark.usefixtures("no_back_off")
def test_an_answer_says_whether_a_create_may_have_worked(
    client: MachinesClient, server: ApiServer, status: int, ambiguous: bool
) -> None:
    server.on("POST", "/v1/apps/app/machines", Answer(status, {"error": "x"}))
    with pytest.raises(ApiError) as caught:
        client.create_machine("app", {"image": "x"}, name="n")
    assert caught.value.ambiguous is ambiguous


def test_a_lost_answer_to_a_create_is_ambiguous(client: MachinesClient, server: ApiServer) -> None:
    server.on("POST", "/v1/apps/app/machines", Cut())
    with pytest.raises(ApiUnreachable, match="may have taken effect") as caught:
        client.create_machine("app", {"image": "x"}, name="n")
    assert caught.value.ambiguous
    assert len(server.requests) == 1


@pytest.mark.usefixtures("no_back_off")
def test_a_create_that_was_not_sent_is_not_ambiguous() -> None:
    client = MachinesClient(TOKEN, base_url=f"http://127.0.0.1:{free_port()}")
    with client, pytest.raises(ApiUnreachable, match="refused") as caught:
        client.create_machine("app", {"image": "x"})
    assert not caught.value.ambiguous
    assert isinstance(caught.value, ConnectionError)


@pytest.mark.parametrize("status", [404, 503])
@pytest.mark.usefixtures("no_back_off")
def test_errors_survive_the_way_to_another_process(
    client: MachinesClient, server: ApiServer, status: int
) -> None:
    """pytest-xdist and multiprocessing pickle them."""
    error = _fail(client, server, status, {"error": "gone"})
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.ambiguous) == (type(error), str(error), error.ambiguous)
    lost = pickle.loads(pickle.dumps(ApiUnreachable("no answer", True)))
    assert (str(lost), lost.ambiguous) == ("no answer", True)


@pytest.mark.parametrize("value", ["", ".", ".."])
def test_an_id_that_leads_to_another_path_is_refused(client: MachinesClient, value: str) -> None:
    with pytest.raises(SettingsError, match="no name or id"):
        client.destroy_machine("app", value)


def _provoke(client: MachinesClient, server: ApiServer) -> list[BaseException]:
    server.on(
        "POST", f"{MACHINE}/exec", Answer(500, {"error": "x"}), Cut(), Hang(), Answer(200, b"")
    )
    errors: list[BaseException] = []
    for _ in range(4):
        try:
            client.exec("app", "d5683210c7968e", ["true"], timeout_s=1)
        except FlyMachinesError as error:
            errors.append(error)
    return errors


@pytest.mark.usefixtures("no_back_off")
def test_no_error_or_log_or_shown_local_holds_the_token(
    client: MachinesClient,
    server: ApiServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`pytest --showlocals` prints the locals of every frame in a chain of exceptions."""
    monkeypatch.setattr("pytest_flymachines.api.execution._MARGIN_S", -0.9)
    with caplog.at_level(logging.DEBUG):
        errors = _provoke(client, server)
    assert len(errors) == 4
    for error in errors:
        chain = traceback.TracebackException.from_exception(error, capture_locals=True)
        assert TOKEN not in "".join(chain.format())
    assert TOKEN not in caplog.text
    assert TOKEN not in repr(client)
    assert client.__repr__() == f"MachinesClient(base_url='{server.url}')"
