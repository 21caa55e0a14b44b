"""Running commands to their end, the same over every way."""

from __future__ import annotations

import shlex
import signal
import subprocess
import threading
from functools import partial
from pathlib import PurePosixPath

import pytest

from pytest_flymachines.errors import (
    CommandFailed,
    CommandTimeout,
    FlyMachinesError,
    SandboxFileNotFound,
    SandboxNotADirectory,
)
from pytest_flymachines.sandbox import Sandbox, api_processes

from .support import gone, timed_out, wait_until


class TestResult:
    def test_a_string_goes_through_the_shell(self, sandbox: Sandbox) -> None:
        result = sandbox.exec("echo out; echo err >&2")
        assert (result.stdout, result.stderr, result.exit_code) == ("out\n", "err\n", 0)

    def test_it_is_a_completed_process(self, sandbox: Sandbox) -> None:
        result = sandbox.exec(["echo", "hi"])
        assert isinstance(result, subprocess.CompletedProcess)
        assert result.args == ["echo", "hi"]
        assert result.returncode == 0
        result.check_returncode()

    def test_its_truth_is_success(self, sandbox: Sandbox) -> None:
        assert sandbox.exec("true")
        assert sandbox.exec("true").ok
        assert not sandbox.exec("false", check=False)
        assert not sandbox.exec("false", check=False).ok

    def test_it_knows_the_duration(self, sandbox: Sandbox) -> None:
        result = sandbox.exec("sleep 0.3")
        assert 0.25 < result.duration < 30

    def test_nothing_is_truncated(self, sandbox: Sandbox) -> None:
        result = sandbox.exec("echo x")
        assert (result.stdout_truncated, result.stderr_truncated) == (False, False)

    @pytest.mark.parametrize("code", [1, 2, 42, 126, 127, 255])
    def test_exit_codes(self, sandbox: Sandbox, code: int) -> None:
        assert sandbox.exec(f"exit {code}", check=False).exit_code == code

    @pytest.mark.parametrize(("name", "code"), [("TERM", 143), ("KILL", 137), ("INT", 130)])
    def test_a_signal_is_an_exit_code_above_128(
        self, sandbox: Sandbox, name: str, code: int
    ) -> None:
        assert sandbox.exec(f"kill -{name} $$; sleep 5", check=False).exit_code == code


class TestCheck:
    @pytest.mark.core
    def test_failure_raises_by_default(self, sandbox: Sandbox) -> None:
        with pytest.raises(CommandFailed) as info:
            sandbox.exec("echo partial; echo why >&2; exit 3")
        error = info.value
        assert isinstance(error, subprocess.CalledProcessError)
        assert (error.returncode, error.output, error.stderr) == (3, "partial\n", "why\n")
        assert error.cmd == "echo partial; echo why >&2; exit 3"
        assert error.machine_id == sandbox.machine_id

    def test_the_message_has_command_machine_and_output(self, sandbox: Sandbox) -> None:
        with pytest.raises(CommandFailed) as info:
            sandbox.exec("echo partial; exit 3")
        for part in ("exit 3", sandbox.machine_id, "partial", "check=False"):
            assert part in str(info.value)

    def test_failure_is_a_result_without_check(self, sandbox: Sandbox) -> None:
        assert sandbox.exec("exit 3", check=False).returncode == 3

    def test_check_returncode_raises_our_error(self, sandbox: Sandbox) -> None:
        with pytest.raises(CommandFailed):
            sandbox.exec("exit 3", check=False).check_returncode()


