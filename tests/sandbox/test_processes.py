"""Processes that run beside the test, the same over every way."""

from __future__ import annotations

import re
import signal
import threading
from dataclasses import replace

import pytest

from pytest_flymachines.errors import CommandTimeout, ExpectTimeout, MachineGone
from pytest_flymachines.sandbox import Sandbox

from .relay import Relay
from .support import gone, wait_until
from .world import SPEC, World, reach

LOOP = "echo ready; while :; do sleep 0.05; done"


class TestEnd:
    def test_poll_is_none_while_it_runs(self, sandbox: Sandbox) -> None:
        process = sandbox.popen(LOOP)
        assert process.poll() is None
        assert process.returncode is None
        process.kill()
        assert process.wait(30) == 137

    def test_wait_gives_the_exit_code(self, sandbox: Sandbox) -> None:
        process = sandbox.popen("exit 7")
        assert process.wait(30) == 7
        assert process.poll() == process.returncode == 7

    def test_wait_may_run_out_of_time_and_be_repeated(self, sandbox: Sandbox) -> None:
        process = sandbox.popen("echo before; while [ ! -e go ]; do sleep 0.05; done; exit 3")
        with pytest.raises(CommandTimeout) as info:
            process.wait(0.5)
        assert info.value.output == "before\n"
        sandbox.write_file("go", "")
        assert process.wait(30) == 3

    @pytest.mark.core
    def test_terminate_lets_it_clean_up(self, sandbox: Sandbox) -> None:
        process = sandbox.popen(f"trap 'echo cleaned; exit 5' TERM; {LOOP}")
        process.wait_for_log("ready")
        process.terminate()
        assert process.wait(30) == 5
        assert process.stdout.read() == "ready\ncleaned\n"

    @pytest.mark.parametrize(
        "number", [signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT]
    )
    def test_any_signal_can_be_sent(self, sandbox: Sandbox, number: signal.Signals) -> None:
        name = number.name.removeprefix("SIG")
        process = sandbox.popen(f"trap 'echo got {name}; exit 9' {name}; {LOOP}")
        process.wait_for_log("ready")
        process.send_signal(number)
        assert process.wait(30) == 9
        assert process.stdout.read() == f"ready\ngot {name}\n"

    def test_a_signal_reaches_the_whole_group(self, sandbox: Sandbox) -> None:
        process = sandbox.popen("sleep 63 & echo $! >child; echo ready; wait")
        process.wait_for_log("ready")
        process.kill()
        process.wait(30)
        wait_until(lambda: gone(sandbox, sandbox.read_text("child").strip()))

    def test_a_signal_after_the_end_has_no_effect(self, sandbox: Sandbox) -> None:
        process = sandbox.popen("true")
        process.wait(30)
        process.terminate()
        process.kill()
        assert process.returncode == 0

    @pytest.mark.core
    def test_with_ends_it(self, sandbox: Sandbox) -> None:
        with sandbox.popen("echo $$; exec sleep 64") as process:
            pid = process.stdout.readline().strip()
        wait_until(lambda: gone(sandbox, pid))

    def test_with_ends_one_that_ignores_sigterm(self, sandbox: Sandbox) -> None:
        with sandbox.popen(f"trap '' TERM; echo $$; {LOOP}") as process:
            pid = process.stdout.readline().strip()
            process._channel.signal(process._last.id, signal.SIGTERM)
            process.end(grace=0.5)
        wait_until(lambda: gone(sandbox, pid))
        assert process.returncode == 137

    def test_the_machine_ends_it_after_the_timeout(self, sandbox: Sandbox) -> None:
        process = sandbox.popen("exec sleep 65", timeout=1)
        assert process.wait(30) == 137

    def test_a_process_that_was_ended_is_not_known_any_more(self, sandbox: Sandbox) -> None:
        process = sandbox.popen(LOOP)
        sandbox.attachment.channel.forget(process._last.id)
        for _ in range(20):  # the last few that were forgotten may still be known
            sandbox.popen("true").end()
        with pytest.raises(MachineGone, match="does not know"):
            process.poll()

    def test_what_was_started_is_listed_for_whoever_ends_it(self, sandbox: Sandbox) -> None:
        process = sandbox.popen("echo $$; exec sleep 66")
        pid = process.stdout.readline().strip()
        assert sandbox.started == [process]
        process.end()
        process.end()
        wait_until(lambda: gone(sandbox, pid))


