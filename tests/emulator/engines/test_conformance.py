"""What every engine does, whatever it is made of."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
from pathlib import Path

import pytest

from pytest_flymachines.emulator.engines import disks, trial
from pytest_flymachines.emulator.engines.base import (
    EngineError,
    GuestFile,
    GuestMount,
    Program,
    RunningMachine,
)
from pytest_flymachines.emulator.engines.supervisor.tail import KEPT_BYTES, PIECE_BYTES
from tests.emulator.engines.lab import Lab, devices, eventually, fetch, output, settled, sh

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


# Which ones, where not those that run anywhere: podman changes the network that it runs in.
ENGINES = os.environ.get("TEST_ENGINES", "bubblewrap docker process").split()


@pytest.fixture(scope="module", params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def podman_differs(request: pytest.FixtureRequest, engine_name: str) -> None:
    """What its compatible API does in another way; the engine's notes say so."""
    if engine_name == "podman":
        request.applymarker(pytest.mark.xfail(strict=True, reason="podman differs"))


# A server that answers one connection after the other with $1, on port $2.
SERVER = (
    'mkdir -p "$PYTEST_FLYMACHINES_ROOT/srv/$2" && cd "$PYTEST_FLYMACHINES_ROOT/srv/$2" && '
    'printf %s "$1" > index.html && '
    'if busybox httpd --help 2>&1 | grep -q "Listen for"; then '
    'exec busybox httpd -f -p "${PYTEST_FLYMACHINES_BIND:-0.0.0.0}:$2"; else '
    'exec python3 -m http.server -b "${PYTEST_FLYMACHINES_BIND:-0.0.0.0}" "$2"; fi'
)


def server(reply: str, port: int) -> list[str]:
    return ["sh", "-c", SERVER, "sh", reply, str(port)]


def backing(device: str) -> str | None:
    """The file behind a loop device, if it has one."""
    file = Path("/sys/block", Path(device).name, "loop/backing_file")
    return file.read_text() if file.exists() else None


async def commands(machine: RunningMachine) -> list[str]:
    return [process.command for process in await machine.processes()]


class TestProbe:
    async def test_starts_a_machine_and_leaves_nothing(self, lab: Lab) -> None:
        probe = await lab.engine.probe()
        assert probe.works
        assert probe.why == ""
        assert not list(lab.engine_directory.glob("*probe-*"))

    async def test_its_machine_ends_with_what_fails_in_it(self, lab: Lab) -> None:
        made = trial.machine(
            lab.engine,
            disk=not disks.missing(),
            below=lab.directory,
            image=lab.image,
            argv=["sleep", "99"],
            private_ip="fdaa:0:1:a7b:1::fff",
        )
        with pytest.raises(EngineError, match="not found"):
            async with made as machine:
                raise EngineError("the disk is not found")
        assert (await machine.wait()).exit_code == 137
        assert list(lab.directory.iterdir()) == []

        async def left() -> list[str]:
            return devices(lab.directory)

        await eventually(left, lambda files: not files)


