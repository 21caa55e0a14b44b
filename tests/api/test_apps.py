from __future__ import annotations

import pytest

from pytest_flymachines.api import MachinesClient
from pytest_flymachines.errors import Conflict, NotFound, Unauthorized
from tests.api.server import Answer, ApiServer, StepClock

APP = {
    "id": "z4k69dxd8r31p5mx",
    "name": "my-app",
    "internal_numeric_id": 17,
    "network": "default",
    "status": "deployed",
    "machine_count": 2,
    "organization": {"name": "Me", "slug": "personal", "internal_numeric_id": 3},
}
ONE = "/v1/apps/my-app"
BRIEF = Answer(201, {"id": "z4k69dxd8r31p5mx", "created_at": 1708631799000})
UNKNOWN = Answer(404, {"error": 'Could not find App "my-app"'})


def test_an_app_is_read(client: MachinesClient, server: ApiServer) -> None:
    server.on("GET", ONE, APP)
    app = client.get_app("my-app")
    assert (app.name, app.status, app.organization.slug) == ("my-app", "deployed", "personal")


def test_the_apps_of_an_organization_are_listed(client: MachinesClient, server: ApiServer) -> None:
    server.on("GET", "/v1/apps", {"total_apps": 1, "apps": [{"id": "x", "name": "my-app"}]})
    assert [app.name for app in client.list_apps("personal")] == ["my-app"]
    assert server.requests[0].query == {"org_slug": ["personal"]}


def test_an_app_is_created(client: MachinesClient, server: ApiServer) -> None:
    server.on("POST", "/v1/apps", Answer(201, APP))
    assert client.create_app("my-app", "personal").id == "z4k69dxd8r31p5mx"
    client.create_app("my-app", "personal", network="own")
    assert server.requests[0].query == {"wait": ["true"]}
    assert [request.json for request in server.requests] == [
        {"name": "my-app", "org_slug": "personal"},
        {"name": "my-app", "org_slug": "personal", "network": "own"},
    ]


def test_a_new_app_is_waited_for_until_it_is_known(
    client: MachinesClient, server: ApiServer, clock: StepClock
) -> None:
    """Fly's documented answer has no name, and other servers know it later."""
    server.on("POST", "/v1/apps", BRIEF)
    server.on("GET", ONE, UNKNOWN, Answer(401, {"error": "Authenticate"}), APP)
    assert client.create_app("my-app", "personal").name == "my-app"
    assert clock.slept == [1.0, 1.0]


def test_an_app_that_stays_unknown_is_not_found(
    client: MachinesClient, server: ApiServer, clock: StepClock
) -> None:
    server.on("POST", "/v1/apps", BRIEF)
    server.on("GET", ONE, UNKNOWN)
    with pytest.raises(NotFound):
        client.create_app("my-app", "personal")
    assert clock.now == 1060


def test_a_taken_name_is_a_conflict(client: MachinesClient, server: ApiServer) -> None:
    text = "Validation failed: Name has already been taken"
    server.on("POST", "/v1/apps", Answer(422, {"error": text, "status": "name_taken"}))
    with pytest.raises(Conflict, match="already been taken"):
        client.create_app("my-app", "personal")


def test_an_app_of_another_organization_is_out_of_reach(
    client: MachinesClient, server: ApiServer
) -> None:
    server.on("GET", ONE, Answer(403, {"error": "unauthorized"}))
    with pytest.raises(Unauthorized):
        client.get_app("my-app")


def test_an_app_is_deleted(client: MachinesClient, server: ApiServer) -> None:
    server.on("DELETE", ONE, Answer(202, b""))
    client.delete_app("my-app")
    client.delete_app("my-app", force=True)
    assert [request.query for request in server.requests] == [{}, {"force": ["true"]}]


def test_addresses_are_given_listed_and_taken(client: MachinesClient, server: ApiServer) -> None:
    ip = {"ip": "2a09:8280:1::1", "region": "global", "service_name": "", "shared": False}
    server.on("POST", f"{ONE}/ip_assignments", ip)
    server.on("GET", f"{ONE}/ip_assignments", {"ips": [ip]}, {"ips": None})
    server.on("DELETE", f"{ONE}/ip_assignments/2a09%3A8280%3A1%3A%3A1", Answer(204))
    assert client.assign_ip("my-app", "v6").ip == "2a09:8280:1::1"
    assert server.requests[0].json == {"type": "v6"}
    assert [one.ip for one in client.list_ips("my-app")] == ["2a09:8280:1::1"]
    assert client.list_ips("my-app") == []
    client.delete_ip("my-app", "2a09:8280:1::1")
    client.assign_ip("my-app", "private_v6", network="own", org_slug="personal")
    assert server.requests[-1].json == {
        "type": "private_v6",
        "org_slug": "personal",
        "network": "own",
    }
