from __future__ import annotations

import contextlib
import multiprocessing
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx
import vcr

from pytest_flymachines._http import (
    ConnectError,
    Http,
    PoolTransport,
    ReadTimeout,
    RemoteProtocolError,
    Response,
    TransportError,
)
from tests.api.server import Answer, ApiServer, Cut, Hang, Reset, free_port, wait_until


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as server:
        server.on("GET", "/x", {"n": 1})
        yield server


@pytest.fixture
def pool() -> Iterator[PoolTransport]:
    with PoolTransport() as pool:
        yield pool


@pytest.fixture
def http(server: ApiServer, pool: PoolTransport) -> Http:
    return Http(pool, server.url, {"authorization": "Bearer s3cret"})


# requests


def test_json_params_and_headers_arrive(server: ApiServer, http: Http) -> None:
    server.on("POST", "/a%2Fb", {})
    http.request(
        "POST",
        "/a%2Fb",
        params={"state": ["stopped", "suspended"], "wait": True, "none": None, "n": 3},
        headers={"fly-machine-lease-nonce": "5c35"},
        json={"b": 1, "a": "ü"},
    )
    (seen,) = server.requests
    assert seen.query == {"state": ["stopped", "suspended"], "wait": ["true"], "n": ["3"]}
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["fly-machine-lease-nonce"] == "5c35"
    assert seen.headers["authorization"] == "Bearer s3cret"
    assert seen.body == '{"b":1,"a":"ü"}'.encode()


def test_a_header_of_one_request_does_not_stay(server: ApiServer, http: Http) -> None:
    http.request("GET", "/x", headers={"fly-machine-lease-nonce": "5c35"})
    http.request("GET", "/x")
    assert "fly-machine-lease-nonce" not in server.requests[1].headers


def test_the_path_is_appended_to_a_base_url_with_a_path(
    server: ApiServer, pool: PoolTransport
) -> None:
    Http(pool, f"{server.url}/x/").request("GET", "/y")
    assert server.requests[0].path == "/x/y"


@pytest.mark.parametrize("known_length", [True, False])
def test_a_body_in_pieces_is_streamed(server: ApiServer, http: Http, known_length: bool) -> None:
    server.on("PUT", "/file", {})
    data = bytes(range(256)) * 1000
    pieces = (data[start : start + 9999] for start in range(0, len(data), 9999))
    headers = {"content-length": str(len(data))} if known_length else {}
    http.request("PUT", "/file", content=pieces, headers=headers)
    (seen,) = server.requests
    assert seen.body == data
    assert ("transfer-encoding" in seen.headers) is not known_length


def test_a_chunked_answer_is_put_together(server: ApiServer, http: Http) -> None:
    server.on("GET", "/x", Answer(body=list(range(100)), chunked=True))
    assert http.request("GET", "/x").json() == list(range(100))


def test_an_answer_can_be_read_piece_by_piece(server: ApiServer, http: Http) -> None:
    data = bytes(range(256)) * 4000
    server.on("GET", "/x", Answer(body=data))
    with http.stream("GET", "/x") as response:
        pieces = list(response.iter_bytes())
    assert b"".join(pieces) == data
    assert len(pieces) > 1