class TestArguments:
    @pytest.mark.parametrize(
        "argument",
        [
            "",
            " ",
            "a b",
            "'",
            '"',
            "\\",
            "\\0101 \\n",
            "$HOME `id` $(id)",
            "*",
            "~",
            "line\nline",
            "trailing newline\n",
            "\t",
            "%s %b",
            "é日本語🎉",
            "-n",
            "--",
            "a=b",
            "!",
            "\x01\x1f\x7f",
            "x" * 20_000,
        ],
    )
    def test_an_argument_arrives_as_it_is(self, sandbox: Sandbox, argument: str) -> None:
        result = sandbox.exec(["printf", "%s|", "first", argument, "last"])
        assert result.stdout == f"first|{argument}|last|"

    @pytest.mark.core
    def test_bytes_that_are_not_utf8_arrive(self, sandbox: Sandbox) -> None:
        raw = bytes(range(1, 256))
        assert sandbox.exec(["printf", "%s", raw]).stdout_bytes == raw
        text = raw.decode("utf-8", "surrogateescape")
        assert sandbox.exec(["printf", "%s", text]).stdout == text

    def test_paths_are_arguments(self, sandbox: Sandbox) -> None:
        result = sandbox.exec(["echo", PurePosixPath("a/b"), sandbox.path("c")])
        assert result.stdout == "a/b c\n"

    def test_many_arguments(self, sandbox: Sandbox) -> None:
        argv = [str(n) for n in range(5000)]
        assert sandbox.exec(["printf", "%s\n", *argv]).stdout.split("\n")[:-1] == argv

    def test_a_long_script(self, sandbox: Sandbox) -> None:
        script = "".join(f"echo {n} {'x' * 50}\n" for n in range(1000))
        assert sandbox.exec(script).stdout.count("\n") == 1000

    def test_a_program_with_an_equals_sign(self, sandbox: Sandbox) -> None:
        sandbox.write_file("a=b", "#!/bin/sh\necho ran $1 $X\n", mode=0o755)
        assert sandbox.exec(["./a=b", "c"], env={"X": "y"}).stdout == "ran c y\n"

    @pytest.mark.core
    def test_an_unknown_program_is_127(self, sandbox: Sandbox) -> None:
        # directories that may not be searched would make it 126
        result = sandbox.exec(["no-such-program"], env={"PATH": "/usr/bin:/bin"}, check=False)
        assert result.exit_code == 127
        assert "no-such-program" in result.stderr

    def test_a_program_that_is_not_executable_is_126(self, sandbox: Sandbox) -> None:
        sandbox.write_file("plain", "text", mode=0o644)
        assert sandbox.exec(["./plain"], check=False).exit_code == 126

    @pytest.mark.parametrize("command", ["", [], ["a\0b"], "a\0b"])
    def test_what_cannot_be_a_command_is_refused(
        self, sandbox: Sandbox, command: str | list[str]
    ) -> None:
        with pytest.raises(ValueError, match=r"command|NUL"):
            sandbox.exec(command)


