"""What tally promises, tried on a machine of its own."""

from __future__ import annotations

import socket

import pytest

from pytest_flymachines import CommandFailed, Sandbox


@pytest.fixture(scope="session")
def tally(fly_sandbox: Sandbox) -> str:
    """Path of the program, installed on the machine from the repository."""
    prefix = f"{fly_sandbox.workdir}/out"
    built = fly_sandbox.exec("sh install.sh", cwd=PROJECT, env={"PREFIX": prefix})
    assert "installed" in built.stdout
    return f"{prefix}/bin/tally"


PROJECT = "examples/tally"


def test_the_machine_is_not_this_computer(fly_sandbox: Sandbox) -> None:
    assert fly_sandbox.exec("hostname").stdout.strip() != socket.gethostname()


def test_the_repository_is_in_the_workspace(fly_sandbox: Sandbox) -> None:
    assert fly_sandbox.exists(f"{PROJECT}/install.sh")
    assert fly_sandbox.exec("git rev-parse --is-inside-work-tree").stdout == "true\n"


def test_the_installed_program_is_executable(fly_sandbox: Sandbox, tally: str) -> None:
    assert fly_sandbox.stat(tally).mode & 0o111


def test_it_counts(fly_sandbox: Sandbox, tally: str) -> None:
    fly_sandbox.write_file("poem.txt", "one two\nthree\n")
    counted = fly_sandbox.exec([tally, "count", "poem.txt"])
    assert counted.stdout == 'poem.txt: {"lines": 2, "words": 3, "bytes": 14}\n'


def test_any_bytes_can_be_counted(fly_sandbox: Sandbox, tally: str) -> None:
    fly_sandbox.write_file("noise.bin", bytes(range(256)) * 100)
    assert '"bytes": 25600' in fly_sandbox.exec([tally, "count", "noise.bin"]).stdout


def test_a_missing_file_is_exit_code_1(fly_sandbox: Sandbox, tally: str) -> None:
    failed = fly_sandbox.exec([tally, "count", "nowhere.txt"], check=False)
    assert failed.exit_code == 1
    assert "nowhere.txt" in failed.stderr


def test_a_wrong_option_raises_with_the_output(fly_sandbox: Sandbox, tally: str) -> None:
    with pytest.raises(CommandFailed, match="unrecognized arguments: --bad") as caught:
        fly_sandbox.exec([tally, "count", "--bad", "x"])
    assert caught.value.exit_code == 2


def test_it_serves(fly_sandbox: Sandbox, tally: str) -> None:
    with fly_sandbox.popen([tally, "serve", "--port", "8090"]) as server:
        server.wait_for_log(r"listening on 8090", timeout=30)
        script = (
            "import urllib.request as u;"
            "print(u.urlopen('http://127.0.0.1:8090/', b'a b c\\n').read().decode())"
        )
        answer = fly_sandbox.exec(["python3", "-c", script])
        assert answer.stdout == '{"lines": 1, "words": 3, "bytes": 6}\n'
