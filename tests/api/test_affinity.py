from __future__ import annotations

import threading

import pytest

from pytest_flymachines._http import Http, PoolTransport
from pytest_flymachines.api import MachinesClient, build_transport
from pytest_flymachines.api.affinity import AffinityTransport
from tests.api.server import Answer, ApiServer

APP = {"id": "z4k69dxd8r31p5mx", "name": "my-app"}
CREATED = Answer(201, APP, {"set-cookie": "fly_flaps_affinity=node7; Path=/v1/apps/my-app"})


def test_calls_for_a_new_app_go_to_the_server_that_made_it(
    client: MachinesClient, server: ApiServer
) -> None:
    server.on("POST", "/v1/apps", CREATED)
    server.on("GET", "/v1/apps/my-app", APP)
    server.on("GET", "/v1/apps/my-app/machines", [])
    server.on("GET", "/v1/apps/my-app-2", {"name": "my-app-2"})
    client.create_app("my-app", "personal")
    client.get_app("my-app")
    client.list_machines("my-app")
    client.get_app("my-app-2")
    cookies = [request.headers.get("cookie") for request in server.requests]
    assert cookies == [None, "fly_flaps_affinity=node7", "fly_flaps_affinity=node7", None]


def test_cookies_stay_beneath_the_transport(server: ApiServer) -> None:
    """What records the exchange above must not find what differs from run to run."""
    server.on("GET", "/v1/apps/my-app", CREATED)
    with AffinityTransport(PoolTransport()) as transport:
        http = Http(transport, server.url)
        for _ in range(2):
            response = http.request("GET", "/v1/apps/my-app")
            assert "set-cookie" not in response.headers
            assert "cookie" not in response.request.headers
    assert server.requests[1].headers["cookie"] == "fly_flaps_affinity=node7"


def test_a_newer_cookie_replaces_the_older(server: ApiServer) -> None:
    path = "/v1/apps/my-app"
    cookies = [f"fly_flaps_affinity=node{number}; Path={path}" for number in (1, 2)]
    server.on("GET", path, *[Answer(200, APP, {"set-cookie": cookie}) for cookie in cookies])
    with build_transport(PoolTransport(), pace=False) as transport:
        for _ in range(3):
            Http(transport, server.url).request("GET", path)
    sent = [request.headers.get("cookie") for request in server.requests]
    assert sent == [None, "fly_flaps_affinity=node1", "fly_flaps_affinity=node2"]


@pytest.mark.parametrize("threads", [8])
def test_threads_share_the_jar(server: ApiServer, threads: int) -> None:
    server.on("GET", "/v1/apps/my-app", CREATED)
    failures: list[BaseException] = []
    with build_transport(PoolTransport(), pace=False) as transport:
        http = Http(transport, server.url)

        def work() -> None:
            try:
                for _ in range(20):
                    http.request("GET", "/v1/apps/my-app")
            except BaseException as error:  # noqa: BLE001 - shown by the assert
                failures.append(error)

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert failures == []
    assert len(server.requests) == 20 * threads
    assert server.requests[-1].headers["cookie"] == "fly_flaps_affinity=node7"