class TestSurroundings:
    def test_the_workspace_is_the_default_directory(self, sandbox: Sandbox) -> None:
        assert sandbox.exec("pwd").stdout == sandbox.workdir + "\n"

    def test_cwd_is_relative_to_the_workspace(self, sandbox: Sandbox) -> None:
        sandbox.mkdir("a b/c", parents=True)
        assert sandbox.exec("pwd", cwd="a b/c").stdout == f"{sandbox.workdir}/a b/c\n"

    def test_cwd_may_be_absolute(self, sandbox: Sandbox) -> None:
        assert sandbox.exec("pwd", cwd="/usr").stdout == "/usr\n"

    def test_a_missing_cwd_is_an_error(self, sandbox: Sandbox) -> None:
        with pytest.raises(SandboxFileNotFound) as info:
            sandbox.exec("true", cwd="missing")
        assert str(info.value.filename).endswith("missing")

    def test_a_file_is_no_cwd(self, sandbox: Sandbox) -> None:
        sandbox.write_file("file", "")
        with pytest.raises(SandboxNotADirectory):
            sandbox.exec("true", cwd="file")

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("PLAIN", "value"),
            ("EMPTY", ""),
            ("SPACES", "  a  b  "),
            ("QUOTES", "'\"\\`$x"),
            ("LINES", "a\nb\n"),
            ("EQUALS", "a=b=c"),
            ("UNICODE", "é🎉"),
            ("RAW", "\udcff\udcfe"),
            ("LONG", "x" * 20_000),
            ("IFS", ":"),
            ("_D", "runner"),
            ("a.b-c", "no identifier"),
        ],
    )
    def test_a_variable_arrives_as_it_is(self, sandbox: Sandbox, name: str, value: str) -> None:
        expected = f"{name}={value}".encode("utf-8", "surrogateescape")
        output = sandbox.exec(["env", "-0"], env={name: value}).stdout_bytes
        assert expected in output.split(b"\0")

    def test_variables_of_the_machine_stay(self, sandbox: Sandbox) -> None:
        with_env = sandbox.exec("env | cut -d= -f1 | sort", env={"EXTRA": "1"}).stdout.split()
        without = sandbox.exec("env | cut -d= -f1 | sort").stdout.split()
        assert set(with_env) == {*without, "EXTRA"}

    def test_nothing_of_ours_leaks_into_the_environment(self, sandbox: Sandbox) -> None:
        names = sandbox.exec("env | cut -d= -f1").stdout.split()
        # a python3 that is pyenv's sets variables of pyenv's for the agent
        assert not [n for n in names if n.startswith("_") and n != "_" and "PYENV" not in n]
        assert "OLDPWD" not in names
        assert "LC_ALL" not in names

    def test_path_of_the_command_is_looked_up_in_its_own_path(self, sandbox: Sandbox) -> None:
        sandbox.write_file("bin/mine", "#!/bin/sh\necho mine\n", mode=0o755)
        path = f"{sandbox.workdir}/bin:/usr/bin:/bin"
        assert sandbox.exec(["mine"], env={"PATH": path}).stdout == "mine\n"

    @pytest.mark.parametrize("env", [{"": "x"}, {"A=B": "x"}, {"A": "x\0"}, {"A\0": "x"}])
    def test_impossible_variables_are_refused(self, sandbox: Sandbox, env: dict[str, str]) -> None:
        with pytest.raises(ValueError, match="no environment variable"):
            sandbox.exec("true", env=env)

    def test_root_is_the_default_user(self, as_root: Sandbox) -> None:
        assert as_root.exec("id -u").stdout == "0\n"

    def test_home_is_that_of_the_user(self, sandbox: Sandbox) -> None:
        # an engine without a root of its own puts a directory of the machine's before it
        assert sandbox.exec('echo "$HOME"').stdout.endswith("/root\n")

    def test_another_user_by_name(self, as_root: Sandbox) -> None:
        result = as_root.exec('id -un; id -gn; echo "$HOME $USER $LOGNAME"', cwd="/", user="nobody")
        assert result.stdout == "nobody\nnogroup\n/nonexistent nobody nobody\n"

    def test_another_user_by_number(self, as_root: Sandbox) -> None:
        assert (
            as_root.exec("id -u; id -g; id -G", cwd="/", user=4321).stdout == "4321\n4321\n4321\n"
        )

    @pytest.mark.core
    def test_another_user_gets_its_arguments_too(self, as_root: Sandbox) -> None:
        argv = ["printf", "%s|", "a b", "'", "$X", "-c", "--"]
        expected = "a b|'|$X|-c|--|"
        assert as_root.exec(argv, cwd="/", user="nobody", env={"X": "1"}).stdout == expected

    def test_another_users_exit_code_and_signal(self, as_root: Sandbox) -> None:
        assert as_root.exec("exit 5", cwd="/", user="nobody", check=False).exit_code == 5
        assert as_root.exec("kill -9 $$", cwd="/", user="nobody", check=False).exit_code == 137

    def test_an_unknown_user_is_an_error(self, sandbox: Sandbox) -> None:
        with pytest.raises(
            LookupError, match=r"^user='no-such-user': machine \w+ has no user.*give a number$"
        ):
            sandbox.exec("true", user="no-such-user")

    def test_the_umask_lets_others_read(self, sandbox: Sandbox) -> None:
        assert sandbox.exec("umask").stdout.strip() == "0022"

    def test_a_command_has_no_terminal(self, sandbox: Sandbox) -> None:
        assert sandbox.exec("test -t 0 || test -t 1 || test -t 2", check=False).exit_code == 1

    def test_a_command_is_leader_of_its_own_group_and_session(self, sandbox: Sandbox) -> None:
        stat = sandbox.exec("cat /proc/$$/stat").stdout.rpartition(")")[2].split()
        pid = sandbox.exec("echo $$").stdout
        assert pid.strip().isdigit()
        assert stat[2] == stat[3]

    @pytest.mark.core
    def test_no_signal_is_ignored(self, sandbox: Sandbox) -> None:
        lines = sandbox.exec("cat /proc/self/status").stdout.splitlines()
        ignored = next(line.split()[1] for line in lines if line.startswith("SigIgn"))
        assert int(ignored, 16) == 0


