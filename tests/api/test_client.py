from __future__ import annotations

import traceback

import pytest

from pytest_flymachines.api import MachinesClient, PoolTransport, build_transport
from pytest_flymachines.errors import SettingsError
from tests.api.conftest import TOKEN
from tests.api.server import ApiServer

REGIONS = "/v1/platform/regions"


def test_the_token_and_the_name_of_the_client_are_sent(
    client: MachinesClient, server: ApiServer
) -> None:
    server.on("GET", REGIONS, {})
    client.list_regions()
    headers = server.requests[0].headers
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert headers["user-agent"].startswith("pytest-flymachines/")


def test_without_a_token_no_authorization_is_sent(server: ApiServer) -> None:
    """Within a machine, the socket `/.fly/api` asks for none."""
    server.on("GET", REGIONS, {})
    with MachinesClient("", base_url=server.url) as client:
        client.list_regions()
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize("path", ["", "/", "/v1", "/some/where?x=1"])
def test_only_the_origin_of_the_base_url_counts(server: ApiServer, path: str) -> None:
    server.on("GET", REGIONS, {})
    with MachinesClient(TOKEN, base_url=server.url + path) as client:
        client.list_regions()
    assert server.requests[0].path == REGIONS


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://api.machines.dev", "https://api.machines.dev"),
        ("http://_api.internal:4280", "http://_api.internal:4280"),
        ("http://[fdaa::3]:4280/v1", "http://[fdaa::3]:4280"),
        ("https://user:pass@API.machines.dev/", "https://api.machines.dev"),
    ],
)
def test_the_base_urls_of_fly_are_taken(url: str, shown: str) -> None:
    with MachinesClient(TOKEN, base_url=url) as client:
        assert repr(client) == f"MachinesClient(base_url={shown!r})"


@pytest.mark.parametrize("url", ["", "api.machines.dev", "ftp://x", "http://", "http://x:port"])
def test_a_bad_base_url_is_named(url: str) -> None:
    with pytest.raises(SettingsError, match="base_url=") as caught:
        MachinesClient(TOKEN, base_url=url)
    chain = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    frames = [frame for frame in chain.stack if frame.name != "test_a_bad_base_url_is_named"]
    assert frames
    assert TOKEN not in str([frame.locals for frame in frames])


def test_a_given_transport_stays_open(server: ApiServer) -> None:
    server.on("GET", REGIONS, {})
    with build_transport(PoolTransport(), pace=False) as transport:
        for _ in range(2):
            with MachinesClient(TOKEN, base_url=server.url, transport=transport) as client:
                client.list_regions()
    assert server.connections == 1


@pytest.mark.parametrize(
    "body",
    [
        {
            "nearest": "ord",
            "regions": [
                {"code": "ord", "name": "Chicago", "latitude": 41.9, "gateway_available": True}
            ],
        },
        {
            "Nearest": "ord",
            "Regions": [
                {"Code": "ord", "Name": "Chicago", "Latitude": 41.9, "GatewayAvailable": True}
            ],
        },
    ],
)
def test_regions_are_read_in_both_spellings(
    client: MachinesClient, server: ApiServer, body: dict[str, object]
) -> None:
    """The API's document has `regions`, its servers send `Regions`."""
    server.on("GET", REGIONS, body)
    regions = client.list_regions()
    assert regions.nearest == "ord"
    (region,) = regions.regions
    assert (region.code, region.name, region.latitude) == ("ord", "Chicago", 41.9)
    assert region.gateway_available
