"""Machines in namespaces: what they see of this computer, and what they can do to it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_flymachines.emulator.engines import computer
from pytest_flymachines.emulator.engines.base import EngineError, RunningMachine
from pytest_flymachines.emulator.engines.bubblewrap import BubblewrapEngine
from pytest_flymachines.emulator.engines.bwrap import find_bwrap, id_maps
from pytest_flymachines.emulator.engines.cgroups import find, pids_limit
from pytest_flymachines.emulator.engines.host_python import HostPython
from pytest_flymachines.emulator.engines.supervisor.spawner import remove_cgroup
from tests.emulator.engines.lab import Lab, eventually, output, sh

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

SINGLE = id_maps().single


@pytest.fixture(scope="module", params=["bubblewrap"])
def engine_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def machine(lab: Lab) -> RunningMachine:
    return await lab.start()


@pytest.fixture(scope="module")
def limits() -> bool:
    """Whether this user of this computer may limit memory with control groups."""
    groups = find()
    for path in groups.parents:
        remove_cgroup(Path(path))
    return groups.limits


@pytest.fixture
def outsider() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "7020"]) as process:
        yield process
        process.kill()


class TestWhatItIsLike:
    async def test_root_can_install_and_configure(self, machine: RunningMachine) -> None:
        await output(
            machine,
            "set -e; cp /bin/true /usr/local/bin/tool; tool; mkdir -p /opt/x /var/lib/x /data;"
            "echo >> /etc/profile; echo x > /etc/x.conf; echo '127.0.0.1 me' >> /etc/hosts;"
            "install -m 755 /bin/echo /usr/bin/true; true x; mkdir /usr/share/x /usr/lib/x;"
            "rm -r /usr/share/doc; mkdir /usr/share/doc; echo x > /usr/share/doc/x;"
            "mv /etc/hostname /etc/hostname.old; touch /x /root/x /home/x /tmp/x /run/x /srv/x",
        )
        assert Path("/usr/share/doc").is_dir()
        for path in ("/usr/local/bin/tool", "/opt/x", "/etc/x.conf", "/x", "/var/lib/x"):
            assert not Path(path).exists()

    async def test_who_and_where(self, lab: Lab) -> None:
        machine = await lab.start(hostname="somewhere", private_ip="fdaa:0:9:a7b::2")
        assert await output(machine, "id -u; hostname; echo $HOME; pwd") == "0\nsomewhere\n/root\n/"
        assert "127.0.0.1\tlocalhost" in await output(machine, "cat /etc/hosts")
        found = await output(machine, "getent hosts fly-local-6pn")
        assert found.split()[:2] == ["fdaa:0:9:a7b::2", "fly-local-6pn"]

    async def test_nameservers_are_those_of_the_config(self, lab: Lab) -> None:
        machine = await lab.start(nameservers=["fdaa::3"])
        assert await output(machine, "cat /etc/resolv.conf") == "nameserver fdaa::3"

    async def test_has_python_and_git(self, machine: RunningMachine) -> None:
        version = await output(
            machine, "python3 -c 'import sys, ssl; print(*sys.version_info[:2])'"
        )
        assert tuple(map(int, version.split())) >= (3, 10)
        await output(machine, "cd /tmp && git init -q x && git -C x status")

    async def test_python_that_runs_us_is_shown_where_the_system_has_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It may lie in a home directory, of which nothing else appears."""
        prefix = Path(sys.base_prefix).resolve()
        executable = prefix / f"bin/python{sys.version_info.major}.{sys.version_info.minor}"
        shown = HostPython(executable, None if prefix.is_relative_to("/usr") else prefix)
        monkeypatch.setattr(computer, "find_python", lambda path: shown)
        lab = Lab(BubblewrapEngine(tmp_path / "engine"), tmp_path / "engine", tmp_path)
        machine = await lab.start()
        script = "python3 -c 'import json, ssl, sys; print(sys.base_prefix)'; command -v python3"
        found = await output(machine, script)
        assert found.splitlines() == [str(prefix), "/usr/local/bin/python3"]
        if shown.prefix:
            beside = await output(machine, f"ls {prefix.parent}")
            assert beside == prefix.name
            assert (await sh(machine, f"touch {prefix}/x")).exit_code != 0
        await lab.end()
        await lab.engine.close()

    async def test_has_devices(self, machine: RunningMachine) -> None:
        script = "echo x > /dev/null; head -c 3 /dev/urandom | wc -c; echo x > /dev/shm/x; tty"
        assert (await sh(machine, script)).stdout == b"3\nnot a tty\n"

    async def test_login_shells_find_programs_too(self, machine: RunningMachine) -> None:
        assert (await machine.exec(["sh", "-lc", "git --version"], timeout_s=30)).exit_code == 0

    async def test_own_address_can_be_listened_on(self, lab: Lab) -> None:
        machine = await lab.start("python3", "-m", "http.server", "--bind", "fly-local-6pn", "7003")

        async def connects() -> bool:
            try:
                (await machine.connect(7003)).close()
            except OSError:
                return False
            return True

        await eventually(connects, bool)

    async def test_fresh_directory_is_a_fresh_root_file_system(self, lab: Lab) -> None:
        await output(await lab.start(), "touch /usr/bin/x /x /etc/x; rm /etc/profile")
        machine = await lab.start()
        assert await output(machine, "ls /etc/profile") == "/etc/profile"
        assert (await sh(machine, "ls /usr/bin/x || ls /x || ls /etc/x")).exit_code != 0

    @pytest.mark.skipif(SINGLE, reason="no newuidmap: machines have root only")
    async def test_other_users(self, lab: Lab) -> None:
        machine = await lab.start("sh", "-c", "id -u; id -g; echo $HOME", user="daemon")
        await machine.wait()
        assert lab.log().read_text() == "1\n1\n/usr/sbin\n"
        machine = await lab.start()
        assert await output(machine, "su -s /bin/sh -c 'id -u' nobody") == "65534"
        await output(machine, "useradd -m somebody && su somebody -c 'touch ~/x'")
        await output(machine, "mkdir -m 700 /private; touch /private/x; chown -R 1:1 /private")

    @pytest.mark.skipif(not SINGLE, reason="newuidmap gives machines other users")
    async def test_other_users_are_refused_with_the_way_to_have_them(self, lab: Lab) -> None:
        with pytest.raises(EngineError, match="uidmap"):
            await lab.start(user="daemon")

    async def test_user_that_does_not_exist(self, lab: Lab) -> None:
        with pytest.raises(EngineError, match="user 'no-such-user'"):
            await lab.start(user="no-such-user")