class TestStdin:
    def test_the_default_is_empty(self, sandbox: Sandbox) -> None:
        assert sandbox.exec("cat; echo end").stdout == "end\n"

    @pytest.mark.parametrize(
        "data", ["text é\n", "", "no newline", b"bytes\0\xff\xfe", b"\0" * 10, "t", "-", "@x"]
    )
    def test_it_arrives_as_it_is(self, sandbox: Sandbox, data: str | bytes) -> None:
        raw = data if isinstance(data, bytes) else data.encode()
        assert sandbox.exec("cat", stdin=data).stdout_bytes == raw

    @pytest.mark.core
    def test_megabytes_of_it(self, sandbox: Sandbox) -> None:
        data = bytes(range(256)) * 4 * 2048
        result = sandbox.exec("cat", stdin=data)
        assert result.stdout_bytes == data

    def test_a_command_that_does_not_read_it(self, sandbox: Sandbox) -> None:
        assert sandbox.exec("echo done", stdin=b"x" * 200_000).stdout == "done\n"


class TestOutput:
    @pytest.mark.core
    def test_every_byte(self, sandbox: Sandbox) -> None:
        raw = bytes(range(256)) * 3
        sandbox.write_file("raw", raw)
        result = sandbox.exec("cat raw; cat raw >&2")
        assert result.stdout_bytes == raw
        assert result.stderr_bytes == raw

    def test_text_keeps_what_is_not_utf8(self, sandbox: Sandbox) -> None:
        text = sandbox.exec(r"printf 'ok\377'").stdout
        assert text == "ok\udcff"
        assert text.encode("utf-8", "surrogateescape") == b"ok\xff"

    def test_errors_says_what_becomes_of_it(self, sandbox: Sandbox) -> None:
        assert sandbox.exec(r"printf 'ok\377'", errors="replace").stdout == "ok\ufffd"

    def test_an_unknown_errors_is_refused_before_anything_runs(self, sandbox: Sandbox) -> None:
        with pytest.raises(LookupError):
            sandbox.exec("touch ran", errors="nonsense")
        assert not sandbox.exists("ran")

    def test_megabytes(self, sandbox: Sandbox) -> None:
        result = sandbox.exec("seq 1 600000; seq 1 1000 >&2")
        assert result.stdout == "".join(f"{n}\n" for n in range(1, 600_001))
        assert result.stderr == "".join(f"{n}\n" for n in range(1, 1001))

    def test_random_megabytes(self, sandbox: Sandbox) -> None:
        result = sandbox.exec("head -c 5000000 /dev/urandom | tee copy")
        assert len(result.stdout_bytes) == 5_000_000
        assert result.stdout_bytes == sandbox.read_file("copy")

    def test_dev_stdout_may_be_opened_again(self, sandbox: Sandbox) -> None:
        result = sandbox.exec("echo a; echo b >/dev/stdout; echo c >/dev/stderr; echo d")
        assert (result.stdout, result.stderr) == ("a\nb\nd\n", "c\n")

    def test_a_background_process_does_not_hold_up_the_end(self, sandbox: Sandbox) -> None:
        result = sandbox.exec("sleep 47 & echo started", timeout=20)
        assert result.stdout == "started\n"
        assert sandbox.exec("pkill -f '[s]leep 47'", check=False).exit_code == 0

    def test_on_output_is_told_while_the_command_runs(self, sandbox: Sandbox) -> None:
        told: list[tuple[str, str]] = []

        def on_output(stream: str, text: str) -> None:
            told.append((stream, text))
            if text == "first\n":
                sandbox.write_file("go", "")

        sandbox.exec(
            "echo first; while [ ! -e go ]; do sleep 0.05; done; echo second; echo err >&2",
            on_output=on_output,
            timeout=30,
        )
        assert ("stdout", "first\n") in told
        assert "".join(t for s, t in told if s == "stdout") == "first\nsecond\n"
        assert "".join(t for s, t in told if s == "stderr") == "err\n"

    @pytest.mark.core
    def test_on_output_never_gets_half_a_character(self, sandbox: Sandbox) -> None:
        told: list[str] = []
        pieces = (r"\303", r"\251", r"\360\237\216", r"\211")
        script = "; sleep 0.4; ".join(f"printf '{piece}'" for piece in pieces)
        result = sandbox.exec(script, on_output=lambda _, text: told.append(text))
        assert "".join(told) == result.stdout == "é🎉"
        assert set("".join(told)) == {"é", "🎉"}

    def test_an_exception_of_on_output_ends_the_command(self, sandbox: Sandbox) -> None:
        def on_output(stream: str, text: str) -> None:
            raise RuntimeError("enough")

        with pytest.raises(RuntimeError, match="enough"):
            sandbox.exec("echo $$ >pid; echo x; sleep 60", on_output=on_output)
        wait_until(lambda: gone(sandbox, sandbox.read_text("pid").strip()))


