"""Bad input gets a clear error, and leaves nothing behind: no process, no file, no machine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_flymachines.api import MachinesClient
from pytest_flymachines.emulator.launch import launch

from .cloud import until
from .conftest import Run, commit
from .leftovers import emulators

pytestmark = pytest.mark.usefixtures("nothing_is_left")

# The second one runs while the emulator still does.
TESTS = """
def test_it(fly_sandbox):
    fly_sandbox.exec("true")

def test_nothing_is_left(fly_client):
    machines = fly_client.list_machines("cook-sandbox")
    assert {machine.state for machine in machines} <= {"destroying", "destroyed"}
"""


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--fly-engine=qemu"], "*--fly-engine='qemu': expected one of auto, bubblewrap*"),
        (["--fly-memory-mb=0"], "*--fly-memory-mb='0': expected a whole number of MiB*"),
        (["--fly-app=No_Such"], "*app='No_Such': expected at most 63 characters*"),
    ],
)
def test_a_wrong_option_ends_the_run_before_it_starts(
    pytester: pytest.Pytester, run: Run, args: list[str], said: str
) -> None:
    pytester.makepyfile(TESTS)
    result = run(*args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--fly-repo=nowhere"], "*repo='nowhere': no directory *nowhere*"),
        (["--fly-repo=."], "*is not a git work tree with at least one commit*"),
        (["--fly-repo=https://127.0.0.1:1/x.git"], "*cloning https://127.0.0.1:1/x.git failed*"),
        (["--fly-repo=https://u:pw@example.com/x"], "*put the token into FLY_GIT_TOKEN*"),
    ],
)
def test_a_repository_that_cannot_be_had_is_named(
    pytester: pytest.Pytester, run: Run, args: list[str], said: str
) -> None:
    pytester.makepyfile(TESTS)
    result = run(*args)
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines([said])


@pytest.mark.parametrize("source", ["a path", "a URL"])
def test_a_ref_that_does_not_exist_is_named(
    pytester: pytest.Pytester, run: Run, repository: Path, source: str
) -> None:
    pytester.makepyfile(TESTS)
    # only the process engine's machine can read a file URL of this computer
    there = ["project"] if source == "a path" else [repository.as_uri(), "--fly-engine=process"]
    result = run(f"--fly-repo={there[0]}", *there[1:], "--fly-ref=nowhere")
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines(["*nowhere*"])


def test_a_local_repository_needs_git_on_this_computer(
    pytester: pytest.Pytester, run: Run, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = pytester.mkdir("programs")
    for directory in os.environ["PATH"].split(os.pathsep):
        for program in Path(directory).glob("*"):
            link = programs / program.name
            if program.name != "git" and not link.is_symlink():
                link.symlink_to(program)
    monkeypatch.setenv("PATH", str(programs))
    pytester.makepyfile(TESTS)
    result = run("--fly-repo=project")
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines(["*repo='project' is a local path, and no git on PATH*"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("memory=512", "*no field 'memory'; did you mean 'memory_mb'?*"),
        ("memory_mb=0", "*memory_mb=0: expected *"),
        ("setup=['no-such-program']", "*the setup command ended with exit code 127: no-such-pro*"),
    ],
)
def test_a_spec_that_will_not_do_is_named(
    pytester: pytest.Pytester, run: Run, change: str, said: str
) -> None:
    pytester.makeconftest(
        f"""
        import pytest
        @pytest.fixture(scope="session")
        def fly_sandbox_spec(fly_sandbox_spec):
            return fly_sandbox_spec.replace({change})
        """
    )
    pytester.makepyfile(TESTS)
    result = run()
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines([said])
    assert "pytest_flymachines/" not in result.stdout.str()  # what it went through


def test_a_misspelt_field_of_a_marker_is_named(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makepyfile(
        TESTS.replace("fly_sandbox", "fly_workspace").replace(
            "def test_it", "import pytest\n@pytest.mark.fly_sandbox(imag='x')\ndef test_it", 1
        )
    )
    result = run()
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines(["*no field 'imag'; did you mean 'image'?*"])


@pytest.fixture
def small_disk(scratch: Path) -> Iterator[Path]:
    """What the machines lie on has 32 MB."""
    command = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(scratch)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
    yield scratch
    left = not until(lambda: not emulators(scratch))
    subprocess.run(["umount", "--lazy", str(scratch)], check=True)
    assert not left


def test_a_full_disk_in_the_machine_fails_what_writes_and_nothing_else(
    pytester: pytest.Pytester, run: Run, small_disk: Path
) -> None:
    pytester.makepyfile(
        """
        import os
        import pytest

        def full():
            return pytest.raises(OSError, match=r"\\[Errno 28\\] No space left on device")

        def test_it(fly_sandbox, tmp_path):
            filled = fly_sandbox.exec("dd if=/dev/zero of=/root/fill bs=1M", check=False)
            assert "No space left on device" in filled.stderr
            with full():
                fly_sandbox.write_file("file", os.urandom(1_000_000))
            assert not fly_sandbox.exists("file")
            (tmp_path / "file").write_bytes(os.urandom(1_000_000))
            with full():
                fly_sandbox.upload(tmp_path, "tree")
            assert fly_sandbox.exec("echo alive").stdout == "alive\\n"
            long = fly_sandbox.exec("head -c 3000000 /dev/zero")
            assert len(long.stdout) == 3_000_000 or long.stdout_truncated
            fly_sandbox.remove("/root/fill")
            fly_sandbox.upload(tmp_path, "tree")
            assert fly_sandbox.stat("tree/file").size == 1_000_000
            assert len(fly_sandbox.exec("head -c 3000000 /dev/zero").stdout) == 3000000
        """
    )
    run("-s").assert_outcomes(passed=1)


def test_a_repository_that_does_not_fit_on_the_machines_disk_says_so(
    pytester: pytest.Pytester, run: Run, repository: Path, small_disk: Path
) -> None:
    (repository / "large").write_bytes(os.urandom(20_000_000))
    commit(repository, "large")
    pytester.makepyfile(TESTS)
    result = run(f"--fly-repo={repository.as_uri()}", "--fly-engine=process", "-s")
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.re_match_lines([".*(No space left on device|Out of diskspace)"])


def test_wrong_token_and_missing_app_say_what_to_do(
    pytester: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile("def test_it(fly_sandbox): fly_sandbox.exec('true')")
    with launch() as emulator:
        monkeypatch.setenv("FLY_FLAPS_BASE_URL", emulator.api_url)
        monkeypatch.setenv("FLY_EMULATOR_PROXY_URL", emulator.proxy_url)
        monkeypatch.setenv("FLY_API_TOKEN", "wrong-token-value")
        result = run("--fly-app=mine", mode="live")
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["*401*", "*fly tokens create deploy*"])
        result.stdout.no_fnmatch_line("*wrong-token-value*")
        monkeypatch.setenv("FLY_API_TOKEN", emulator.token)
        result = run("--fly-app=mine", mode="live")
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["*app 'mine' does not exist*", "*fly apps create mine*"])
        run("--fly-app=mine", "--fly-org=personal", mode="live").assert_outcomes(passed=1)
        with MachinesClient(emulator.token, base_url=emulator.api_url) as client:
            states = {machine.state for machine in client.list_machines("mine")}
            assert states <= {"destroying", "destroyed"}


def test_an_unreachable_api_is_named(
    pytester: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLY_API_TOKEN", "t")
    pytester.makepyfile("def test_it(fly_sandbox): fly_sandbox.exec('true')")
    result = run("--fly-api-url=http://127.0.0.1:9", mode="live")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*127.0.0.1:9*"])


@pytest.mark.parametrize("option", ["--port", "--control-port", "--proxy-port"])
def test_a_port_that_is_taken_is_named(option: str) -> None:
    program = shutil.which("pytest-flymachines", path=Path(sys.executable).parent)
    assert program
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        argv = [program, "emulator", option, port]
        ended = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert f"{option}={port}: cannot listen on 127.0.0.1:{port}" in ended.stderr
    assert "0 for a free one" in ended.stderr
