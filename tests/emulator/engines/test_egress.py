"""The way out of a machine; only to servers on this computer's loopback, which tests allow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from pytest_flymachines.emulator.engines import computer
from pytest_flymachines.emulator.engines.base import EngineError
from pytest_flymachines.emulator.engines.bubblewrap import BubblewrapEngine
from pytest_flymachines.emulator.engines.egress import SETTING, Policy
from tests.emulator.engines.lab import Lab, output, sh

pytestmark = [pytest.mark.timeout(120)]

FETCH = (
    "import sys, urllib.request as r, urllib.error as e\n"
    "try: print(r.urlopen(sys.argv[1], timeout=20).read().decode())\n"
    "except e.HTTPError as error: print(error.code, error.read().decode())\n"
)
# As a TLS client does, without the TLS.
TUNNEL = (
    "import sys, os, socket, urllib.parse as p\n"
    "proxy = p.urlsplit(os.environ['https_proxy'])\n"
    "sock = socket.create_connection((proxy.hostname, proxy.port), 20)\n"
    "sock.sendall(f'CONNECT {sys.argv[1]} HTTP/1.1\\r\\n\\r\\n'.encode())\n"
    "head = sock.recv(4096)\n"
    "print(head.split(b'\\r\\n')[0].decode(), flush=True)\n"
    "sock.sendall(b'through the tunnel\\n')\n"
    "print(sock.recv(4096).decode())\n"
)


@asynccontextmanager
async def server(answer: bytes | None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """On loopback: answers each request with `answer`, or echoes; port, and what it was sent."""
    seen: list[bytes] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read(65536))
        writer.write(seen[-1] if answer is None else answer)
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1], seen


@asynccontextmanager
async def lab_with(
    setting: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Lab]:
    monkeypatch.setenv(SETTING, setting)
    engine = BubblewrapEngine(directory / "engine")
    lab = Lab(engine, directory / "engine", directory)
    try:
        yield lab
        await lab.end()
    finally:
        await engine.close()


class TestMachine:
    pytestmark = pytest.mark.anyio

    @pytest.fixture(autouse=True)
    def without_pasta(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(computer, "find_pasta", lambda policy: None)

    async def test_allowed_server_is_reached(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reply = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nreached"
        async with (
            server(reply) as (port, seen),
            lab_with(f"127.0.0.1:{port}", tmp_path, monkeypatch) as lab,
        ):
            machine = await lab.start(env={"no_proxy": "", "NO_PROXY": ""})
            fetch = ["python3", "-c", FETCH, f"http://127.0.0.1:{port}/path?x=1"]
            outcome = await machine.exec(fetch, timeout_s=60)
            assert outcome.stdout == b"reached\n"
        assert seen[0].startswith(b"GET /path?x=1 HTTP/1.1\r\n")
        assert b"proxy-connection" not in seen[0].lower()

    async def test_tunnel_carries_bytes_both_ways(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with (
            server(None) as (port, _),
            lab_with(f"127.0.0.1:{port}", tmp_path, monkeypatch) as lab,
        ):
            machine = await lab.start()
            tunnel = ["python3", "-c", TUNNEL, f"127.0.0.1:{port}"]
            outcome = await machine.exec(tunnel, timeout_s=60)
        expected = b"HTTP/1.1 200 Connection established\nthrough the tunnel\n\n"
        assert outcome.stdout == expected

    async def test_loopback_is_refused_with_the_way_to_allow_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with (
            server(b"never") as (port, seen),
            lab_with("public", tmp_path, monkeypatch) as lab,
        ):
            machine = await lab.start(env={"no_proxy": "", "NO_PROXY": ""})
            fetch = ["python3", "-c", FETCH, f"http://localhost:{port}/"]
            outcome = await machine.exec(fetch, timeout_s=60)
        assert outcome.stdout.startswith(b"403 ")
        assert f"{SETTING}=".encode() in outcome.stdout
        assert seen == []

    async def test_main_process_finds_it_from_its_first_moment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with lab_with("public", tmp_path, monkeypatch) as lab:
            machine = await lab.start("python3", "-c", TUNNEL, "127.0.0.1:9")
            await machine.wait()
            assert lab.log().read_text().startswith("HTTP/1.1 403 Forbidden")

    async def test_none_means_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        async with lab_with("none", tmp_path, monkeypatch) as lab:
            machine = await lab.start()
            assert (await sh(machine, "env | grep -i proxy")).exit_code == 1
            assert "10BF" not in await output(machine, "cat /proc/net/tcp")

    async def test_wrong_setting_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with lab_with("somewhere", tmp_path, monkeypatch) as lab:
            with pytest.raises(EngineError, match=f"{SETTING}: 'somewhere'"):
                await lab.start()
            assert "somewhere" in (await lab.engine.probe()).why


class TestPolicy:
    @pytest.mark.parametrize(
        "address",
        [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "fdaa::3",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
        ],
    )
    def test_what_is_not_public_is_refused(self, address: str) -> None:
        assert not Policy().permits(ip_address(address), 443)
        assert Policy.parse("all").permits(ip_address(address), 443)

    @pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700:4700::1111", "64:ff9b::101:101"])
    def test_what_is_public_is_permitted(self, address: str) -> None:
        assert Policy().permits(ip_address(address), 443)

    def test_networks_can_be_allowed_with_and_without_a_port(self) -> None:
        policy = Policy.parse("10.0.0.0/8, 127.0.0.1:3141,[::1]:80")
        assert policy.permits(ip_address("10.9.9.9"), 1)
        assert policy.permits(ip_address("127.0.0.1"), 3141)
        assert policy.permits(ip_address("::1"), 80)
        assert not policy.permits(ip_address("127.0.0.1"), 3142)
        assert not policy.permits(ip_address("192.168.0.1"), 80)
