"""`exec` (reference, section 6)."""

from __future__ import annotations

import threading
import time

from pytest_flymachines.probe.registry import check
from pytest_flymachines.probe.trial import Trial
from pytest_flymachines.probe.wire import Answer

_TOO_LARGE = "Rejection(["
_OVER = "deadline_exceeded"


@check("any exit code is a 200 with exit_code, stdout and stderr", "docs", "6.2")
def exit_code(trial: Trial) -> None:
    answer = trial.guest().exec("/bin/sh", "-c", "echo out; echo err >&2; exit 3")
    trial.same("status", answer.status, 200)
    shown = [answer.field(name) for name in ("exit_code", "stdout", "stderr")]
    trial.same("answer", shown, [3, "out\n", "err\n"])


@check("`command` is argv as it is: no shell", "openapi", "6.1")
def command(trial: Trial) -> None:
    answer = trial.guest().exec("echo", "$HOME", "*", "a  b", "|", "cat")
    trial.same("stdout", answer.field("stdout"), "$HOME * a  b | cat\n")


@check("`cmd` is split into words as a shell does, and no shell runs", "seen", "6.1")
def cmd(trial: Trial) -> None:
    guest = trial.guest()
    quoted = guest.exec(cmd="""sh -c 'printf "[%s]" "$@"' _ 'a b' "c d" e""")
    trial.same("quotes", quoted.field("stdout"), "[a b][c d][e]")
    piped = guest.exec(cmd="echo a | cat && echo $HOME")
    trial.same("no pipes, no variables", piped.field("stdout"), "a | cat && echo $HOME\n")


@check("how exactly `cmd` is split", "unknown", "6.1")
def cmd_splitting(trial: Trial) -> None:
    guest = trial.guest()
    for words in (
        r"""a\ b 'c\ d' "e\ f" """,
        r"""a'b'"c" '' "" x""",
        r""""a\"b" 'c"d' "e'f" """,
        r"""a #b ; c & d > e < f (g)""",
        r"""$HOME ${HOME} `id` "$HOME" ~ * a=b {1,2}""",
        "a\tb\nc",
    ):
        answer = guest.exec(cmd=f"printf '[%s]' {words}")
        trial.note(words, f"{answer.status} {answer.field('stdout') or answer.error}")
    for broken in ("echo 'a", 'echo "a', "echo a\\", "   "):
        trial.note_answer(broken, guest.exec(cmd=broken))


@check("root, in `/`", "init", "6.5")
def user(trial: Trial) -> None:
    said = trial.guest().output("id -u; pwd").split()
    trial.same("uid and cwd", said, ["0", "/"])


@check("HOME, PATH and umask of a command", "unknown", "6.5")
def environment(trial: Trial) -> None:
    said = trial.guest().output('echo "$HOME"; echo "$PATH"; umask; ulimit -n').splitlines()
    trial.note("HOME, PATH, umask, open files", said)


@check("what a command reads on its stdin, with `stdin` and without", "unknown", "6.1")
def stdin(trial: Trial) -> None:
    guest = trial.guest()
    trial.note_answer('with `"stdin":"hello"`', guest.exec("cat", stdin="hello"))
    trial.note_answer("without", guest.exec("cat", timeout=5))


@check("killed by a signal: `exit_signal`, and no exit code of 0 alone", "init", "6.2")
def killed(trial: Trial) -> None:
    answer = trial.guest().exec("/bin/sh", "-c", "kill -9 $$")
    trial.same("status", answer.status, 200)
    shown = (answer.field("exit_code"), answer.field("exit_signal"))
    trial.true("told apart from success", shown[1] == 9 or shown[0] == 137, list(shown))


@check("what a program that is not there is answered", "unknown", "6.2")
def not_found(trial: Trial) -> None:
    trial.note_answer("answer", trial.guest().exec("/there/is/no/such/program"))


@check("what output that is not UTF-8 becomes", "unknown", "6.2")
def not_utf8(trial: Trial) -> None:
    answer = trial.guest().exec("printf", r"a\377\376b")
    trial.note("stdout", ascii(answer.field("stdout")))


@check("a body above 16 KiB: 200, exit code 0 and `Rejection([` in the output", "seen", "6.4")
def large_body(trial: Trial) -> None:
    guest = trial.guest()
    fine = guest.exec("true", "x" * 12_000)
    trial.same("12 kB", (fine.status, _TOO_LARGE in fine.text), (200, False))
    answer = guest.exec("true", "x" * 20_000)
    trial.same("20 kB", (answer.status, answer.field("exit_code") or 0), (200, 0))
    trial.contains("the output", answer.text, _TOO_LARGE)


@check("which sizes of body are taken", "unknown", "6.4")
def body_limit(trial: Trial) -> None:
    guest = trial.guest()
    for size in (16_200, 16_500, 66_000, 130_000):
        answer = guest.exec("true", "x" * size)
        fate = "rejected" if _TOO_LARGE in answer.text else answer.text[:120]
        trial.note(f"argument of {size} bytes", f"{answer.status} {fate}")


@check("a timeout above 60 s", "unknown", "6.3")
def timeout_above_60(trial: Trial) -> None:
    guest = trial.guest()
    for seconds in (61, 120, 300):
        trial.note_answer(f"timeout {seconds}", guest.exec("true", timeout=seconds))


@check("408 when the time is over, and the command goes on", "seen", "6.3")
def timeout(trial: Trial) -> None:
    guest = trial.guest()
    mark = "${PYTEST_FLYMACHINES_ROOT:-}/tmp/went-on"
    answer = guest.exec("/bin/sh", "-c", f"sleep 4; echo done >{mark}", timeout=2)
    trial.refused(answer, 408, _OVER)
    went_on = trial.until(lambda: guest.output(f"cat {mark} 2>/dev/null") != "", within_s=20)
    trial.true("it went on", went_on)


@check("whether a child that holds stdout holds the answer", "unknown", "6.3")
def held_stdout(trial: Trial) -> None:
    answer = trial.guest().exec("/bin/sh", "-c", "sleep 3 & echo hi", timeout=10)
    trial.note_answer("answer", answer)
    trial.note("seconds", round(answer.seconds, 1))


@check("whether two commands run at once", "unknown", "6.5")
def at_once(trial: Trial) -> None:
    guest = trial.guest()
    answers: list[Answer] = []

    def run() -> None:
        answers.append(guest.exec("sleep", "2", timeout=20))

    threads = [threading.Thread(target=run, daemon=True) for _ in range(2)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    trial.note("two of 2 s together took (s)", round(time.monotonic() - began, 1))
    trial.note("statuses", [answer.status for answer in answers])


@check("how much output comes back", "unknown", "6.4")
def output_cap(trial: Trial) -> None:
    guest = trial.guest()
    for size in (100_000, 1_000_000, 4_000_000):
        script = f"head -c {size} /dev/zero | tr '\\0' x"
        answer = guest.exec("/bin/sh", "-c", script, timeout=30)
        got = answer.field("stdout")
        fate = f"{len(got)} came back" if isinstance(got, str) else answer.text[:120]
        trial.note(f"{size} bytes", f"{answer.status}, {fate}")
        trial.exchanges.pop()


@check("what neither `cmd` nor `command` is answered", "unknown", "6.1")
def no_command(trial: Trial) -> None:
    trial.note_answer("answer", trial.guest().post("exec", {}))