def test_a_connection_stays_in_use_after_a_long_answer(server: ApiServer, http: Http) -> None:
    """One of known length is read in a way of its own."""
    data = bytes(range(256)) * 20_000
    server.on("GET", "/big", Answer(body=data))
    for _ in range(2):
        with http.stream("GET", "/big") as response:
            assert b"".join(response.iter_bytes()) == data
        assert http.request("GET", "/x").json() == {"n": 1}
    assert server.connections == 1


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 304)])
def test_a_long_body_that_is_only_spoken_of_is_not_awaited(
    pool: PoolTransport, method: str, status: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                for _ in range(2):
                    connection.recv(65536)
                    head = f"HTTP/1.1 {status} So\r\ncontent-length: 5000000\r\n\r\n"
                    connection.sendall(head.encode())

        thread = threading.Thread(target=serve)
        thread.start()
        http = Http(pool, f"http://127.0.0.1:{listener.getsockname()[1]}")
        for _ in range(2):
            assert http.request(method, "/", timeout_s=60).status_code == status
        thread.join()


def test_the_answer_knows_its_request(http: Http) -> None:
    response = http.request("GET", "/x")
    assert response.request.method == "GET"
    assert response.request.url.path == "/x"


def test_head_and_body_of_a_small_request_travel_together(pool: PoolTransport) -> None:
    """Two pieces would cost this computer and the server a system call each."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pieces: list[bytes] = []

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                pieces.append(connection.recv(65536))
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        Http(pool, f"http://127.0.0.1:{listener.getsockname()[1]}").request("POST", "/", json=[1])
        thread.join()
    assert pieces[0].endswith(b"\r\n\r\n[1]")


def test_a_refusal_before_the_whole_body_was_read_is_the_answer(pool: PoolTransport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(b"HTTP/1.1 413 Too Much\r\ncontent-length: 0\r\n\r\n")
                connection.shutdown(socket.SHUT_WR)
                with contextlib.suppress(OSError):
                    while connection.recv(65536):  # an unread rest would become a reset
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        http = Http(pool, f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert http.request("PUT", "/", content=bytes(1 << 20)).status_code == 413
        pool.close()
        thread.join()


# connections


def test_a_connection_is_used_again(server: ApiServer, http: Http) -> None:
    for _ in range(5):
        http.request("GET", "/x")
    assert server.connections == 1


def test_threads_have_connections_of_their_own_at_the_same_time(
    server: ApiServer, http: Http
) -> None:
    together = threading.Barrier(4, timeout=60)
    server.on("GET", "/x", Answer(before=together.wait))
    threads = [threading.Thread(target=http.request, args=("GET", "/x")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.connections == 4
    assert len(server.requests) == 4


def test_a_half_read_answer_does_not_spoil_the_next_one(server: ApiServer, http: Http) -> None:
    server.on("GET", "/big", Answer(body=b"z" * 5_000_000))
    with http.stream("GET", "/big") as response:
        next(response.iter_bytes(100))
    assert http.request("GET", "/x").json() == {"n": 1}
    assert server.connections == 2


def test_a_connection_that_the_server_closed_is_replaced(http: Http, server: ApiServer) -> None:
    server.on("POST", "/x", Answer(headers={"connection": "close"}))
    for _ in range(3):
        assert http.request("POST", "/x").status_code == 200
    assert server.connections == 3


def test_a_connection_that_died_while_idle_is_replaced(pool: PoolTransport) -> None:
    """A server may close without saying so in its answer; a POST must not fail for that."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        http = Http(pool, f"http://127.0.0.1:{listener.getsockname()[1]}")

        def serve() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        assert http.request("POST", "/").status_code == 200
        wait_until(lambda: _readable(pool))
        assert http.request("POST", "/").status_code == 200
        thread.join()


def _readable(pool: PoolTransport) -> bool:
    (idle,) = pool._idle.values()
    return idle[0].has_expired()


def test_an_idle_connection_expires(server: ApiServer) -> None:
    with PoolTransport(keepalive_s=0.0) as pool:
        http = Http(pool, server.url)
        http.request("GET", "/x")
        http.request("GET", "/x")
    assert server.connections == 2


def test_connections_of_a_burst_of_threads_are_closed_when_they_have_been_idle(
    server: ApiServer,
) -> None:
    together = threading.Barrier(4, timeout=60)
    server.on("GET", "/burst", Answer(before=together.wait))
    with PoolTransport(keepalive_s=0.2) as pool:
        http = Http(pool, server.url)
        threads = [threading.Thread(target=http.request, args=("GET", "/burst")) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (burst,) = [list(connections) for connections in pool._idle.values()]
        wait_until(lambda: all(connection.is_old() for connection in burst))
        http.request("GET", "/x")
        (idle,) = pool._idle.values()
        assert len(idle) == 1
    assert [c.stream.get_extra_info("socket").fileno() for c in burst] == [-1] * len(burst)


def test_closing_closes_idle_connections_and_those_in_use_when_they_end(
    server: ApiServer, pool: PoolTransport
) -> None:
    http = Http(pool, server.url)
    http.request("GET", "/x")
    (idle,) = [c for connections in pool._idle.values() for c in connections]
    with http.stream("GET", "/x") as response:
        pool.close()
        response.read()
    assert idle.stream.get_extra_info("socket").fileno() == -1
    assert not pool._idle


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_does_not_share_sockets(server: ApiServer, http: Http) -> None:
    """As with pytest-forked: two processes on one socket would read each other's answers."""
    http.request("GET", "/x")

    def child(queue: Any) -> None:
        queue.put(http.request("GET", "/x").json())

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    assert queue.get(timeout=20) == {"n": 1}
    process.join()
    assert http.request("GET", "/x").json() == {"n": 1}
    assert server.connections == 2


def test_a_unix_socket_stands_for_every_host(tmp_path: Path) -> None:
    path = tmp_path / "api"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                head = connection.recv(65536)
                body = head.split(b"\r\n", 1)[0]
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
                )

        thread = threading.Thread(target=serve)
        thread.start()
        with PoolTransport(uds=str(path)) as pool:
            response = Http(pool, "http://flaps").request("GET", "/v1/apps")
        thread.join()
    assert response.text == "GET /v1/apps HTTP/1.1"


# failures


def test_nobody_listening_is_a_connect_error(pool: PoolTransport) -> None:
    with pytest.raises(ConnectError, match="refused"):
        Http(pool, f"http://127.0.0.1:{free_port()}").request("GET", "/")


def test_a_name_that_does_not_resolve_is_a_connect_error(pool: PoolTransport) -> None:
    with pytest.raises(ConnectError):
        Http(pool, "http://nowhere.invalid").request("GET", "/")


def test_silence_is_a_read_timeout(server: ApiServer, http: Http) -> None:
    server.on("GET", "/x", Hang())
    with pytest.raises(ReadTimeout):
        http.request("GET", "/x", timeout_s=0.05)


def test_an_end_without_answer_is_a_protocol_error(server: ApiServer, http: Http) -> None:
    server.on("GET", "/x", Cut())
    with pytest.raises(RemoteProtocolError, match="without sending a response"):
        http.request("GET", "/x")


def test_a_reset_is_a_transport_error(server: ApiServer, http: Http) -> None:
    server.on("GET", "/x", Reset())
    with pytest.raises(TransportError):
        http.request("GET", "/x")


def test_a_body_that_ends_early_is_a_protocol_error(server: ApiServer, http: Http) -> None:
    server.on("GET", "/x", Answer(body=b"half", declared=8))
    with pytest.raises(RemoteProtocolError):
        http.request("GET", "/x")
    server.on("GET", "/x", Answer(body=b"half", declared=8_000_000))
    with pytest.raises(RemoteProtocolError, match=r"received 4 bytes, expected 8000000"):
        http.request("GET", "/x")


def test_the_pool_works_after_a_failure(server: ApiServer, http: Http) -> None:
    server.on("GET", "/x", Reset(), Cut(), {"n": 2})
    for _ in range(2):
        with pytest.raises(TransportError):
            http.request("GET", "/x")
    assert http.request("GET", "/x").json() == {"n": 2}


def test_only_http_and_https_are_spoken(pool: PoolTransport) -> None:
    with pytest.raises(TransportError, match="ftp"):
        Http(pool, "ftp://127.0.0.1").request("GET", "/")


# other people's mocks


def test_httpx_mocks_do_not_catch_it(http: Http, httpx_mock: Any) -> None:
    assert http.request("GET", "/x").json() == {"n": 1}


@pytest.mark.parametrize("using", ["httpcore", "httpx"])
def test_respx_does_not_catch_it(http: Http, server: ApiServer, using: str) -> None:
    with respx.mock(using=using, assert_all_called=False) as mock:
        mock.route().respond(418)
        assert httpx.get(f"{server.url}/x").status_code == 418
        assert http.request("GET", "/x").json() == {"n": 1}


def test_a_users_cassette_does_not_catch_it(http: Http, server: ApiServer, tmp_path: Path) -> None:
    with vcr.use_cassette(str(tmp_path / "users.yaml"), record_mode="all") as cassette:
        httpx.get(f"{server.url}/x")
        http.request("GET", "/x")
    assert len(cassette.requests) == 1


# TLS and proxies


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("tls")
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    make = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        "-subj /CN=machines.test -addext subjectAltName=DNS:machines.test"
    )
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*make.split(), *files], check=True, capture_output=True)
    return certificate, key