class TestMainProcess:
    async def test_output_goes_to_the_log_with_the_exit_code_in_the_end(self, lab: Lab) -> None:
        machine = await lab.start("sh", "-c", "echo out; echo err >&2; exit 3")
        status = await machine.wait()
        assert (status.exit_code, status.signal, status.oom_killed) == (3, None, False)
        assert sorted(lab.log().read_text().split()) == ["err", "out"]

    async def test_log_is_appended_to(self, lab: Lab) -> None:
        lab.log().write_text("before\n")
        await (await lab.start("echo", "after")).wait()
        assert lab.log().read_text() == "before\nafter\n"

    async def test_log_keeps_the_end_of_however_much(self, lab: Lab) -> None:
        amount = "200000000" if lab.tells_signals else "20000000"  # containers take their time
        script = f"echo begun; head -c {amount} /dev/zero | tr '\\0' x; echo; echo the end"
        most = 0

        async def look() -> None:
            nonlocal most
            while True:
                with contextlib.suppress(FileNotFoundError):
                    most = max(most, lab.log().stat().st_size)
                await asyncio.sleep(0.005)

        looking = asyncio.ensure_future(look())
        machine = await lab.start("sh", "-c", script)
        status = await machine.wait()
        looking.cancel()
        assert status.exit_code == 0
        assert KEPT_BYTES <= lab.log().stat().st_size <= most <= 2 * KEPT_BYTES + PIECE_BYTES
        text = lab.log().read_bytes()
        assert text.endswith(b"xxx\nthe end\n")
        assert b"begun" not in text

    async def test_signal_that_kills_it_is_told_from_an_exit_code(self, lab: Lab) -> None:
        machine = await lab.start("sh", "-c", "kill -SEGV $$; sleep 60")
        status = await machine.wait()
        assert status.exit_code == 128 + signal.SIGSEGV
        assert status.signal == (signal.SIGSEGV if lab.tells_signals else None)

        machine = await lab.start("sh", "-c", "exit 143")
        status = await machine.wait()
        assert (status.exit_code, status.signal) == (143, None)

    async def test_gets_signals(self, lab: Lab) -> None:
        machine = await lab.start(
            "sh", "-c", "trap 'echo got it; exit 9' USR1; echo ready; while :; do sleep 0.02; done"
        )

        async def log() -> str:
            return lab.log().read_text()

        await eventually(log, lambda text: "ready" in text)
        machine.signal(signal.SIGUSR1)
        assert (await machine.wait()).exit_code == 9
        assert "got it" in lab.log().read_text()

    async def test_dies_of_a_signal_as_no_first_process_would(self, lab: Lab) -> None:
        machine = await lab.start("sleep", "60")
        machine.signal(signal.SIGINT)
        assert (await machine.wait()).exit_code == 128 + signal.SIGINT

    @pytest.mark.usefixtures("podman_differs")
    async def test_program_that_is_not_there_ends_the_machine_with_127(self, lab: Lab) -> None:
        machine = await lab.start("no-such-program", "x")
        assert (await machine.wait()).exit_code == 127
        assert "no-such-program" in lab.log().read_text()

    async def test_entrypoint_comes_before_cmd(self, lab: Lab) -> None:
        machine = await lab.start(entrypoint=["echo", "a"], cmd=["b", "c"])
        assert (await machine.wait()).exit_code == 0
        assert lab.log().read_text() == "a b c\n"

    async def test_exec_replaces_entrypoint_and_cmd(self, lab: Lab) -> None:
        machine = await lab.start("echo", "x", entrypoint=["false"], cmd=["b"])
        assert (await machine.wait()).exit_code == 0
        assert lab.log().read_text() == "x\n"

    async def test_without_any_command_it_idles(self, lab: Lab) -> None:
        machine = await lab.start()
        assert await output(machine, "echo here") == "here"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(machine.wait(), 0.2)

    async def test_terminal(self, lab: Lab) -> None:
        machine = await lab.start("sh", "-c", "test -t 0 && test -t 1 && echo a tty", tty=True)
        assert (await machine.wait()).exit_code == 0

        async def log() -> bytes:
            return lab.log().read_bytes()

        await eventually(log, lambda text: text == b"a tty\r\n")

    async def test_everything_else_dies_with_it(self, lab: Lab) -> None:
        machine = await lab.start("sh", "-c", "setsid sleep 61 & sleep 0.2")
        waiting = asyncio.create_task(sh(machine, "setsid sleep 62 >/dev/null 2>&1 & sleep 63"))
        assert (await machine.wait()).exit_code == 0
        outcome = await waiting
        assert 137 in {outcome.exit_code, 128 + (outcome.signal or 0)}

    async def test_wait_answers_all_who_ask(self, lab: Lab) -> None:
        machine = await lab.start("sh", "-c", "sleep 0.1; exit 4")
        first, second = await asyncio.gather(machine.wait(), machine.wait())
        assert first == second == await machine.wait()