class TestWalls:
    async def test_processes_outside_cannot_be_seen_or_killed(
        self, machine: RunningMachine, outsider: subprocess.Popen[bytes]
    ) -> None:
        assert "7020" not in await output(machine, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        await sh(machine, f"kill -9 {outsider.pid}; kill -9 -1")
        assert outsider.poll() is None

    async def test_homes_and_other_places_are_empty(
        self, machine: RunningMachine, tmp_path: Path
    ) -> None:
        (tmp_path / "secret").write_text("secret")
        script = "find /home /root /mnt /media /tmp /run /sys -mindepth 1 ! -type d"
        assert await output(machine, script) == ""
        assert (await sh(machine, f"cat {tmp_path}/secret")).exit_code != 0
        assert (await sh(machine, f"ls {Path.home()}/.cache")).exit_code != 0
        assert await output(machine, "find / -xdev -type s") == ""

    async def test_secrets_of_this_computer_are_not_there(self, machine: RunningMachine) -> None:
        listed = await output(machine, "find /etc -type f -exec ls -ln {} +")
        seen = {line.split(None, 8)[8] for line in listed.splitlines()}
        made = {"/etc/shadow", "/etc/gshadow"}
        for path, directories, files in os.walk("/etc"):
            for name in files + directories:
                file = Path(path, name)
                if not file.is_symlink() and not file.stat().st_mode & 0o004:
                    assert str(file) in made or str(file) not in seen
        shadow = await output(machine, "cat /etc/shadow")
        assert {line.split(":")[1] for line in shadow.splitlines()} == {"*"}

    async def test_root_cannot_reach_the_kernel(self, machine: RunningMachine) -> None:
        for attempt in (
            "echo x > /proc/sys/kernel/core_pattern",
            "umount /proc/sys && echo x > /proc/sys/kernel/core_pattern",
            "mount -o remount,rw /proc/sys",
            "echo h > /proc/sysrq-trigger",
            "mount -t proc proc /mnt",
            "mknod /tmp/disk b 254 0 && head -c1 /tmp/disk",
            "unshare -m sh -c 'umount /proc/sys && echo x > /proc/sys/kernel/core_pattern'",
            "unshare -Urmpf --mount-proc sh -c 'echo x > /proc/sys/kernel/core_pattern'",
            "nsenter -t 1 -a mount -t tmpfs x /mnt",
            "head -c1 /proc/kcore",
        ):
            outcome = await sh(machine, attempt)
            assert outcome.exit_code != 0, attempt
        pattern = Path("/proc/sys/kernel/core_pattern").read_text()
        assert pattern != "x\n"

    async def test_network_is_its_own(self, machine: RunningMachine) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            script = (
                f"python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", {port}))'"
            )
            outcome = await sh(machine, script)
            assert b"ConnectionRefusedError" in outcome.stderr
            listener.settimeout(0)
            with pytest.raises(BlockingIOError):
                listener.accept()

    async def test_command_lines_do_not_show_paths_of_this_computer(
        self, machine: RunningMachine, lab: Lab
    ) -> None:
        shown = await output(machine, "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ")
        assert str(lab.directory) not in shown
        assert str(lab.engine_directory) not in shown
        assert str(find_bwrap().parent) not in shown