@pytest.fixture
def tls_port(certificate: tuple[Path, Path]) -> Iterator[int]:
    """A server of TLS for machines.test that answers every request with `secure`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError), context.wrap_socket(self.request, True) as secure:
                while secure.recv(65536):
                    secure.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecure")

    with _serving(Handler) as port:
        yield port


@pytest.fixture
def proxy(tls_port: int) -> Iterator[tuple[int, list[bytes]]]:
    """A proxy whose every tunnel ends at the TLS server; its port and the requests it got."""
    heads: list[bytes] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            head = self.request.recv(65536)
            heads.append(head)
            if b"refuse.test" in head:
                self.request.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
                return
            self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            with socket.create_connection(("127.0.0.1", tls_port)) as target:
                back = threading.Thread(target=_pump, args=(target, self.request))
                back.start()
                _pump(self.request, target)
                back.join()

    with _serving(Handler) as port:
        yield port, heads


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def _serving(handler: type[socketserver.BaseRequestHandler]) -> Iterator[int]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def _get(certificate: Path, url: str) -> Response:
    context = ssl.create_default_context(cafile=certificate)
    with PoolTransport(ssl_context=context) as pool:
        return Http(pool, url).request("GET", "/")


def test_an_unknown_authority_is_refused(tls_port: int) -> None:
    with PoolTransport() as pool, pytest.raises(ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        Http(pool, f"https://127.0.0.1:{tls_port}").request("GET", "/")


@pytest.fixture
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.usefixtures("_no_proxies")
@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "ALL_PROXY"])
def test_https_goes_through_the_proxy_of_the_environment(
    certificate: tuple[Path, Path],
    proxy: tuple[int, list[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    port, heads = proxy
    monkeypatch.setenv(variable, f"http://me:p%40ss@127.0.0.1:{port}")
    assert _get(certificate[0], "https://machines.test").text == "secure"
    (head,) = heads
    assert head.startswith(b"CONNECT machines.test:443 HTTP/1.1\r\n")
    assert b"roxy-authorization: Basic bWU6cEBzcw==" in head.replace(b"Proxy-A", b"proxy-a")


@pytest.mark.usefixtures("_no_proxies")
def test_a_proxy_that_refuses_is_named(
    certificate: tuple[Path, Path],
    proxy: tuple[int, list[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("https_proxy", f"127.0.0.1:{proxy[0]}")
    with pytest.raises(TransportError, match=f"127.0.0.1:{proxy[0]} answered 403 to CONNECT"):
        _get(certificate[0], "https://refuse.test")


@pytest.mark.usefixtures("_no_proxies")
def test_loopback_excluded_names_and_plain_http_go_through_no_proxy(
    server: ApiServer,
    tls_port: int,
    proxy: tuple[int, list[bytes]],
    certificate: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("https_proxy", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy[0]}")
    monkeypatch.setenv("no_proxy", "nowhere.invalid")
    with PoolTransport() as pool:
        assert Http(pool, server.url).request("GET", "/x").status_code == 200
    for host in (f"127.0.0.1:{tls_port}", f"localhost:{tls_port}", "nowhere.invalid"):
        with pytest.raises(ConnectError):
            _get(certificate[0], f"https://{host}")
    assert proxy[1] == []


# secrets


def test_no_header_value_is_shown_by_a_representation(http: Http) -> None:
    response = http.request("GET", "/x")
    shown = repr(http) + repr(response.request) + repr(response.request.headers) + repr(response)
    assert "s3cret" not in shown