class TestSeveralMainProcesses:
    async def test_share_everything_and_have_their_own_env_and_output(self, lab: Lab) -> None:
        write = 'echo "$WHO" > "$PYTEST_FLYMACHINES_ROOT/tmp/$WHO"; exec sleep 71'
        first = Program(argv=["sh", "-c", write], env={"WHO": "one", "ONLY": "first"})
        second = Program(argv=["sh", "-c", 'echo "says $WHO $ONLY."; ' + write], env={"WHO": "two"})
        machine = await lab.start(*first.argv or (), env=first.env, others=[second])
        look = 'cd "$PYTEST_FLYMACHINES_ROOT/tmp" && cat one two'
        await eventually(lambda: sh(machine, look), lambda o: o.stdout == b"one\ntwo\n")
        assert (await commands(machine)).count("sleep 71") == 2
        assert lab.log().read_text() == "says two .\n"

    @pytest.mark.parametrize("which", [0, 1])
    async def test_machine_ends_with_the_first_that_ends(self, lab: Lab, which: int) -> None:
        programs = [["sleep", "72"], ["sleep", "72"]]
        programs[which] = ["sh", "-c", "sleep 0.2; exit 5"]
        machine = await lab.start(*programs[0], others=[Program(argv=programs[1])])
        assert (await machine.wait()).exit_code == 5

    async def test_all_get_signals(self, lab: Lab) -> None:
        trap = "trap 'echo got it' USR1; echo ready; while :; do sleep 0.02; done"
        machine = await lab.start("sh", "-c", trap, others=[Program(argv=["sh", "-c", trap])])

        async def log() -> list[str]:
            return lab.log().read_text().splitlines()

        await eventually(log, lambda lines: lines.count("ready") == 2)
        machine.signal(signal.SIGUSR1)
        await eventually(log, lambda lines: lines.count("got it") == 2)

    async def test_each_has_a_terminal(self, lab: Lab) -> None:
        tell = ["sh", "-c", "test -t 1 && echo a tty; sleep 73"]
        await lab.start(*tell, tty=True, others=[Program(argv=tell)])

        async def log() -> int:
            return lab.log().read_text().count("a tty")

        await eventually(log, lambda count: count == 2)


class TestContainers:
    """Machines in a machine: what is theirs, and what they share."""

    async def test_have_files_and_processes_of_their_own(self, lab: Lab) -> None:
        outer = await lab.start(hollow=True)
        one, two = [await lab.start("sleep", t, beside=outer) for t in ("74", "75")]
        await output(one, 'echo one > "$PYTEST_FLYMACHINES_ROOT/tmp/file"')
        assert (await sh(two, 'cat "$PYTEST_FLYMACHINES_ROOT/tmp/file"')).exit_code
        assert await commands(one) == ["sleep 74"]
        assert await commands(two) == ["sleep 75"]

    async def test_share_the_network(self, lab: Lab) -> None:
        outer = await lab.start(hollow=True)
        serving = await lab.start(*server("hello", 7009), beside=outer)
        asking = await lab.start(beside=outer)
        ask = (
            'printf "GET / HTTP/1.0\\r\\n\\r\\n" | '
            'busybox nc "${PYTEST_FLYMACHINES_BIND:-127.0.0.1}" 7009'
        )
        answer = await eventually(lambda: sh(asking, ask), lambda o: b"hello" in o.stdout)
        assert answer.exit_code == 0
        assert b"hello" in [await fetch(m, 7009) for m in await _connectable(outer, serving)]

    async def test_end_alone_and_with_their_own_exit_code(self, lab: Lab) -> None:
        outer = await lab.start(hollow=True)
        ending = await lab.start("sh", "-c", "exit 6", beside=outer)
        staying = await lab.start(beside=outer)
        assert (await ending.wait()).exit_code == 6
        assert await output(staying, "echo here") == "here"
        await staying.kill()
        await outer.kill()

    async def test_can_be_suspended_with_their_machine(self, lab: Lab) -> None:
        outer = await lab.start(hollow=True)
        loop = "while :; do echo x; sleep 0.01; done"
        inner = await lab.start("sh", "-c", loop, beside=outer)

        async def ticks() -> int:
            return len(lab.log("m2").read_text())

        await eventually(ticks, lambda n: n > 4)
        for machine in (outer, inner):
            await machine.suspend()
        before = await settled(ticks)
        for machine in (inner, outer):
            await machine.resume()
        await eventually(ticks, lambda n: n > before)