class TestOutput:
    @pytest.mark.core
    def test_it_can_be_read_while_the_process_runs(self, sandbox: Sandbox) -> None:
        process = sandbox.popen("echo one; while [ ! -e go ]; do sleep 0.05; done; echo two")
        assert process.stdout.readline() == "one\n"
        assert process.poll() is None
        sandbox.write_file("go", "")
        assert process.stdout.readline() == "two\n"
        assert process.stdout.readline() == ""

    def test_lines_can_be_iterated(self, sandbox: Sandbox) -> None:
        assert list(sandbox.popen("seq 3").stdout) == ["1\n", "2\n", "3\n"]

    def test_stdout_and_stderr_are_apart(self, sandbox: Sandbox) -> None:
        process = sandbox.popen("echo out; echo err >&2")
        assert (process.stdout.read(), process.stderr.read()) == ("out\n", "err\n")

    def test_bytes_are_there_too(self, sandbox: Sandbox) -> None:
        process = sandbox.popen(r"printf 'a\377b\0c'")
        assert process.stdout.buffer.read() == b"a\xffb\0c"

    def test_text_keeps_what_is_not_utf8(self, sandbox: Sandbox) -> None:
        assert sandbox.popen(r"printf 'a\377'").stdout.read() == "a\udcff"

    def test_much_of_it(self, sandbox: Sandbox) -> None:
        process = sandbox.popen("seq 1 300000")
        assert process.stdout.read() == "".join(f"{n}\n" for n in range(1, 300_001))

    def test_the_transcript_shows_command_state_and_output(self, sandbox: Sandbox) -> None:
        process = sandbox.popen("echo shown; echo wrong >&2; exit 4")
        process.wait(30)
        for part in ("echo shown", "exit code 4", "--- stdout ---\nshown", "wrong"):
            assert part in process.transcript()


class TestStdin:
    def test_a_conversation(self, sandbox: Sandbox) -> None:
        process = sandbox.popen('while read -r x; do echo "got $x"; done; echo end')
        for word in ("one", "two words", "é"):
            process.stdin.write(f"{word}\n")
            assert process.stdout.readline() == f"got {word}\n"
        process.stdin.close()
        assert process.stdout.read() == "end\n"
        assert process.wait(30) == 0

    def test_bytes(self, sandbox: Sandbox) -> None:
        raw = bytes(range(256)) * 100
        process = sandbox.popen("cat")
        process.stdin.write(raw)
        process.stdin.write(b"")
        process.stdin.write(raw)
        process.stdin.close()
        assert process.stdout.buffer.read() == raw * 2

    def test_closed_is_closed(self, sandbox: Sandbox) -> None:
        process = sandbox.popen("cat")
        process.stdin.close()
        process.stdin.close()
        assert process.stdin.closed
        with pytest.raises(ValueError, match="closed"):
            process.stdin.write("x")
        assert process.wait(30) == 0

    def test_a_process_that_has_ended_reads_nothing(self, sandbox: Sandbox) -> None:
        process = sandbox.popen("true")
        process.wait(30)
        with pytest.raises(BrokenPipeError):
            process.stdin.write("x")


