"""Machines that are containers: what is only theirs."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.types import IPAMConfig, IPAMPool

from pytest_flymachines.emulator.config import MachineConfig
from pytest_flymachines.emulator.engines import cgroups, disks, docker_client
from pytest_flymachines.emulator.engines.base import Door, EngineError, ImageNotFound
from pytest_flymachines.emulator.engines.cgroups import pids_limit
from pytest_flymachines.emulator.engines.docker import DockerEngine
from pytest_flymachines.emulator.engines.supervisor import linux
from pytest_flymachines.emulator.ids import private_ip
from pytest_flymachines.emulator.model import App, Machine
from pytest_flymachines.emulator.nameserver import NameServer
from pytest_flymachines.emulator.store import Store
from tests.emulator.engines import dockerd
from tests.emulator.engines.besieged import own_addresses
from tests.emulator.engines.lab import DEADLINE_S, Lab, devices, eventually, fetch, output, sh

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

SAME = "fdaa:0:e:a7b:1::2"
DIGEST = "sha256:" + "0" * 64


@pytest.fixture(scope="module", params=["docker"])
def engine_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def daemon(docker_host: str) -> Any:
    client = docker.DockerClient(docker_host)
    yield client.api
    client.close()


def image(daemon: Any, tag: str, *changes: str) -> str:
    """The test image with other settings."""
    container = daemon.create_container(dockerd.IMAGE)
    daemon.commit(container, repository="test/made", tag=tag, changes="\n".join(changes))
    daemon.remove_container(container)
    return f"test/made:{tag}"


async def test_an_address_that_leads_nowhere_does_not_hide_that_another_refuses(lab: Lab) -> None:
    """Two daemons of one computer may both have a bridge with the same IPv6 prefix."""
    machine: Any = await lab.start("sleep", "60")
    for addresses in (["127.0.0.1", "fdaa:dead::1"], ["fdaa:dead::1", "127.0.0.1"]):
        machine._reach.addresses = addresses
        with pytest.raises(ConnectionRefusedError):
            await machine.connect(9)


class TestImages:
    async def test_local_tag_works_without_a_registry(self, lab: Lab, daemon: Any) -> None:
        digest = await lab.engine.resolve_image(dockerd.IMAGE)
        assert digest == daemon.inspect_image(dockerd.IMAGE)["Id"]

    async def test_unknown_image(self, lab: Lab) -> None:
        with pytest.raises((ImageNotFound, EngineError), match=r"127\.0\.0\.1:1/no/such"):
            await lab.engine.resolve_image("127.0.0.1:1/no/such:tag")

    async def test_settings_of_the_image_are_beneath_those_of_the_config(
        self, lab: Lab, daemon: Any
    ) -> None:
        made = image(
            daemon,
            "settings",
            "ENV A=image",
            "ENV B=image",
            "USER daemon",
            "WORKDIR /tmp",
            'ENTRYPOINT ["/bin/sh", "-c"]',
            'CMD ["echo $A $B $(id -u) $(pwd)"]',
        )
        await (await lab.start(image=made, env={"B": "config"})).wait()
        assert lab.log("m1").read_text() == "image config 1 /tmp\n"
        await (await lab.start(image=made, user="root", cmd=["id -u"])).wait()
        assert lab.log("m2").read_text() == "0\n"
        await (await lab.start(image=made, entrypoint=["/bin/echo"])).wait()
        assert lab.log("m3").read_text() == "echo $A $B $(id -u) $(pwd)\n"
        machine = await lab.start("sleep", "60", image=made)
        assert await output(machine, "echo $A $(id -u) $(pwd)") == "image 0 /"

    async def test_image_without_a_command_needs_one(self, lab: Lab, daemon: Any) -> None:
        daemon.import_image_from_data(docker_client.archive([]), repository="test/empty")
        with pytest.raises(EngineError, match="test/empty:latest has no command"):
            await lab.start(image="test/empty:latest")

    async def test_digest_selects_an_image(self, lab: Lab, daemon: Any) -> None:
        digest = daemon.inspect_image(dockerd.IMAGE)["Id"]
        assert await lab.engine.resolve_image(digest) == digest

    async def test_config_of_an_image(self, lab: Lab, daemon: Any) -> None:
        changes = ('ENTRYPOINT ["sleep"]', 'CMD ["9"]', "ENV A=b", "USER 7", "WORKDIR /x")
        made = image(daemon, "config", *changes)
        found = json.loads(await lab.engine.image_config(made))
        assert found["os"] == "linux"
        assert found["config"] == {
            "Entrypoint": ["sleep"],
            "Cmd": ["9"],
            "Env": ["A=b"],
            "User": "7",
            "WorkingDir": "/x",
        }
        assert found["rootfs"]["type"] == "layers"
        assert found["rootfs"]["diff_ids"][0].startswith("sha256:")
        with pytest.raises(EngineError):
            await lab.engine.image_config("127.0.0.1:1/none:v1")


class TestGuest:
    async def test_memory_and_cpus(self, lab: Lab, daemon: Any) -> None:
        await lab.start(memory_mb=128, swap_mb=64, cpus=1)
        (container,) = daemon.containers(filters={"label": docker_client.OWNER})
        limits = daemon.inspect_container(container["Id"])["HostConfig"]
        assert (limits["Memory"], limits["MemorySwap"]) == (128 * 2**20, 192 * 2**20)
        assert limits["NanoCpus"] == 10**9
        assert limits["PidsLimit"] == 1024

    async def test_more_cpus_than_there_are(self, lab: Lab) -> None:
        assert await output(await lab.start(cpus=512), "echo fine") == "fine"

    async def test_memory_hog_is_killed(self, lab: Lab) -> None:
        hog = "dd if=/dev/zero of=/dev/null bs=400M count=1"
        machine = await lab.start("sh", "-c", f"exec {hog}", memory_mb=64)
        status = await machine.wait()
        assert (status.exit_code, status.oom_killed) == (137, True)

    async def test_memory_is_that_of_all_containers_of_a_machine(
        self, lab: Lab, daemon: Any
    ) -> None:
        """Each hog alone would fit."""
        outer: Any = await lab.start(hollow=True, memory_mb=64)
        hog = ("dd", "if=/dev/zero", "of=/dev/null", "bs=40M")
        one = await lab.start(*hog, beside=outer, memory_mb=64)
        await eventually(one.memory, lambda found: found[0] < 30)
        two = await lab.start(*hog, beside=outer, memory_mb=64)
        ends = [asyncio.ensure_future(machine.wait()) for machine in (one, two)]
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED, timeout=DEADLINE_S)
        status = done.pop().result()
        assert (status.exit_code, status.oom_killed) == (137, True)
        assert (await sh(outer, "exit 3")).exit_code == 3
        for machine in (two, one, outer):
            await machine.kill()
        for number in (3, 2, 1):
            await lab.engine.discard(lab.directory / f"m{number}")
        assert not list(Path("/sys/fs/cgroup").glob(f"*{outer.group}"))

    async def test_fork_bomb_ends_with_its_machine(self, lab: Lab, daemon: Any) -> None:
        # One that only forks may have died out, of want of memory, before it is seen.
        bomb = "b() { sleep 60 & b | b & }; b; exec sleep 60"
        machine = await lab.start("sh", "-c", bomb, memory_mb=256)
        (container,) = daemon.containers(filters={"label": docker_client.OWNER})

        async def processes() -> int:
            found: int = daemon.stats(container["Id"], stream=False)["pids_stats"]["current"]
            return found

        await eventually(processes, lambda n: n > 200)
        assert await processes() <= pids_limit(256)
        assert subprocess.run(["true"], check=True).returncode == 0
        await asyncio.wait_for(machine.kill(), 60)

    async def test_hostname(self, lab: Lab) -> None:
        machine = await lab.start(hostname="somewhere")
        assert await output(machine, "cat /etc/hostname") == "somewhere"


class TestNetwork:
    async def test_machines_of_a_network_reach_each_other(self, lab: Lab) -> None:
        serve = "echo reached > /tmp/index.html; exec httpd -f -p 7004 -h /tmp"
        await lab.start("sh", "-c", serve, private_ip="fdaa:0:7:a7b:1::2")
        near = await lab.start(private_ip="fdaa:0:7:a7b:2::2")
        far = await lab.start(private_ip="fdaa:0:8:a7b:3::2")
        ask = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 fdaa:0:7:a7b:1::2 7004"
        await eventually(lambda: sh(near, ask), lambda o: b"reached" in o.stdout)
        assert b"reached" not in (await sh(far, ask)).stdout

    async def test_names_are_those_of_machines_that_run(self, lab: Lab) -> None:
        names = ["m1.vm.web.internal", "web.internal", "not a name.kv._metadata.web.internal"]
        one = await lab.start(names=names)
        two = await lab.start(names=["m2.vm.web.internal", "web.internal"])
        far = await lab.start(private_ip="fdaa:0:9:a7b::2", names=["far.internal"])

        async def resolved(name: str) -> set[str]:
            said = (await sh(two, f"timeout 2 busybox nslookup -type=aaaa {name}")).stdout.decode()
            return {line.split()[1] for line in said.splitlines() if line.startswith("Address: f")}

        assert await resolved("m1.vm.web.internal") == {"fdaa:0:1:a7b:1::1"}
        assert await resolved("web.internal") == {"fdaa:0:1:a7b:1::1", "fdaa:0:1:a7b:1::2"}
        assert await resolved("far.internal") == set()
        await one.kill()
        await far.kill()
        assert await resolved("web.internal") == {"fdaa:0:1:a7b:1::2"}

    async def test_servers_of_the_emulator_are_found_on_the_bridge_alone(
        self, docker_host: str, daemon: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DOCKER_HOST", docker_host)
        found: list[tuple[Any, ...]] = []
        bound: list[bytes] = []

        def serve(listener: socket.socket) -> Callable[[], None]:
            found.append(listener.getsockname())
            bound.append(listener.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 32))

            async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(b"here")
                writer.close()

            server = asyncio.ensure_future(asyncio.start_server(answer, sock=listener))
            return lambda: server.result().close()

        engine = DockerEngine(tmp_path / "engine")
        await engine.admit([Door("tcp", 4280, serve)])
        lab = Lab(engine, tmp_path / "engine", tmp_path, dockerd.IMAGE)
        for prefix in ("fdaa:0:a:a7b", "fdaa:0:b:a7b"):
            found.clear()
            # The second is another emulator's already, so that machines have IPv4 only.
            if taken := prefix.endswith("b:a7b"):
                config = IPAMConfig(pool_configs=[IPAMPool(subnet=f"{prefix}::/64")])
                daemon.create_network("taken", enable_ipv6=True, ipam=config)
            machine = await lab.start(private_ip=f"{prefix}:1::2")
            address = (await output(machine, "grep _api.internal /etc/hosts")).split()[0]
            assert found[0][:2] == (address, 4280)
            assert (address == "fdaa::3") is not taken
            ask = f"nc -w 9 {address} 4280 < /dev/null"
            # Its own address is used once the kernel is sure that nobody else has it.
            await eventually(functools.partial(sh, machine, ask), lambda o: o.stdout == b"here")
        daemon.remove_network("taken")
        assert bound[0].startswith(b"br-")  # Not for what other interfaces bring.
        await lab.end()
        await engine.close()

    async def test_names_follow_the_states_of_machines(
        self, docker_host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DOCKER_HOST", docker_host)
        store = Store()
        store.put(App(id="1", number=1, name="web", org="o", network="default", created_ms=1))
        engine = DockerEngine(tmp_path / "engine")
        names = NameServer(store, forwards=False, who=engine.peer)
        await engine.admit(names.doors())
        lab = Lab(engine, tmp_path / "engine", tmp_path, dockerd.IMAGE)
        for number in ("11111111111111", "22222222222222"):
            record = Machine(
                id=number,
                name=number,
                app="web",
                region="ord",
                instance_id="01",
                config=MachineConfig(image="x"),
                private_ip=private_ip("o", "default", number),
                digest="",
                state="started",
            )
            store.put(record)
        one, two = store.machines.values()
        asking = await lab.start(id=two.id, private_ip=two.private_ip, names=["never.internal"])

        async def asked(kind: str, name: str) -> str:
            return (
                await sh(asking, f"timeout 9 busybox nslookup -type={kind} {name}")
            ).stdout.decode()

        assert one.private_ip in await asked("aaaa", f"{one.id}.vm.web.internal")
        nearest = await asked("aaaa", "top1.nearest.of.web.internal")
        assert sum(machine.private_ip in nearest for machine in (one, two)) == 1
        assert f"{one.id} ord,{two.id} ord" in await asked("txt", "vms.web.internal")
        one.state = "suspended"
        assert one.private_ip not in await asked("aaaa", f"{one.id}.vm.web.internal")
        assert f'"{two.id} ord"' in await asked("txt", "vms.web.internal")
        assert two.private_ip not in await asked("aaaa", "never.internal")
        await lab.end()
        await engine.close()

    async def test_suspended_machine_is_out_of_reach(self, lab: Lab) -> None:
        serve = "echo reached > /tmp/index.html; exec httpd -f -p 7004 -h /tmp"
        machine = await lab.start("sh", "-c", serve, private_ip="fdaa:0:7:a7b:1::2")
        assert await fetch(machine, 7004) == b"reached\n"
        near = await lab.start(private_ip="fdaa:0:7:a7b:2::2")
        ask = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 fdaa:0:7:a7b:1::2 7004"
        await eventually(lambda: sh(near, ask), lambda o: b"reached" in o.stdout)
        await machine.suspend()
        refused = await sh(near, ask.replace("-w 5", "-w 60"))
        assert b"Network is unreachable" in refused.stderr  # said by it: not waited for in vain
        await machine.resume()
        assert b"reached" in (await sh(near, ask)).stdout
        assert await fetch(machine, 7004) == b"reached\n"
        await machine.suspend()
        await machine.kill()

    async def test_who_cannot_change_its_network_takes_it_away(
        self, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As a user who is not root does."""

        def refuse(pid: int, namespaces: int) -> None:
            raise PermissionError(f"setns to {namespaces} of {pid}")

        monkeypatch.setattr(linux, "join_namespaces", refuse)
        serve = "echo reached > /tmp/index.html; exec httpd -f -p 7004 -h /tmp"
        machine = await lab.start("sh", "-c", serve, private_ip="fdaa:0:7:a7b:1::2")
        near = await lab.start(private_ip="fdaa:0:7:a7b:2::2")
        ask = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 fdaa:0:7:a7b:1::2 7004"
        await machine.suspend()
        assert b"No route to host" in (await sh(near, ask)).stderr
        await machine.resume()
        await eventually(lambda: sh(near, ask), lambda o: b"reached" in o.stdout)
        assert await fetch(machine, 7004) == b"reached\n"

    async def test_a_server_is_at_an_address_of_its_own_in_its_network(
        self, docker_host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DOCKER_HOST", docker_host)
        engine = DockerEngine(tmp_path / "engine")
        lab = Lab(engine, tmp_path / "engine", tmp_path, dockerd.IMAGE)
        before = await lab.start(private_ip="fdaa:0:c:a7b:1::2", network="one")
        other = await lab.start(private_ip="fdaa:0:d:a7b:1::2", network="other")

        def serve(listener: socket.socket) -> Callable[[], None]:
            def end() -> None:
                listener.shutdown(socket.SHUT_RDWR)
                thread.join()
                listener.close()

            thread = threading.Thread(target=greet, args=(listener,))
            thread.start()
            return end

        def greet(listener: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while True:
                    with listener.accept()[0] as visitor:
                        visitor.sendall(b"here")

        closers = [
            await engine.open(Door("tcp", port, serve, "fdaa:0:c:0:1::5", "one"))
            for port in (80, 81)
        ]
        after = await lab.start(private_ip="fdaa:0:c:a7b:2::2", network="one")
        for machine in (before, after):
            for port in (80, 81):
                ask = f"nc -w 9 fdaa:0:c:0:1::5 {port} < /dev/null"
                # as above
                await eventually(
                    functools.partial(sh, machine, ask), lambda outcome: outcome.stdout == b"here"
                )
        assert (await sh(other, "nc -w 1 fdaa:0:c:0:1::5 80 </dev/null")).exit_code != 0
        for close in closers:
            assert close
            assert b"fdaa:0:c:0:1::5" in subprocess.check_output(["ip", "-6", "address"])
            close()
        assert b"fdaa:0:c:0:1::5" not in subprocess.check_output(["ip", "-6", "address"])
        await lab.end()
        await engine.close()

    async def test_datagrams_reach_a_machine(self, lab: Lab) -> None:
        machine = await lab.start()
        assert "0.0.0.0\tfly-global-services" in await output(machine, "cat /etc/hosts")
        with await machine.datagrams(7005) as visitor:

            async def refused() -> bool:
                try:
                    visitor.send(b"hello")
                except ConnectionRefusedError:  # said by the machine: nothing listens there
                    return True
                return False

            await eventually(refused, bool)
        await machine.kill()
        with pytest.raises(ConnectionRefusedError):
            await machine.datagrams(7005)

    async def test_own_address_has_its_name(self, lab: Lab) -> None:
        machine = await lab.start(private_ip="fdaa:0:7:a7b:5::2")
        assert "fdaa:0:7:a7b:5::2\tfly-local-6pn" in await output(machine, "cat /etc/hosts")
        assert "fdaa:0:7:a7b:5::2/64" in await output(machine, "ip a")


class TestWalls:
    async def test_loopback_of_this_computer_is_out_of_reach(self, lab: Lab) -> None:
        """What listens on its other addresses is not, as the documentation says."""
        machine = await lab.start()
        routes = await output(machine, "busybox ip route; busybox ip -6 route")
        gateways = [line.split()[2] for line in routes.splitlines() if line.startswith("default")]
        own = ["127.0.0.1", "::1", *gateways, *own_addresses()]
        with (
            socket.create_server(("127.0.0.1", 0)) as four,
            socket.create_server(("::1", 0), family=socket.AF_INET6) as six,
            socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as all_,
        ):
            for listener in (four, six):
                port = listener.getsockname()[1]
                listener.setblocking(False)
                wanted = (*own, "host.docker.internal", "_api.internal")
                tries = (f"timeout 2 nc {address} {port} < /dev/null" for address in wanted)
                asked = await asyncio.gather(*(sh(machine, attempt) for attempt in tries))
                assert 0 not in [outcome.exit_code for outcome in asked]
                with pytest.raises(BlockingIOError):
                    listener.accept()
            all_.setblocking(False)
            visit = f"nc {gateways[0]} {all_.getsockname()[1]} < /dev/null"
            visiting = asyncio.ensure_future(sh(machine, visit))
            visitor, _ = await asyncio.get_running_loop().sock_accept(all_)
            visitor.close()
            assert (await visiting).exit_code == 0

    async def test_processes_and_files_of_this_computer_are_out_of_sight(
        self, lab: Lab, tmp_path: Path
    ) -> None:
        secret = tmp_path / "secret"
        secret.write_text("secret")
        machine = await lab.start("sleep", "7040")
        seen = await output(machine, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; ls -a / /tmp /root")
        assert "sleep 7040" in seen
        assert "python" not in seen
        for attempt in (
            f"cat {secret} || cat /proc/1/root{secret}",
            "ls /var/run/docker.sock || ls /run/docker.sock",
            "mount -t proc x /tmp",
            "echo x > /proc/sys/kernel/core_pattern",
            "printf x > /proc/sysrq-trigger",
            f"kill -0 {os.getpid()} && grep -q pytest /proc/{os.getpid()}/cmdline",
        ):
            assert (await sh(machine, attempt)).exit_code != 0, attempt


class TestEndings:
    async def test_nothing_is_left(self, lab: Lab, daemon: Any) -> None:
        machine = await lab.start()
        await machine.kill()
        await lab.end()
        lab.machines.clear()
        mine = {"label": docker_client.OWNER}
        assert daemon.containers(all=True, filters=mine) == []

    async def test_kill_of_the_emulator_removes_its_containers(
        self, docker_host: str, daemon: Any, tmp_path: Path
    ) -> None:
        command = [sys.executable, "-m", "tests.emulator.engines.parent", "docker", str(tmp_path)]
        environment = {**os.environ, "DOCKER_HOST": docker_host}
        mine = {"label": docker_client.OWNER}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, env=environment, start_new_session=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            assert len(daemon.containers(filters=mine)) == 2
            assert bool(daemon.volumes(filters=mine)["Volumes"]) is not bool(disks.missing())
            os.killpg(process.pid, signal.SIGKILL)
        deadline = time.monotonic() + DEADLINE_S
        while left := (
            daemon.containers(all=True, filters=mine)
            or daemon.volumes(filters=mine)["Volumes"]
            or devices(tmp_path)
        ):
            assert time.monotonic() < deadline, left
            time.sleep(0.1)

    def test_sweep_removes_what_dead_processes_left_and_nothing_else(self, daemon: Any) -> None:
        labels = {
            "dead": "999999999-1-aa",
            "alive": docker_client.owner_label(),
            "other": None,
        }
        ids = {
            name: daemon.create_container(
                dockerd.IMAGE, labels={docker_client.OWNER: label} if label else {}
            )["Id"]
            for name, label in labels.items()
        }
        for name, label in (("dead", labels["dead"]), ("gone", "999999998-1-bb")):
            daemon.create_volume(name, labels={docker_client.OWNER: label})
        mine = {docker_client.OWNER: "999999997-1-cc"}
        daemon.create_network("dead", labels=mine)
        docker_client.sweep(daemon)
        assert not [network for network in daemon.networks() if network["Name"] == "dead"]
        volumes = daemon.volumes(filters={"label": docker_client.OWNER})["Volumes"]
        assert not volumes
        left = {container["Id"] for container in daemon.containers(all=True)}
        assert ids["dead"] not in left
        assert {ids["alive"], ids["other"]} <= left
        for name in ("alive", "other"):
            daemon.remove_container(ids[name])


async def test_no_daemon_says_where_it_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///no/such.sock")
    with pytest.raises(EngineError, match=r"unix:///no/such\.sock"):
        docker_client.connect()


async def test_groups_that_killed_emulators_left_are_removed(
    docker_host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", docker_host)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 999_999_999)
        left = [Path(path) for path in cgroups.top_groups().parents]
    for group in left:
        (group / "m1" / "conmon").mkdir(parents=True)
    engine = DockerEngine(tmp_path / "engine")
    lab = Lab(engine, tmp_path / "engine", tmp_path, dockerd.IMAGE)
    outer: Any = await lab.start(hollow=True)
    assert outer.group
    assert left
    assert not [group for group in left if group.exists()]
    for group in Path("/sys/fs/cgroup").glob(f"*{outer.group}"):
        (group / "conmon").mkdir()  # as podman does
    await lab.end()
    await engine.close()
    assert not list(Path("/sys/fs/cgroup").glob(f"*{Path(outer.group).parent}"))


async def test_daemon_that_hangs_is_told_from_one_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_client, "_KNOCK_S", 0.2)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/sock")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{tmp_path}/sock")
        silent.listen()
        with pytest.raises(EngineError, match=r"has not answered within 0\.2 s; restart it"):
            docker_client.connect()


async def test_daemon_that_died_is_named_and_used_again_when_it_is_back(
    docker_host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sock"
    path.symlink_to(docker_host.removeprefix("unix://"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    engine = DockerEngine(tmp_path / "engine")
    assert await engine.resolve_image(dockerd.IMAGE)
    path.unlink()
    # Nobody listens there: the SDK would leak a socket. This one hangs up.
    server = await asyncio.start_unix_server(lambda _, writer: writer.close(), path)
    engine._client.close()
    with pytest.raises(EngineError, match="does not answer any more: is it running"):
        await engine.resolve_image(dockerd.IMAGE)
    server.close()
    path.unlink(missing_ok=True)
    path.symlink_to(docker_host.removeprefix("unix://"))
    assert await engine.resolve_image(dockerd.IMAGE)
    await engine.close()


async def test_daemon_that_is_gone_is_named_and_hinders_no_end(
    docker_host: str, daemon: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sock"
    path.symlink_to(docker_host.removeprefix("unix://"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    engine = DockerEngine(tmp_path / "engine")
    lab = Lab(engine, tmp_path / "engine", tmp_path, dockerd.IMAGE)
    machine = await lab.start()
    path.unlink()
    # as above
    server = await asyncio.start_unix_server(lambda _, writer: writer.close(), path)
    engine._client.close()
    for work in (
        machine.exec(["true"], timeout_s=DEADLINE_S),
        machine.suspend(),
        engine.discard(tmp_path / "m1"),
    ):
        with pytest.raises(EngineError, match="does not answer any more: is it running"):
            await work
    await engine.close()
    mine = {"label": f"{docker_client.OWNER}={engine._label}"}
    assert daemon.containers(filters=mine)
    # What the engine's next process does.
    monkeypatch.setattr(docker_client, "_started", lambda _: "another")
    docker_client.sweep(daemon)
    assert daemon.containers(all=True, filters=mine) == []
    assert daemon.networks(filters=mine) == []
    assert (await machine.wait()).exit_code == 137
    server.close()


async def test_two_daemons_may_have_the_same_network(
    docker_host: str,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The addresses of their machines are alike, and lead from here to the right ones."""
    labs: list[Lab] = []
    # A name that leaves room for the daemon's own sockets.
    with dockerd.daemon(tmp_path_factory.mktemp("two")) as second:
        for name, url in (("one", docker_host), ("two", second)):
            monkeypatch.setenv("DOCKER_HOST", url)
            directory = tmp_path / name
            (directory / "machines").mkdir(parents=True)
            engine = DockerEngine(directory / "engine")
            lab = Lab(engine, directory / "engine", directory / "machines", dockerd.IMAGE)
            # The address can be used once the kernel is sure that nobody else has it.
            serve = f"echo {name} > /tmp/index.html; until httpd -f -p '[{SAME}]:7009' -h /tmp; "
            machine = await lab.start("sh", "-c", serve + "do sleep 0.1; done", private_ip=SAME)
            labs.append(lab)
            assert await fetch(machine, 7009) == f"{name}\n".encode()
        assert await fetch(labs[0].machines[0], 7009) == b"one\n"
        for lab in labs:
            await lab.end()
            await lab.engine.close()