async def _connectable(*machines: RunningMachine) -> list[RunningMachine]:
    """Those of one network on whose port 7009 something is to be found."""
    found = []
    for machine in machines:
        with contextlib.suppress(OSError):
            (await machine.connect(7009)).close()
            found.append(machine)
    return found


class TestFiles:
    async def test_are_there_before_the_main_process(self, lab: Lab) -> None:
        files = [
            GuestFile("/new/deep/er", b"text\n"),
            GuestFile("/srv/bin", bytes(range(256)), 0o750),
        ]
        script = (
            'cd "$PYTEST_FLYMACHINES_ROOT/"; ls -l srv/bin | cut -c1-10; '
            "ls -l new/deep/er | cut -c1-10; cat new/deep/er srv/bin"
        )
        machine = await lab.start("sh", "-c", script, files=files)
        assert (await machine.wait()).exit_code == 0
        expected = b"-rwxr-x---\n-rw-r--r--\ntext\n" + bytes(range(256))
        assert lab.log().read_bytes() == expected

    async def test_replace_what_is_there(self, lab: Lab) -> None:
        files = [GuestFile("/etc/profile", b"one"), GuestFile("/etc/profile", b"two")]
        machine = await lab.start(files=files)
        assert await output(machine, 'cat "$PYTEST_FLYMACHINES_ROOT/etc/profile"') == "two"

    async def test_can_be_opened_from_outside(self, lab: Lab) -> None:
        machine = await lab.start(
            "sh",
            "-c",
            'cd "$PYTEST_FLYMACHINES_ROOT/" && mkdir -p srv/site && echo one > srv/site/page && '
            "ln -s page srv/site/link && mkfifo srv/site/pipe && sleep inf",
            files=[GuestFile("/srv/given", b"two")],
        )
        await eventually(lambda: commands(machine), lambda seen: "sleep inf" in seen)
        page, given = [await machine.open_file(p) for p in ("/srv/site/page", "/srv/given")]
        assert page is not None
        assert given is not None
        with page, given:
            assert (page.read(), given.read()) == (b"one\n", b"two")
        for other in ("/srv/site", "/srv/site/link", "/srv/site/pipe", "/srv/none", "/no/such"):
            assert await machine.open_file(other) is None, other

    async def test_volume_outlives_the_machine(self, lab: Lab) -> None:
        volume = lab.directory / "volume"
        volume.mkdir()
        mounts = [GuestMount(volume, "/data/here")]
        script = 'cd "$PYTEST_FLYMACHINES_ROOT/data/here"; cat old; echo more >> old'
        for expected in ("", "more\n"):
            machine = await lab.start("sh", "-c", script, mounts=mounts)
            await machine.wait()
            assert expected in lab.log(f"m{len(lab.machines)}").read_text()
        assert (volume / "old").read_text() == "more\nmore\n"

    async def test_disk_has_a_size_and_outlives_the_machine(self, lab: Lab) -> None:
        await lab.engine.probe()
        if why := disks.missing():
            assert not lab.engine.takes_devices
            pytest.skip(why)
        assert lab.engine.takes_devices
        (source := lab.directory / "vol_1").mkdir()
        disk = disks.Disk(lab.directory / "vol_1.ext4")
        disk.make(64 * 2**20)
        try:
            mounts = [GuestMount(source, "/data", disk.attach())]
            first = await lab.start(mounts=mounts)
            free = 'df -k "$PYTEST_FLYMACHINES_ROOT/data/" | tail -1 | awk "{print \\$2}"'
            assert 40_000 < int(await output(first, free)) < 65_536
            await output(first, 'cd "$PYTEST_FLYMACHINES_ROOT/data" && echo kept > file')
            fill = 'cd "$PYTEST_FLYMACHINES_ROOT/data" && dd if=/dev/zero of=more bs=1M count=90'
            full = await sh(first, fill)
            assert full.exit_code != 0
            assert b"No space left on device" in full.stderr
            place = first.mounted(mounts[0])
            assert place is not None
            assert (place / "file").read_text() == "kept\n"
            assert disk.fit_mounted(source) is False, "it is mounted in the machine only"
            await output(first, 'rm "$PYTEST_FLYMACHINES_ROOT/data/more"')
            await first.kill()
            second = await lab.start(mounts=mounts)
            assert await output(second, 'cat "$PYTEST_FLYMACHINES_ROOT/data/file"') == "kept"
            await second.kill()
            assert list(source.iterdir()) == [], "nothing is mounted outside of machines"
        finally:
            device = disk.attach()
            disk.detach()
        await eventually(lambda: asyncio.to_thread(backing, device), lambda file: file is None)

    async def test_stay_over_a_boot_in_the_same_directory(self, lab: Lab) -> None:
        directory = lab.directory / "mkept"
        directory.mkdir()
        write = 'echo kept > "$PYTEST_FLYMACHINES_ROOT/root/x"'
        read = 'cat "$PYTEST_FLYMACHINES_ROOT/root/x"'
        await (await lab.start("sh", "-c", write, directory=directory)).wait()
        machine = await lab.start("sh", "-c", read, directory=directory)
        assert (await machine.wait()).exit_code == 0


