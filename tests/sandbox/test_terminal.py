"""Programs on a terminal, the same over every way."""

from __future__ import annotations

import shutil

import pytest

from pytest_flymachines.errors import CommandTimeout, ExpectTimeout
from pytest_flymachines.sandbox import Sandbox

from .support import gone, wait_until

# Clears the screen, draws a frame with a cursor inside, waits for a key, restores.
FULL_SCREEN = r"""
stty -echo -icanon
printf '\033[?1049h\033[2J\033[1;1H+--+\033[2;1H|hi|\033[3;1H+--+\033[2;2H'
key=$(dd bs=1 count=1 2>/dev/null)
printf '\033[5;3Hkey %s' "$key"
dd bs=1 count=1 2>/dev/null
printf '\033[?1049l'
"""


class TestShell:
    @pytest.mark.core
    def test_a_conversation(self, sandbox: Sandbox) -> None:
        with sandbox.terminal() as terminal:
            terminal.send_line("echo $((20 + 3))")
            terminal.expect(r"23\r\n")
            terminal.send_line("exit 3")
            assert terminal.wait() == 3
            assert terminal.exit_code == 3

    def test_it_is_a_terminal(self, sandbox: Sandbox) -> None:
        with sandbox.terminal("test -t 0 && test -t 1 && test -t 2 && tty && echo $TERM") as term:
            term.expect("/dev/pts/[0-9]+")
            term.expect("xterm-256color")
            assert term.wait() == 0

    def test_workdir_env_and_size(self, sandbox: Sandbox) -> None:
        sandbox.mkdir("sub")
        with sandbox.terminal(
            "pwd; echo $X; stty size", rows=11, cols=44, cwd="sub", env={"X": "y"}
        ) as t:
            t.expect(f"{sandbox.workdir}/sub\r\ny\r\n11 44\r\n")

    def test_an_argv(self, sandbox: Sandbox) -> None:
        with sandbox.terminal(["printf", "%s|", "a b", "$X"]) as terminal:
            assert terminal.wait() == 0
            assert terminal.output == "a b|$X|"

    def test_resize_reaches_the_program(self, sandbox: Sandbox) -> None:
        script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done"
        with sandbox.terminal(script) as terminal:
            terminal.expect("ready")
            terminal.resize(33, 111)
            terminal.expect("33 111")
            assert len(terminal.screen.lines) == 33

    @pytest.mark.core
    def test_ctrl_c_interrupts(self, sandbox: Sandbox) -> None:
        script = "trap 'echo interrupted; exit 4' INT; echo on; while :; do sleep 0.05; done"
        with sandbox.terminal(script) as terminal:
            terminal.expect("on")
            terminal.send_key("ctrl-c")
            terminal.expect("interrupted")
            assert terminal.wait() == 4

    def test_ctrl_d_is_the_end_of_input(self, sandbox: Sandbox) -> None:
        with sandbox.terminal("cat; echo end") as terminal:
            terminal.send_line("line")
            terminal.expect("line\r\nline\r\n")
            terminal.send_key("ctrl-d")
            terminal.expect("end")

    def test_as_another_user(self, as_root: Sandbox) -> None:
        with as_root.terminal("id -un; test -w $(tty) && echo mine", cwd="/", user="nobody") as t:
            t.expect("nobody\r\nmine")

    def test_with_ends_it(self, sandbox: Sandbox) -> None:
        with sandbox.terminal("echo pid $$ .; exec sleep 68") as terminal:
            pid = terminal.expect(r"pid (\d+) ")[1]
        wait_until(lambda: gone(sandbox, pid))


class TestExpect:
    def test_it_goes_on_after_the_last_match(self, sandbox: Sandbox) -> None:
        with sandbox.terminal("echo a1; echo a2; sleep 60") as terminal:
            assert terminal.expect(r"a\d")[0] == "a1"
            assert terminal.expect(r"a\d")[0] == "a2"

    def test_time_runs_out(self, sandbox: Sandbox) -> None:
        terminal = sandbox.terminal("echo something; sleep 60")
        with pytest.raises(ExpectTimeout, match=r"(?s)for 1 s.*something"):
            terminal.expect("nothing", timeout=1)

    def test_the_end_ends_the_waiting(self, sandbox: Sandbox) -> None:
        terminal = sandbox.terminal("echo something; exit 5")
        with pytest.raises(ExpectTimeout, match=r"(?s)has ended.*exit code 5"):
            terminal.expect("nothing", timeout=60)

    def test_wait_may_run_out_of_time(self, sandbox: Sandbox) -> None:
        with sandbox.terminal("sleep 60") as terminal, pytest.raises(CommandTimeout):
            terminal.wait(0.5)