class TestTimeout:
    def test_the_error_has_the_output_so_far(self, sandbox: Sandbox) -> None:
        command = "echo so far; echo err >&2; sleep 60"
        error = timed_out(sandbox, command, lambda error: error.stderr)
        assert isinstance(error, subprocess.TimeoutExpired)
        assert isinstance(error, TimeoutError)
        assert error.output == "so far\n"
        assert str(error.stderr) == "err\n"
        for part in (sandbox.machine_id, "so far", "timeout="):
            assert part in str(error)

    @pytest.mark.core
    def test_the_whole_group_is_killed_in_the_machine(self, sandbox: Sandbox) -> None:
        command = "sleep 61 & echo $! >child; echo $$ >new; mv new parent; wait"
        timed_out(sandbox, command, lambda _: sandbox.exists("parent"))
        for name in ("parent", "child"):
            wait_until(partial(gone, sandbox, sandbox.read_text(name).strip()))

    def test_a_process_that_ignores_sigterm_is_killed_too(self, sandbox: Sandbox) -> None:
        command = "trap '' TERM; echo $$ >new; mv new pid; while :; do sleep 0.1; done"
        timed_out(sandbox, command, lambda _: sandbox.exists("pid"))
        wait_until(lambda: gone(sandbox, sandbox.read_text("pid").strip()))

    def test_a_command_may_take_longer_than_one_request(
        self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pytest_flymachines.sandbox.exec.WAIT_S", 0.2)
        result = sandbox.exec("sleep 1.5; echo done", timeout=60)
        assert result.stdout == "done\n"

    def test_none_is_no_limit(self, sandbox: Sandbox) -> None:
        assert sandbox.exec("echo x", timeout=None).ok

    @pytest.mark.parametrize("timeout", [0, -1, float("nan")])
    def test_no_time_at_all_is_refused(self, sandbox: Sandbox, timeout: float) -> None:
        with pytest.raises(ValueError, match="timeout"):
            sandbox.exec("true", timeout=timeout)

    def test_an_exit_code_like_that_of_a_kill_is_no_timeout(self, sandbox: Sandbox) -> None:
        assert sandbox.exec("exit 137", check=False, timeout=30).exit_code == 137


class TestInterruption:
    def test_ctrl_c_ends_the_command_in_the_machine(
        self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # over the Machines API, what looks for the file and what kills are queued behind it
        monkeypatch.setattr(api_processes, "_LONGEST_WAIT_S", 1)
        main = threading.get_ident()

        def interrupt() -> None:
            wait_until(lambda: sandbox.exists("pid"))
            signal.pthread_kill(main, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            sandbox.exec("echo $$ >pid.new; mv pid.new pid; sleep 62")
        thread.join()
        wait_until(lambda: gone(sandbox, sandbox.read_text("pid").strip()))


def test_commands_of_several_threads_do_not_disturb_each_other(sandbox: Sandbox) -> None:
    outputs: dict[int, str] = {}

    def run(number: int) -> None:
        outputs[number] = sandbox.exec(f"sleep 0.1; echo {number}; exit 0").stdout

    threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outputs == {n: f"{n}\n" for n in range(8)}


def test_a_shell_quotes_what_shlex_quotes(sandbox: Sandbox) -> None:
    words = ["a b", "$x", "'", "", "\n"]
    assert sandbox.exec(f"printf '%s|' {shlex.join(words)}").stdout == "a b|$x|'||\n|"


def test_every_error_is_one_of_ours(sandbox: Sandbox) -> None:
    for kind in (CommandFailed, CommandTimeout, SandboxFileNotFound):
        assert issubclass(kind, FlyMachinesError)