class TestExec:
    async def test_output_and_exit_code(self, lab: Lab) -> None:
        machine = await lab.start()
        outcome = await sh(machine, "echo out; echo err >&2; exit 5")
        assert (outcome.exit_code, outcome.signal) == (5, None)
        assert (outcome.stdout, outcome.stderr) == (b"out\n", b"err\n")
        assert not outcome.timed_out

    async def test_has_the_machines_env_and_its_own(self, lab: Lab) -> None:
        machine = await lab.start(env={"A": "1", "B": "ü x\ny", "C": "of the machine"})
        outcome = await sh(machine, 'printf "%s|" "$A" "$B" "$C"', env={"C": "own"})
        assert outcome.stdout.decode() == "1|ü x\ny|own|"

    async def test_starts_at_the_root(self, lab: Lab) -> None:
        machine = await lab.start()
        assert await output(machine, 'test "$PWD" = "${PYTEST_FLYMACHINES_ROOT:-/}" && pwd')

    async def test_stdin_is_empty_unless_given(self, lab: Lab) -> None:
        machine = await lab.start()
        assert (await sh(machine, "cat")).stdout == b""
        given = os.urandom(300_000)
        outcome = await machine.exec(["cat"], stdin=given, timeout_s=30)
        assert outcome.stdout == given

    async def test_death_by_signal_has_no_exit_code(self, lab: Lab) -> None:
        machine = await lab.start()
        outcome = await sh(machine, "kill -TERM $$; sleep 60")
        expected = (None, signal.SIGTERM) if lab.tells_signals else (143, None)
        assert (outcome.exit_code, outcome.signal) == expected

    async def test_program_that_is_not_there_is_127_with_a_message(self, lab: Lab) -> None:
        machine = await lab.start()
        outcome = await machine.exec(["no-such-program"], timeout_s=30)
        assert outcome.exit_code == 127
        assert b"no-such-program" in outcome.stderr

    async def test_file_that_is_no_program_is_126(self, lab: Lab) -> None:
        machine = await lab.start()
        path = await output(machine, 'echo "$PYTEST_FLYMACHINES_ROOT/tmp/x"')
        await output(machine, f"touch {path}; chmod 644 {path}")
        outcome = await machine.exec([path], timeout_s=30)
        assert outcome.exit_code == 126

    async def test_arguments_arrive_as_they_are(self, lab: Lab) -> None:
        machine = await lab.start()
        arguments = ["", " ", "a\nb", "'\"$x", "ü", "x" * 100_000]
        outcome = await machine.exec(["printf", "%s\\0", *arguments], timeout_s=30)
        assert outcome.stdout.decode().split("\0")[:-1] == arguments

    async def test_large_output_comes_whole(self, lab: Lab) -> None:
        machine = await lab.start()
        outcome = await sh(machine, "head -c 9000000 /dev/zero; head -c 9000000 /dev/zero >&2")
        assert (len(outcome.stdout), len(outcome.stderr)) == (9_000_000, 9_000_000)

    @pytest.mark.usefixtures("podman_differs")
    async def test_waits_for_all_who_hold_its_output(self, lab: Lab) -> None:
        machine = await lab.start()
        outcome = await sh(machine, "(sleep 0.3; echo late) & echo early")
        assert outcome.stdout == b"early\nlate\n"

    async def test_goes_on_after_its_timeout(self, lab: Lab) -> None:
        machine = await lab.start()
        flag = await output(machine, 'echo "$PYTEST_FLYMACHINES_ROOT/tmp/flag"')
        outcome = await sh(
            machine, f"echo begun; sleep 0.5; head -c 200000 /dev/zero; touch {flag}", timeout_s=0.2
        )
        assert outcome.timed_out
        assert (outcome.exit_code, outcome.signal) == (None, None)
        await eventually(lambda: sh(machine, f"test -e {flag}"), lambda o: o.exit_code == 0)

    async def test_many_at_once(self, lab: Lab) -> None:
        machine = await lab.start()
        numbers = range(20)
        outcomes = await asyncio.gather(*(sh(machine, f"sleep 0.1; exit {n}") for n in numbers))
        assert [outcome.exit_code for outcome in outcomes] == list(numbers)

    async def test_sees_no_descriptor_but_its_own_three(self, lab: Lab) -> None:
        machine = await lab.start("sh", "-c", "ls /proc/$$/fd; true")
        await machine.wait()
        assert lab.log().read_text().split() == ["0", "1", "2"]
        machine = await lab.start()
        assert (await output(machine, "ls /proc/$$/fd; true")).split() == ["0", "1", "2"]

    async def test_children_it_leaves_behind_stay(self, lab: Lab) -> None:
        machine = await lab.start()
        await output(machine, "setsid sleep 64 >/dev/null 2>&1 </dev/null &")
        await eventually(lambda: commands(machine), lambda found: "sleep 64" in found)


