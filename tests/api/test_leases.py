from __future__ import annotations

from typing import Any

import pytest

from pytest_flymachines.api import Lease, MachinesClient
from pytest_flymachines.errors import Conflict, NotFound
from tests.api.samples import ID, PATH
from tests.api.server import Answer, ApiServer

LEASE = f"{PATH}/lease"
FLAT = {
    "nonce": "5c35f65c9f95",
    "expires_at": 1708569778,
    "owner": "hello@fly.io",
    "description": "",
    "version": "01HQ73A7BFFDF1B6WMGHFZZ4E7",
}
NONE = Answer(404, {"error": "not_found: machine lease not found"})


@pytest.fixture(params=["envelope", "flat"])
def body(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Fly's document shows one, its servers send the other."""
    return {"status": "success", "data": FLAT} if request.param == "envelope" else FLAT


def test_a_lease_is_taken(client: MachinesClient, server: ApiServer, body: dict[str, Any]) -> None:
    server.on("POST", LEASE, Answer(201, body))
    lease = client.acquire_lease("app", ID, ttl_s=120, description="tests")
    (seen,) = server.requests
    assert seen.json == {"ttl": 120, "description": "tests"}
    assert "fly-machine-lease-nonce" not in seen.headers
    assert lease == Lease(**FLAT)  # type: ignore[arg-type]


def test_a_lease_is_refreshed_with_its_nonce(
    client: MachinesClient, server: ApiServer, body: dict[str, Any]
) -> None:
    server.on("POST", LEASE, Answer(201, body))
    assert client.refresh_lease("app", ID, "5c35f65c9f95", ttl_s=60).nonce == "5c35f65c9f95"
    assert server.requests[0].headers["fly-machine-lease-nonce"] == "5c35f65c9f95"


def test_a_lease_is_found(client: MachinesClient, server: ApiServer, body: dict[str, Any]) -> None:
    server.on("GET", LEASE, body)
    lease = client.find_lease("app", ID)
    assert lease is not None
    assert lease.owner == "hello@fly.io"


def test_no_lease_is_none(client: MachinesClient, server: ApiServer) -> None:
    server.on("GET", LEASE, NONE)
    assert client.find_lease("app", ID) is None


def test_no_machine_is_not_found(client: MachinesClient, server: ApiServer) -> None:
    gone = Answer(404, {"error": "not_found: machine not found"})
    server.on("GET", LEASE, gone)
    server.on("DELETE", LEASE, gone)
    with pytest.raises(NotFound):
        client.find_lease("app", ID)
    with pytest.raises(NotFound):
        client.release_lease("app", ID, "5c35")


def test_a_lease_is_released_and_an_ended_one_is_fine(
    client: MachinesClient, server: ApiServer
) -> None:
    server.on("DELETE", LEASE, {"status": "success", "data": {"ok": True}}, NONE)
    for _ in range(2):
        client.release_lease("app", ID, "5c35f65c9f95")
    assert server.requests[0].headers["fly-machine-lease-nonce"] == "5c35f65c9f95"


def test_somebody_elses_lease_is_a_conflict_that_says_whose(
    client: MachinesClient, server: ApiServer
) -> None:
    text = f"machine ID {ID} lease currently held by hello@fly.io, expires at 2022-10-20"
    server.on("POST", LEASE, Answer(409, {"status": "error", "message": text, "code": "invalid"}))
    with pytest.raises(Conflict, match=r"hello@fly\.io"):
        client.acquire_lease("app", ID, ttl_s=10)