class TestScreen:
    def test_text_and_cursor(self, sandbox: Sandbox) -> None:
        with sandbox.terminal(["/bin/sh", "-c", FULL_SCREEN], rows=10, cols=20) as terminal:
            terminal.expect_screen(r"^\|hi\|$")
            screen = terminal.screen
            assert screen.lines[:3] == ("+--+", "|hi|", "+--+")
            assert screen.cursor == (1, 1)
            terminal.send_key("x")
            terminal.expect_screen("^  key x")
            assert "key x" in terminal.screen
            terminal.send_key("enter")
            assert terminal.wait() == 0

    def test_a_character_in_two_pieces(self, sandbox: Sandbox) -> None:
        script = r"printf '\303'; sleep 0.4; printf '\251 done'; sleep 60"
        with sandbox.terminal(script) as terminal:
            terminal.expect("é done")
            assert terminal.screen.text == "é done"

    def test_it_answers_what_a_program_asks_of_a_terminal(self, sandbox: Sandbox) -> None:
        script = (
            "stty -echo -icanon; printf '\\033[6n'; dd bs=1 count=6 2>/dev/null | od -c; sleep 60"
        )
        with sandbox.terminal(script) as terminal:
            terminal.expect(r"033   \[   1   ;   1   R")

    @pytest.mark.core
    def test_a_pager(self, sandbox: Sandbox) -> None:
        sandbox.write_file("long.txt", "".join(f"line {n}\n" for n in range(200)))
        with sandbox.terminal("less long.txt || more long.txt", rows=10, cols=40) as terminal:
            terminal.expect_screen("^line 8$")
            assert "line 9" not in terminal.screen
            terminal.send_key("space")
            terminal.expect_screen("^line 9$")
            terminal.send_key("q")
            assert terminal.wait() == 0

    def test_a_program_that_draws_again_and_again(self, sandbox: Sandbox) -> None:
        with sandbox.terminal(["top", "-d", "0.2"], rows=15, cols=80) as terminal:
            terminal.expect_screen("load average")
            terminal.expect_screen(r"^ +PID .*COMMAND$")
            terminal.resize(25, 100)
            terminal.send_key("h")
            terminal.expect_screen("Help for Interactive Commands")
            assert len(terminal.screen.lines) == 25
            terminal.send_key("escape")
            terminal.expect_screen(r"^ +PID .*COMMAND$")
            terminal.send("q")
            assert terminal.wait() == 0

    @pytest.mark.core
    def test_an_editor(self, sandbox: Sandbox) -> None:
        if not shutil.which("vi"):
            pytest.skip("this computer, whose tools the machine has, has no vi")
        with sandbox.terminal(["vi", "new.txt"], rows=12, cols=50) as terminal:
            terminal.expect_screen("^~")
            terminal.send("ihello")
            terminal.send_key("escape")
            terminal.expect_screen("^hello")
            terminal.send_line(":wq")
            assert terminal.wait() == 0
        assert sandbox.read_text("new.txt") == "hello\n"


class TestArguments:
    @pytest.mark.parametrize(("rows", "cols"), [(0, 80), (24, 0), (1001, 80), (24, -1)])
    def test_impossible_sizes_are_refused(self, sandbox: Sandbox, rows: int, cols: int) -> None:
        with pytest.raises(ValueError, match="expected 1 to 1000"):
            sandbox.terminal(rows=rows, cols=cols)

    def test_an_unknown_key_is_refused(self, sandbox: Sandbox) -> None:
        terminal = sandbox.terminal("sleep 60")
        with pytest.raises(ValueError, match="pageup"):
            terminal.send_key("no-such-key")

    def test_the_transcript_shows_the_screen(self, sandbox: Sandbox) -> None:
        with sandbox.terminal("echo shown; exit 2") as terminal:
            terminal.wait()
            assert "exit code 2" in terminal.transcript()
            assert "shown" in terminal.transcript()

    def test_typing_after_the_end_is_a_broken_pipe(self, sandbox: Sandbox) -> None:
        terminal = sandbox.terminal("true")
        terminal.wait()
        with pytest.raises(BrokenPipeError):
            terminal.send_line("x")