class TestSuspend:
    async def test_freezes_everything_and_resume_thaws_it(self, lab: Lab) -> None:
        loop = "while :; do echo x; sleep 0.01; done"
        machine = await lab.start("sh", "-c", loop)
        file = await output(machine, 'echo "$PYTEST_FLYMACHINES_ROOT/tmp/ticks"')
        await output(machine, f"setsid sh -c '{loop}' > {file} 2>/dev/null </dev/null &")

        async def ticks() -> int:
            return len(lab.log().read_text())

        await eventually(ticks, lambda n: n > 4)
        await machine.suspend()
        before = await settled(ticks)
        await machine.resume()
        await eventually(ticks, lambda n: n > before)
        count = await output(machine, f"wc -l < {file}")
        await eventually(lambda: output(machine, f"wc -l < {file}"), lambda n: int(n) > int(count))

    async def test_memory_and_connections_survive(self, lab: Lab) -> None:
        machine = await lab.start(*server("still here", 7001))
        assert await fetch(machine, 7001) == b"still here"
        await machine.suspend()
        await machine.resume()
        assert await fetch(machine, 7001) == b"still here"

    async def test_suspended_machine_can_be_killed(self, lab: Lab) -> None:
        machine = await lab.start("sh", "-c", "sleep 65 & wait")
        await machine.suspend()
        await asyncio.wait_for(machine.kill(), 20)
        assert (await machine.wait()).exit_code == 137


class TestKill:
    async def test_ends_what_defends_itself(self, lab: Lab) -> None:
        machine = await lab.start(
            "sh", "-c", "trap '' TERM INT HUP; (setsid sh -c 'while :; do sleep 1; done') & wait"
        )
        await machine.kill()
        assert (await machine.wait()).exit_code == 137

    async def test_twice_does_not_matter(self, lab: Lab) -> None:
        machine = await lab.start()
        await machine.kill()
        await machine.kill()


