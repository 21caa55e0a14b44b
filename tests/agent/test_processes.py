"""Processes through the channel, in the real agent."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_flymachines.agent.channel import AgentChannel
from pytest_flymachines.errors import SandboxFileNotFound, SandboxNotADirectory
from pytest_flymachines.sandbox.channel import Command, ProcessUpdate
from tests.agent.running import RunningAgent, eventually

fast = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
arguments = st.binary(max_size=40).map(lambda data: data.replace(b"\0", b"\n"))


def run(channel: AgentChannel, *argv: bytes | str, **options: object) -> ProcessUpdate:
    """Start and wait; everything must fit into one answer."""
    words = [word.encode() if isinstance(word, str) else word for word in argv]
    command = Command(argv=words, **options)  # type: ignore[arg-type]
    update = channel.start(command, wait_s=30, forget=True)
    assert not update.running
    assert len(update.stdout) == update.stdout_size
    assert len(update.stderr) == update.stderr_size
    return update


def shell(channel: AgentChannel, script: str, **options: object) -> ProcessUpdate:
    return run(channel, "/bin/sh", "-c", script, **options)


def collect(channel: AgentChannel, update: ProcessUpdate) -> tuple[bytes, bytes, ProcessUpdate]:
    """Poll to the end; both streams and the last update."""
    out, err = update.stdout, update.stderr
    while update.running or len(out) < update.stdout_size or len(err) < update.stderr_size:
        update = channel.poll(update.id, stdout=len(out), stderr=len(err), wait_s=10)
        out += update.stdout
        err += update.stderr
    return out, err, update


def test_output_exit_code_and_duration_come_in_one_answer(channel: AgentChannel) -> None:
    update = shell(channel, "echo out; echo err >&2; exit 3")
    assert (update.stdout, update.stderr, update.exit_code) == (b"out\n", b"err\n", 3)
    assert update.pid > 0
    assert update.duration_s > 0
    assert not update.timed_out


def test_a_command_runs_in_the_base_and_cwd_is_relative_to_it(
    channel: AgentChannel, agent: RunningAgent
) -> None:
    (agent.base / "sub").mkdir()
    assert run(channel, "pwd").stdout == os.fsencode(agent.base) + b"\n"
    assert run(channel, "pwd", cwd=b"sub").stdout == os.fsencode(agent.base / "sub") + b"\n"
    assert run(channel, "pwd", cwd=b"/").stdout == b"/\n"
    elsewhere = channel.with_base(os.fsencode(agent.base / "sub"))
    assert run(elsewhere, "pwd").stdout == os.fsencode(agent.base / "sub") + b"\n"


def test_a_missing_or_wrong_cwd_is_a_file_error(channel: AgentChannel, agent: RunningAgent) -> None:
    with pytest.raises(SandboxFileNotFound, match="nowhere"):
        run(channel, "true", cwd=b"nowhere")
    (agent.base / "plain").write_text("")
    with pytest.raises(SandboxNotADirectory, match="plain"):
        run(channel, "true", cwd=b"plain")


def test_a_program_that_cannot_be_run_ends_as_in_a_shell(
    channel: AgentChannel, agent: RunningAgent
) -> None:
    missing = run(channel, "no-such-program")
    assert (missing.exit_code, missing.stderr) == (
        127,
        b"no-such-program: No such file or directory\n",
    )
    (agent.base / "closed").mkdir(mode=0)
    path = {"PATH": f"{agent.base}/closed:/usr/bin:/bin"}
    assert run(channel, "no-such-program", env=path).exit_code == 127
    (agent.base / "data").write_text("no program")
    assert run(channel, "./data").exit_code == 126
    assert run(channel, "/").exit_code == 126


def test_a_signal_ends_a_command_with_128_and_its_number(channel: AgentChannel) -> None:
    assert shell(channel, "kill -TERM $$").exit_code == 128 + 15


@fast
@given(words=st.lists(arguments, max_size=5))
def test_any_argument_reaches_the_program(channel: AgentChannel, words: list[bytes]) -> None:
    update = run(channel, "printf", "%s\\0", *words)
    assert update.stdout == (b"".join(word + b"\0" for word in words) if words else b"\0")


@fast
@given(
    env=st.dictionaries(
        st.text("abcXYZ_", min_size=1, max_size=8).map("V_".__add__),
        arguments.map(lambda data: data.decode("utf-8", "surrogateescape")),
        max_size=4,
    )
)
def test_any_variable_reaches_the_program(channel: AgentChannel, env: dict[str, str]) -> None:
    lines = run(channel, "env", "-0", env=env).stdout.split(b"\0")
    found = {line.partition(b"=")[0]: line.partition(b"=")[2] for line in lines}
    for name, value in env.items():
        assert found[name.encode()] == value.encode("utf-8", "surrogateescape")


@fast
@given(data=st.binary(max_size=3000))
def test_any_bytes_come_back_from_stdin(channel: AgentChannel, data: bytes) -> None:
    assert run(channel, "cat", stdin=data).stdout == data


def test_stdin_is_empty_when_none_is_given(channel: AgentChannel) -> None:
    assert run(channel, "cat").stdout == b""


def test_megabytes_of_stdin_and_of_output_do_not_block_each_other(channel: AgentChannel) -> None:
    data = os.urandom(12 << 20)
    update = channel.start(Command(argv=[b"cat"], stdin=data), wait_s=0, forget=False)
    out, _, last = collect(channel, update)
    assert out == data
    assert last.exit_code == 0
    channel.forget(update.id)


def test_stdin_that_nobody_reads_does_not_fail_the_start(channel: AgentChannel) -> None:
    assert run(channel, "true", stdin=bytes(20 << 20)).exit_code == 0


def test_fifty_megabytes_come_in_pieces(channel: AgentChannel) -> None:
    script = "head -c 50000000 /dev/zero | tr '\\0' x; printf done >&2"
    command = Command(argv=[b"/bin/sh", b"-c", script.encode()])
    out, err, last = collect(channel, channel.start(command, wait_s=0, forget=False))
    assert out == b"x" * 50_000_000
    assert err == b"done"
    assert not last.stdout_truncated
    channel.forget(last.id)


def test_output_is_asked_for_by_offset_and_may_be_asked_again(channel: AgentChannel) -> None:
    command = Command(argv=[b"/bin/sh", b"-c", b"printf 0123456789"])
    update = channel.start(command, wait_s=30, forget=False)
    assert channel.poll(update.id, stdout=4, stderr=0, wait_s=0).stdout == b"456789"
    assert channel.poll(update.id, stdout=4, stderr=0, wait_s=0).stdout == b"456789"
    assert channel.poll(update.id, stdout=10, stderr=0, wait_s=0).stdout == b""
    channel.forget(update.id)


def test_a_poll_waits_for_output(channel: AgentChannel) -> None:
    command = Command(argv=[b"cat"], keep_stdin=True)
    update = channel.start(command, wait_s=0, forget=False)
    assert update.running
    assert channel.poll(update.id, stdout=0, stderr=0, wait_s=0.05).stdout == b""
    channel.write_stdin(update.id, b"one\n", eof=False)
    assert channel.poll(update.id, stdout=0, stderr=0, wait_s=30).stdout == b"one\n"
    channel.write_stdin(update.id, b"two\n", eof=True)
    out, _, last = collect(channel, update)
    assert (out, last.exit_code) == (b"one\ntwo\n", 0)
    channel.forget(update.id)


def test_stdin_of_a_program_that_has_ended_is_a_broken_pipe(channel: AgentChannel) -> None:
    command = Command(argv=[b"true"], keep_stdin=True)
    update = channel.start(command, wait_s=30, forget=False)
    assert not update.running
    with pytest.raises(BrokenPipeError):
        channel.write_stdin(update.id, b"more", eof=False)
    channel.write_stdin(update.id, b"", eof=True)
    channel.forget(update.id)


def test_stdin_that_the_program_closes_is_a_broken_pipe(channel: AgentChannel) -> None:
    command = Command(argv=[b"/bin/sh", b"-c", b"exec <&-; echo closed; sleep 60"], keep_stdin=True)
    update = channel.start(command, wait_s=0, forget=False)
    channel.poll(update.id, stdout=0, stderr=0, wait_s=30)
    with pytest.raises(BrokenPipeError):
        channel.write_stdin(update.id, bytes(1 << 20), eof=False)
    channel.forget(update.id)


def test_a_time_out_kills_the_whole_group(channel: AgentChannel, agent: RunningAgent) -> None:
    script = "(sleep 300 & echo $!; wait) & echo $$; wait"
    update = shell(channel, script, timeout_s=0.3)
    assert update.timed_out
    assert update.exit_code == 128 + signal.SIGKILL
    eventually(lambda: not any(alive(int(pid)) for pid in update.stdout.split()))


def test_a_time_out_comes_true_also_when_the_caller_is_gone(
    channel: AgentChannel, agent: RunningAgent
) -> None:
    command = Command(argv=[b"sleep", b"300"], timeout_s=0.2)
    update = channel.start(command, wait_s=0, forget=False)
    eventually(lambda: not alive(update.pid))
    last = channel.poll(update.id, stdout=0, stderr=0, wait_s=5)
    assert last.timed_out
    channel.forget(update.id)


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_runs_on_in_the_background_does_not_hold_up_the_answer(
    channel: AgentChannel, tmp_path: Path
) -> None:
    wrote = tmp_path / "wrote"
    update = shell(channel, f"(sleep 0.5; echo late; >{wrote}; sleep 300) & echo $!")
    background = int(update.stdout)
    assert update.exit_code == 0
    eventually(wrote.exists)  # its stdout was still there to write to
    assert alive(background)
    os.kill(background, signal.SIGKILL)


def test_what_the_command_handed_on_is_still_collected(channel: AgentChannel) -> None:
    update = run(channel, "bash", "-c", "echo through-tee > >(sleep 0.02; cat)")
    assert update.stdout == b"through-tee\n"


def test_a_forgotten_process_is_killed_and_unknown(channel: AgentChannel) -> None:
    update = channel.start(Command(argv=[b"sleep", b"300"]), wait_s=0, forget=False)
    channel.forget(update.id)
    eventually(lambda: not alive(update.pid))
    for _ in range(10):  # the last few are kept for answers that were lost
        run(channel, "true")
    with pytest.raises(LookupError, match=update.id):
        channel.poll(update.id, stdout=0, stderr=0, wait_s=0)


def test_a_last_answer_that_was_lost_can_be_asked_for_again(channel: AgentChannel) -> None:
    update = run(channel, "echo", "hi")
    assert channel.poll(update.id, stdout=0, stderr=0, wait_s=0, forget=True).stdout == b"hi\n"


def test_a_process_is_dropped_only_with_its_last_byte(channel: AgentChannel) -> None:
    script = b"head -c 9000000 /dev/zero | tr '\\0' x"
    command = Command(argv=[b"/bin/sh", b"-c", script])
    update = channel.start(command, wait_s=30, forget=True)
    got = len(update.stdout)
    assert got < update.stdout_size == 9_000_000
    while got < update.stdout_size:
        update = channel.poll(update.id, stdout=got, stderr=0, wait_s=5, forget=True)
        got += len(update.stdout)
    assert got == 9_000_000


def test_an_unknown_process_is_a_lookup_error(channel: AgentChannel) -> None:
    for call in (
        lambda: channel.poll("p0-x", stdout=0, stderr=0, wait_s=0),
        lambda: channel.signal("p0-x", 15),
        lambda: channel.write_stdin("../x", b"", eof=True),
        lambda: channel.forget("p0-x"),
    ):
        with pytest.raises(LookupError):
            call()


def test_signals_reach_the_group_or_the_process_alone(channel: AgentChannel) -> None:
    script = b"trap 'echo got' USR1; (trap '' USR1; sleep 300) & echo ready; wait; wait"
    update = channel.start(Command(argv=[b"/bin/sh", b"-c", script]), wait_s=0, forget=False)
    channel.poll(update.id, stdout=0, stderr=0, wait_s=30)
    channel.signal(update.id, signal.SIGUSR1, group=False)
    assert channel.poll(update.id, stdout=6, stderr=0, wait_s=30).stdout == b"got\n"
    channel.signal(update.id, signal.SIGKILL)
    assert collect(channel, update)[2].exit_code == 137
    channel.signal(update.id, signal.SIGTERM)  # ended: no effect
    channel.forget(update.id)


def test_a_terminal_is_the_controlling_one_and_has_the_size(channel: AgentChannel) -> None:
    update = shell(channel, "tty </dev/tty; stty size; echo $TERM; tput cols", pty=(33, 101))
    lines = update.stdout.decode().split()
    assert lines[0] == "/dev/tty"
    assert lines[1:4] == ["33", "101", "xterm-256color"]
    assert update.stderr == b""


def test_a_terminal_is_typed_into_resized_and_interrupted(channel: AgentChannel) -> None:
    script = b"trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done"
    command = Command(argv=[b"/bin/sh", b"-c", script], pty=(24, 80))
    update = channel.start(command, wait_s=0, forget=False)
    out = channel.poll(update.id, stdout=0, stderr=0, wait_s=30).stdout
    channel.resize(update.id, 50, 132)
    while b"50 132" not in out:
        out += channel.poll(update.id, stdout=len(out), stderr=0, wait_s=30).stdout
    channel.write_stdin(update.id, b"\x03", eof=False)
    _, _, last = collect(channel, update)
    assert last.exit_code == 128 + signal.SIGINT
    channel.forget(update.id)


def test_end_of_input_of_a_terminal_is_its_end_of_file_key(channel: AgentChannel) -> None:
    command = Command(argv=[b"cat"], pty=(24, 80), stdin=b"typed\n")
    update = channel.start(command, wait_s=30, forget=True)
    assert (update.stdout, update.exit_code) == (b"typed\r\ntyped\r\n", 0)


def test_jobs_of_an_interactive_shell_die_with_it(channel: AgentChannel) -> None:
    """Job control gives each job a process group of its own; the session is still one."""
    script = b"set -m; sleep 300 & echo pid=$!; wait"
    command = Command(argv=[b"bash", b"-c", script], pty=(24, 80))
    update = channel.start(command, wait_s=0, forget=False)
    out = b""
    while b"\n" not in out:
        out += channel.poll(update.id, stdout=len(out), stderr=0, wait_s=30).stdout
    job = int(out.partition(b"pid=")[2].split()[0])
    assert alive(job)
    channel.forget(update.id)
    eventually(lambda: not alive(job))


def test_a_user_gets_its_ids_groups_and_home(channel: AgentChannel) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    update = shell(channel, "id -un; id -Gn; echo $HOME $USER", user="daemon")
    assert update.stdout.decode().split() == ["daemon", "daemon", "/usr/sbin", "daemon"]
    update = shell(channel, "id -u; id -g; echo $HOME", user="12345")
    assert update.stdout == b"12345\n12345\n/\n"
    assert shell(channel, "tty && id -un", user="daemon", pty=(24, 80)).exit_code == 0


def test_an_unknown_user_is_a_lookup_error(channel: AgentChannel) -> None:
    with pytest.raises(LookupError, match="nosuchuser"):
        run(channel, "true", user="nosuchuser")


def test_no_descriptor_of_the_agent_is_inherited(channel: AgentChannel) -> None:
    listing = run(channel, "ls", "-1", "/proc/self/fd").stdout.split()
    assert listing == [b"0", b"1", b"2", b"3"]  # 3 is the directory that ls lists