class TestLimits:
    async def test_memory_hog_is_killed(self, lab: Lab, limits: bool) -> None:
        hog = "import time; x = [bytearray(2**20) for _ in range(400)]; time.sleep(60)"
        machine = await lab.start("python3", "-c", hog, memory_mb=128)
        status = await machine.wait()
        if limits:
            assert (status.signal, status.oom_killed) == (9, True)
        else:
            assert (status.exit_code, status.oom_killed) == (1, False)
            assert "MemoryError" in lab.log().read_text()

    async def test_memory_hog_in_an_exec_leaves_the_machine(self, lab: Lab, limits: bool) -> None:
        machine = await lab.start(memory_mb=128)
        hog = "x = [bytearray(2**20) for _ in range(400)]"
        outcome = await machine.exec(["python3", "-c", hog], timeout_s=30)
        assert (outcome.signal == 9) if limits else (outcome.exit_code == 1)
        assert await output(machine, "echo fine") == "fine"
        await machine.kill()
        assert (await machine.wait()).oom_killed is limits

    async def test_fork_bomb_stays_in_its_machine(self, lab: Lab) -> None:
        bomb = "import os\nwhile True:\n try: os.fork()\n except OSError: break\nos.read(0, 1)"
        machine = await lab.start("sh", "-c", f"sleep 60 | python3 -c '{bomb}'", memory_mb=256)

        async def processes() -> int:
            return len(await machine.processes())

        await eventually(processes, lambda n: n > 200)
        await asyncio.sleep(0.5)
        assert await processes() <= pids_limit(256)
        assert subprocess.run(["true"], check=True).returncode == 0
        await asyncio.wait_for(machine.kill(), 60)
        assert await processes() == 0

    async def test_machines_go_first_when_memory_runs_out(self, machine: RunningMachine) -> None:
        assert await output(machine, "cat /proc/self/oom_score_adj") == "500"


async def test_notes_tell_what_is_not_enforced(lab: Lab, limits: bool) -> None:
    assert isinstance(lab.engine, BubblewrapEngine)
    notes = " ".join((await lab.engine.probe()).notes)
    assert "this computer's tools are the image" in notes
    assert ("oom_killed" in notes) is not limits