class TestWaitForLog:
    def test_it_gives_the_match(self, sandbox: Sandbox) -> None:
        process = sandbox.popen("sleep 0.3; echo listening on port 4711; sleep 60")
        assert process.wait_for_log(r"port (\d+)")[1] == "4711"

    def test_stderr_counts(self, sandbox: Sandbox) -> None:
        process = sandbox.popen("echo up >&2; sleep 60")
        assert process.wait_for_log(re.compile("^up$", re.MULTILINE))

    def test_what_was_read_already_counts(self, sandbox: Sandbox) -> None:
        process = sandbox.popen("echo first; sleep 60")
        process.stdout.readline()
        assert process.wait_for_log("^first$")
        assert process.wait_for_log("^first$")

    def test_the_end_of_the_process_ends_the_waiting(self, sandbox: Sandbox) -> None:
        process = sandbox.popen("echo could not bind >&2; exit 1")
        with pytest.raises(ExpectTimeout, match=r"(?s)has ended.*exit code 1.*could not bind"):
            process.wait_for_log("listening", timeout=60)

    def test_time_runs_out(self, sandbox: Sandbox) -> None:
        process = sandbox.popen("echo something else; sleep 60")
        with pytest.raises(ExpectTimeout, match=r"(?s)for 1 s.*something else"):
            process.wait_for_log("listening", timeout=1)
        assert issubclass(ExpectTimeout, TimeoutError)


SERVER = """
import socket, sys, time
time.sleep(0.3)
server = socket.create_server(("", int(sys.argv[1])))
time.sleep(60)
"""


class TestWaitForPort:
    def test_it_returns_once_something_listens(self, sandbox: Sandbox) -> None:
        process = sandbox.popen(["python3", "-c", SERVER, "18431"])
        process.wait_for_port(18431)
        assert process.poll() is None

    def test_the_end_of_the_process_ends_the_waiting(self, sandbox: Sandbox) -> None:
        process = sandbox.popen("sleep 0.3; echo address in use >&2; exit 1")
        with pytest.raises(ExpectTimeout, match=r"(?s)has ended.*address in use"):
            process.wait_for_port(18432, timeout=60)

    def test_time_runs_out(self, sandbox: Sandbox) -> None:
        process = sandbox.popen("sleep 60")
        with pytest.raises(ExpectTimeout, match="port 18433 for 1 s"):
            process.wait_for_port(18433, timeout=1)


class TestArguments:
    def test_cwd_env_and_user(self, as_root: Sandbox) -> None:
        process = as_root.popen("pwd; id -un; echo $X", cwd="/usr", env={"X": "a b"}, user="nobody")
        assert process.stdout.read() == "/usr\nnobody\na b\n"

    def test_an_argv(self, sandbox: Sandbox) -> None:
        process = sandbox.popen(["printf", "%s|", "a b", "$X"])
        assert process.args == ["printf", "%s|", "a b", "$X"]
        assert process.stdout.read() == "a b|$X|"

    def test_pid_is_that_of_the_command(self, sandbox: Sandbox) -> None:
        process = sandbox.popen("echo $$; exec sleep 67")
        assert process.stdout.readline() == f"{process.pid}\n"


def test_output_survives_connections_that_are_cut(
    sandbox: Sandbox, world: World, machine: str
) -> None:
    """It is kept in the machine and asked for by offset, whatever becomes of an answer."""
    with Relay(world.emulator.api_url) as api, Relay(world.emulator.proxy_url) as proxy:

        def cut() -> None:
            # twice at most, because a request that is cut three times is given up
            while api.cuts + proxy.cuts < 2 and not over.wait(0.15):
                api.cut()
                proxy.cut()

        emulator = replace(world.emulator, api_url=api.url, proxy_url=proxy.url)
        with reach(emulator, world.image) as cut_world:
            handle = cut_world.sandbox(sandbox.attachment.channel.name, machine, SPEC)
            script = (
                "i=0; while [ $i -lt 150 ]; do echo line $i; sleep 0.01; i=$((i+1)); done; exit 3"
            )
            process = handle.popen(script)
            over = threading.Event()
            cutter = threading.Thread(target=cut)
            cutter.start()
            try:
                assert list(process.stdout) == [f"line {n}\n" for n in range(150)]
                assert process.wait(30) == 3
            finally:
                over.set()
                cutter.join()
            process.end()
        assert api.cuts + proxy.cuts > 0
