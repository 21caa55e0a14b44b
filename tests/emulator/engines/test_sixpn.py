"""The private network between machines: who reaches whom, and what nobody can pretend."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_flymachines.emulator.engines.base import GATEWAY, Door, RunningMachine
from pytest_flymachines.emulator.engines.bubblewrap import BubblewrapEngine
from pytest_flymachines.emulator.engines.supervised import SupervisedMachine
from pytest_flymachines.emulator.engines.supervisor import switch
from pytest_flymachines.emulator.engines.supervisor.tree import children
from tests.emulator.engines.lab import Lab, eventually, output, parent_of, sh

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

CAN = os.geteuid() == 0 and Path("/dev/net/tun").exists() and Path("/proc/net/if_inet6").exists()


@pytest.fixture(scope="module", params=["bubblewrap"])
def engine_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


needs_tunnels = pytest.mark.skipif(not CAN, reason="no /dev/net/tun for this user, or no IPv6")

# Prints the text of each datagram that arrives, and from whom.
LISTEN = (
    "import socket; s = socket.socket(10, 2); s.bind(('::', 9000)); print('ready', flush=True)\n"
    "while True:\n d, a = s.recvfrom(99); print(d.decode(), a[0], flush=True)"
)
# Sends a datagram with whatever source address one likes.
SEND = (
    "import socket, struct, sys\n"
    "src, dst = (socket.inet_pton(10, a) for a in sys.argv[1:3])\n"
    "text = sys.argv[3].encode(); length = 8 + len(text)\n"
    "udp = struct.pack('!HHHH', 9000, 9000, length, 0) + text\n"
    "total = src + dst + struct.pack('!II', length, 17) + udp + b'\\0' * (length % 2)\n"
    "c = sum(struct.unpack('!%dH' % (len(total) // 2), total))\n"
    "while c >> 16: c = (c & 65535) + (c >> 16)\n"
    "udp = udp[:6] + struct.pack('!H', ~c & 65535) + text\n"
    "s = socket.socket(10, socket.SOCK_RAW, socket.IPPROTO_RAW)\n"
    "s.sendto(struct.pack('!IHBB', 6 << 28, length, 17, 64) + src + dst + udp, (sys.argv[2], 0))"
)


async def send(machine: RunningMachine, source: str, target: str, text: str) -> None:
    outcome = await machine.exec(["python3", "-c", SEND, source, target, text], timeout_s=60)
    assert outcome.exit_code == 0, outcome


@needs_tunnels
async def test_nobody_speaks_from_the_address_of_another(lab: Lab) -> None:
    target = await lab.start("python3", "-c", LISTEN)
    await lab.start()
    liar = await lab.start()
    one, two, three = (f"fdaa:0:1:a7b:1::{n}" for n in (1, 2, 3))

    async def heard() -> list[str]:
        return lab.log("m1").read_text().splitlines()

    await eventually(heard, lambda lines: "ready" in lines)
    await send(liar, two, one, "forged")
    await send(liar, GATEWAY, one, "forged")
    await send(liar, three, one, "honest")
    await eventually(heard, lambda lines: f"honest {three}" in lines)
    assert not any("forged" in line for line in await heard())
    assert await output(target, "echo fine") == "fine"


@needs_tunnels
async def test_networks_are_apart(lab: Lab) -> None:
    await lab.start("python3", "-c", LISTEN)
    stranger = await lab.start(network="other")
    neighbour = await lab.start()
    one, two, three = (f"fdaa:0:1:a7b:1::{n}" for n in (1, 2, 3))

    async def heard() -> list[str]:
        return lab.log("m1").read_text().splitlines()

    await eventually(heard, lambda lines: "ready" in lines)
    await send(stranger, two, one, "from elsewhere")
    await send(neighbour, three, one, "from here")
    await eventually(heard, lambda lines: f"from here {three}" in lines)
    assert not any("elsewhere" in line for line in await heard())


@needs_tunnels
async def test_root_in_a_machine_cannot_change_its_network(lab: Lab) -> None:
    machine = await lab.start()
    for attempt in (
        "ip -6 addr add fdaa::77/128 dev fly0",
        "ip link set fly0 mtu 9000",
        "ip tuntap add dev tun7 mode tun",
        "ip route add default dev fly0",
    ):
        assert (await sh(machine, attempt)).exit_code != 0, attempt


@needs_tunnels
async def test_gateway_is_nowhere_near_this_computers_network(tmp_path: Path) -> None:
    """What machines find there is only what was put there."""
    asked: list[bytes] = []

    def serve(sock: socket.socket) -> Callable[[], None]:
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        loop.add_reader(sock, lambda: asked.append(sock.recv(99)))

        def close() -> None:
            loop.remove_reader(sock)
            sock.close()

        return close

    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as ours:
        port = ours.getsockname()[1]
        lab = Lab(BubblewrapEngine(tmp_path / "engine"), tmp_path / "engine", tmp_path)
        await lab.engine.admit([Door("udp", 53, serve)])
        machine = await lab.start()
        connect = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 9)"
        outcome = await machine.exec(["python3", "-c", connect, GATEWAY, str(port)], timeout_s=60)
        assert b"Connection refused" in outcome.stderr
        ask = "import socket; socket.socket(10, 2).sendto(b'x', ('fdaa::3', 53))"
        assert (await machine.exec(["python3", "-c", ask], timeout_s=60)).exit_code == 0

        async def seen() -> list[bytes]:
            return asked

        await eventually(seen, lambda pieces: pieces == [b"x"])
        await lab.end()
        await lab.engine.close()
        ours.settimeout(0)
        with pytest.raises(BlockingIOError):
            ours.accept()


@needs_tunnels
async def test_switch_that_dies_is_replaced(tmp_path: Path) -> None:
    """Machines keep their interfaces and find each other and the gateway again."""
    greetings = 0

    def serve(sock: socket.socket) -> Callable[[], None]:
        sock.setblocking(False)
        loop = asyncio.get_running_loop()

        def greet() -> None:
            nonlocal greetings
            greetings += 1
            sock.accept()[0].close()

        loop.add_reader(sock, greet)

        def close() -> None:
            loop.remove_reader(sock)
            sock.close()

        return close

    lab = Lab(BubblewrapEngine(tmp_path / "engine"), tmp_path / "engine", tmp_path)
    await lab.engine.admit([Door("tcp", 4280, serve)])
    server = await lab.start("busybox", "httpd", "-f", "-p", "[::]:7005")
    assert isinstance(server, SupervisedMachine)
    spawner = parent_of(server._pid)

    async def switches() -> set[int]:
        machines = (m for m in lab.machines if isinstance(m, SupervisedMachine))
        return set(children(spawner)) - {machine._pid for machine in machines}

    suspended = await lab.start("sleep", "inf")
    await suspended.suspend()
    client = await lab.start()
    ask = "busybox nc -w 5 {} {} < /dev/null"
    for _ in range(3):
        # the kernel may leave out a child while another one ends
        (the_switch,) = await eventually(switches, lambda found: len(found) == 1)
        os.kill(the_switch, signal.SIGKILL)
        for address, port in (("fdaa:0:1:a7b:1::1", 7005), (GATEWAY, 4280)):
            question = ask.format(address, port)
            await eventually(lambda: sh(client, question), lambda seen: seen.exit_code == 0)  # noqa: B023
        late = await lab.start()
        assert (await sh(late, ask.format("fdaa:0:1:a7b:1::1", 7005))).exit_code == 0
        refused = await sh(client, ask.format("fdaa:0:1:a7b:1::2", 7005))
        assert b"No route to host" in refused.stderr
    await suspended.resume()
    assert b"refused" in (await sh(client, ask.format("fdaa:0:1:a7b:1::2", 7005))).stderr
    assert greetings >= 3
    await lab.end()
    await lab.engine.close()


def test_checksum_is_that_of_the_example_of_the_rfc() -> None:
    """RFC 1071, section 3: the sum of these is ddf2."""
    assert switch._checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2 ^ 0xFFFF