class TestConnect:
    async def test_two_machines_listen_on_one_port(self, lab: Lab) -> None:
        one = await lab.start(*server("one", 7422))
        two = await lab.start(*server("two", 7422))
        assert await fetch(one, 7422) == b"one"
        assert await fetch(two, 7422) == b"two"

    async def test_nothing_listens(self, lab: Lab) -> None:
        machine = await lab.start()
        with pytest.raises(OSError) as raised:
            await machine.connect(7999)
        assert raised.value.errno == errno.ECONNREFUSED

    async def test_after_the_end(self, lab: Lab) -> None:
        machine = await lab.start("true")
        await machine.wait()
        with pytest.raises(OSError):
            await machine.connect(7999)


async def need_private_network(lab: Lab, engine_name: str) -> None:
    if engine_name == "process":
        pytest.skip("its machines have this computer's network")
    if notes := [n for n in (await lab.engine.probe()).notes if "neither each other" in n]:
        pytest.skip(notes[0])


class TestPrivateNetwork:
    @pytest.mark.usefixtures("podman_differs")
    async def test_machines_of_a_network_reach_each_other_and_others_do_not(
        self, lab: Lab, engine_name: str
    ) -> None:
        await need_private_network(lab, engine_name)
        serve = "mkdir -p /srv/x && cd /srv/x && echo found > index.html && "
        await lab.start("sh", "-c", serve + "exec busybox httpd -f -p '[::]:7005'")
        neighbour = await lab.start()
        stranger = await lab.start(network="other", private_ip="fdaa:0:2:a7b:1::3")
        ask = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 2 busybox nc fdaa:0:1:a7b:1::1 7005"
        answer = await eventually(lambda: sh(neighbour, ask), lambda o: o.exit_code == 0)
        assert answer.stdout.endswith(b"found\n")
        assert (await sh(stranger, ask)).exit_code != 0

    async def test_suspended_machine_says_that_it_is_out_of_reach(
        self, lab: Lab, engine_name: str
    ) -> None:
        await need_private_network(lab, engine_name)
        serve = "mkdir -p /srv/y && cd /srv/y && echo found > index.html && "
        machine = await lab.start("sh", "-c", serve + "exec busybox httpd -f -p '[::]:7006'")
        neighbour = await lab.start()
        ask = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 60 fdaa:0:1:a7b:1::1 7006"
        await eventually(lambda: sh(neighbour, ask), lambda o: b"found" in o.stdout)
        await machine.suspend()
        refused = (await sh(neighbour, ask)).stderr
        # What the kernel says after seconds of silence is another thing with docker.
        assert refused.endswith((b"No route to host\n", b"Network is unreachable\n")), refused
        await machine.resume()
        assert (await sh(neighbour, ask)).stdout.endswith(b"found\n")


class TestProcesses:
    async def test_are_described(self, lab: Lab) -> None:
        machine = await lab.start(*server("x", 7002))
        await fetch(machine, 7002)
        found = [p for p in await machine.processes() if "7002" in p.command]
        assert len(found) == 1
        process = found[0]
        assert await output(machine, f"kill -0 {process.pid} && echo yes") == "yes"
        assert process.rss > 0
        assert process.directory.endswith("srv/7002")
        assert [socket for socket in process.listen_sockets if socket[1].endswith(":7002")]

    async def test_only_those_of_the_machine(self, lab: Lab) -> None:
        machine = await lab.start("sleep", "66")
        assert await commands(machine) == ["sleep 66"]


class TestMemory:
    async def test_available_and_limit(self, lab: Lab) -> None:
        machine = await lab.start(memory_mb=512)
        available, limit = await machine.memory()
        assert limit == 512
        assert 400 < available <= 512


async def test_digest_of_an_image(lab: Lab) -> None:
    digest = await lab.engine.resolve_image(lab.image)
    assert digest.startswith("sha256:")
    assert len(digest) == 71
