from __future__ import annotations

import pytest

from pytest_flymachines.api import MachinesClient
from pytest_flymachines.errors import Conflict, NotFound
from tests.api.samples import ID, PATH, VERSION
from tests.api.server import Answer, ApiServer

METADATA = f"{PATH}/metadata"


def test_all_of_it_is_read(client: MachinesClient, server: ApiServer) -> None:
    server.on("GET", METADATA, {"run": "r1", "Config": "C"}, {})
    assert client.get_metadata("app", ID) == {"run": "r1", "Config": "C"}
    assert client.get_metadata("app", ID) == {}


def test_one_value_is_read(client: MachinesClient, server: ApiServer) -> None:
    server.on("GET", f"{METADATA}/run", {"value": "r1"})
    assert client.get_metadata_value("app", ID, "run") == "r1"
    with pytest.raises(NotFound):
        client.get_metadata_value("app", ID, "other")


def test_a_key_with_a_slash_is_one_segment(client: MachinesClient, server: ApiServer) -> None:
    path = f"{METADATA}/team%2Fenv"
    server.on("POST", path, Answer(204))
    server.on("DELETE", path, Answer(204))
    client.set_metadata("app", ID, "team/env", "x")
    client.delete_metadata("app", ID, "team/env")
    assert server.requests[0].json == {"value": "x"}
    assert [request.method for request in server.requests] == ["POST", "DELETE"]


def test_several_keys_change_at_once(client: MachinesClient, server: ApiServer) -> None:
    server.on("PATCH", METADATA, Answer(204), Answer(412, {"error": "stale machine_version"}))
    client.update_metadata("app", ID, {"a": "1", "b": None})
    with pytest.raises(Conflict):
        client.update_metadata("app", ID, {"a": "1"}, machine_version=VERSION)
    assert [request.json for request in server.requests] == [
        {"metadata": {"a": "1", "b": None}},
        {"metadata": {"a": "1"}, "machine_version": VERSION},
    ]


@pytest.mark.usefixtures("no_back_off")
def test_setting_a_key_outlives_a_server_that_is_busy(
    client: MachinesClient, server: ApiServer
) -> None:
    """A run that cannot move its deadline on loses its machine."""
    server.on("POST", f"{METADATA}/deadline", Answer(503), Answer(502), Answer(204))
    client.set_metadata("app", ID, "deadline", "1785412800")
    assert len(server.requests) == 3
