"""Machines with a network of their own; everything they ask for stays on this computer."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_flymachines.emulator.engines import computer
from pytest_flymachines.emulator.engines.egress import Policy
from pytest_flymachines.emulator.engines.pasta import NAMESERVER, _own, find_pasta
from pytest_flymachines.emulator.engines.processes import list_processes
from pytest_flymachines.emulator.engines.supervised import SupervisedMachine
from tests.emulator.engines.lab import output, sh
from tests.emulator.engines.test_egress import lab_with

OWN = [
    str(net.network_address)
    for net in _own(Path("/proc/net/fib_trie").read_text())
    if not net.is_loopback
]

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

needs_pasta = pytest.mark.skipif(
    find_pasta(Policy()) is None, reason="no pasta (Debian: passt), or no /dev/net/tun for us"
)

ASK = "import socket; print(socket.create_connection(('{}', {}), 10).recv(99).decode())"


@pytest.fixture
def port() -> Iterator[int]:
    """A server on an address of this computer that is not loopback; it greets nobody by itself."""
    if not OWN:
        pytest.skip("this computer has no address but loopback")
    with socket.create_server((OWN[0], 0)) as listener:
        listener.settimeout(0)
        yield listener.getsockname()[1]


@needs_pasta
async def test_addresses_of_this_computer_are_unreachable(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lab_with("public", tmp_path, monkeypatch) as lab:
        machine = await lab.start()
        for address in (OWN[0], "10.0.0.1", "169.254.169.254", "192.168.0.1"):
            outcome = await machine.exec(["python3", "-c", ASK.format(address, port)], timeout_s=60)
            assert b"No route to host" in outcome.stderr
        removal = await sh(machine, "ip route del unreachable 10.0.0.0/8")
        assert removal.exit_code != 0


@needs_pasta
async def test_pasta_and_what_it_forks_are_no_processes_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lab_with("public", tmp_path, monkeypatch) as lab:
        machine = await lab.start("sleep", "7030")
        assert isinstance(machine, SupervisedMachine)
        assert "--config-net" in str(list_processes(machine._pid))
        inside = [process.command for process in list_processes(machine._pid, walled=True)]
        assert "--config-net" not in str(inside)
        assert [process.command for process in await machine.processes()] == ["sleep 7030"]


@needs_pasta
async def test_everything_is_reachable_if_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not OWN:
        pytest.skip("this computer has no address but loopback")
    with socket.create_server((OWN[0], 0)) as listener:
        port = listener.getsockname()[1]
        connect = f"import socket; socket.create_connection(('{OWN[0]}', {port}), 10)"
        async with lab_with("all", tmp_path, monkeypatch) as lab:
            machine = await lab.start()
            outcome = await machine.exec(["python3", "-c", connect], timeout_s=60)
            assert outcome.exit_code == 0
            assert await output(machine, "cat /etc/resolv.conf") == f"nameserver {NAMESERVER}"
            assert (await sh(machine, "env | grep -i _proxy")).exit_code == 1
        listener.settimeout(10)
        listener.accept()[0].close()


@needs_pasta
async def test_two_machines_listen_on_one_port_and_loopback_stays_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        async with lab_with("all", tmp_path, monkeypatch) as lab:
            serve = ["python3", "-m", "http.server", str(port)]
            await lab.start(*serve)
            two = await lab.start()
            outcome = await two.exec(["python3", "-c", ASK.format("127.0.0.1", port)], timeout_s=60)
            assert b"ConnectionRefusedError" in outcome.stderr
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            listener.accept()


async def test_pasta_that_does_not_work_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(computer, "find_pasta", lambda policy: "/bin/false")
    async with lab_with("public", tmp_path, monkeypatch) as lab:
        probe = await lab.engine.probe()
        assert probe.works
        assert "HTTP proxy" in " ".join(probe.notes)
        assert "127.0.0.1" in await output(await lab.start(), "echo $https_proxy")
