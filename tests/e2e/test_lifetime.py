"""However a run ends, its emulator and machines end with it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .cloud import until
from .conftest import Run
from .leftovers import alive, emulators

pytestmark = pytest.mark.usefixtures("nothing_is_left")

Background = Callable[..., "subprocess.Popen[str]"]

# Seconds that no other run of these tests on this computer sleeps for.
MARK = f"9{os.getpid():07d}"

LONG = f"""
    import pathlib

    def test_it(fly_sandbox):
        fly_sandbox.exec("sleep {MARK}4 & setsid sleep {MARK}5 & true")
        pathlib.Path("ready").touch()
        fly_sandbox.exec("sleep {MARK}3", timeout=600)
"""


def nothing_left(scratch: Path) -> bool:
    return not alive(MARK) and not alive(str(scratch)) and not emulators(scratch)


@pytest.mark.parametrize("engine", ["bubblewrap", "process"])
def test_kill_9_in_the_middle_of_a_test_leaves_nothing(
    pytester: pytest.Pytester, background: Background, scratch: Path, engine: str
) -> None:
    pytester.makepyfile(LONG)
    process = background("--fly-mode=local", f"--fly-engine={engine}")
    assert until((pytester.path / "ready").exists, 60), process.communicate(timeout=5)
    assert alive(f"sleep {MARK}4")
    assert emulators(scratch)
    os.kill(process.pid, signal.SIGKILL)
    assert until(lambda: nothing_left(scratch)), (alive(MARK), emulators(scratch))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_takes_everything_down_before_pytest_ends(
    pytester: pytest.Pytester, background: Background, scratch: Path, number: signal.Signals
) -> None:
    pytester.makepyfile(LONG)
    process = background("--fly-mode=local")
    assert until((pytester.path / "ready").exists, 60), process.communicate(timeout=5)
    os.kill(process.pid, number)
    output, _ = process.communicate(timeout=30)
    assert nothing_left(scratch), (alive(MARK), emulators(scratch), output)
    assert process.returncode == (2 if number == signal.SIGINT else 128 + number), output


def test_kill_9_of_a_controller_with_workers_leaves_nothing(
    pytester: pytest.Pytester, background: Background, scratch: Path
) -> None:
    pytester.makepyfile(LONG)
    process = background("--fly-mode=local", "-n", "2")
    assert until((pytester.path / "ready").exists, 60), process.communicate(timeout=5)
    os.kill(process.pid, signal.SIGKILL)
    assert until(lambda: nothing_left(scratch)), (alive(MARK), emulators(scratch))


@pytest.mark.parametrize(
    "body",
    ["pass", "assert False", "raise KeyboardInterrupt", "import os; os._exit(3)"],
    ids=["passes", "fails", "interrupts", "dies"],
)
def test_a_run_that_ends_by_itself_leaves_nothing(
    pytester: pytest.Pytester, run: Run, scratch: Path, body: str
) -> None:
    pytester.makepyfile(
        f"""
        def test_it(fly_sandbox):
            fly_sandbox.exec("setsid sleep {MARK}4 & true")
            {body}
        """
    )
    run(new=True)
    assert until(lambda: nothing_left(scratch)), (alive(MARK), emulators(scratch))


@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["alone", "with a worker"])
def test_a_run_closes_every_socket_and_file_that_it_opened(
    pytester: pytest.Pytester, run: Run, workers: list[str]
) -> None:
    pytester.makepyfile(
        """
        def test_it(fly_sandbox, fly_client):
            fly_sandbox.exec("true")
            fly_sandbox.popen("sleep 100")
            fly_sandbox.forward(1).close()
            fly_client.list_machines(fly_sandbox.app)
        """
    )
    result = run("-W", "always::ResourceWarning", *workers)
    result.assert_outcomes(passed=1)
    assert "ResourceWarning" not in result.stdout.str() + result.stderr.str()


def test_an_emulator_that_was_killed_is_swept_by_the_next_run(
    pytester: pytest.Pytester, run: Run, scratch: Path
) -> None:
    pytester.makepyfile(
        """
        import os, signal, pathlib

        def test_it(fly_sandbox, pytestconfig):
            for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
                line = path.read_bytes()
                if b"pytest_flymachines.emulator" in line and str(os.getpid()).encode() in line:
                    os.kill(int(path.parent.name), signal.SIGKILL)
        """
    )
    run()
    assert until(lambda: not alive(str(scratch)))
    pytester.makepyfile("def test_it(fly_sandbox): fly_sandbox.exec('true')")
    run().assert_outcomes(passed=1)
    assert emulators(scratch) == []
