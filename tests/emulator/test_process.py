"""The emulator as a process: launch, ready line, owner, ending, sweeping, command line."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from pytest_flymachines.emulator import launch as launching
from pytest_flymachines.emulator.launch import LaunchError, launch
from pytest_flymachines.emulator.options import parse
from pytest_flymachines.emulator.rundir import PREFIX
from tests.emulator.conftest import REPOSITORY, App, Fly, Serve, eventually
from tests.emulator.processes import has_ended

OWNER = """
import sys, time
from tests.emulator.conftest import *
from pytest_flymachines.emulator import launch as launching
launching._program = lambda: [sys.executable, "-P", "-m", "tests.emulator.serve"]
emulator = launching.launch(apps=["owned"])
print(emulator.api_url, emulator.token, emulator.pid, flush=True)
time.sleep(1000)
"""


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A directory for temporary files that only the emulators of this test use."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def directories(temporary: Path) -> set[Path]:
    return set(temporary.glob(f"{PREFIX}{os.getuid()}-*"))


def test_on_a_terminal_it_says_what_to_export() -> None:
    ours, its = pty.openpty()
    environ = {k: v for k, v in os.environ.items() if not k.startswith("FLY_")}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.emulator.serve", "--app", "typed"],
        stdin=subprocess.DEVNULL,
        stdout=its,
        env=environ,
        cwd=REPOSITORY,
    ) as process:
        os.close(its)
        said = ""
        while "Ctrl-C" not in said:
            said += os.read(ours, 4096).decode()
        lines = said.splitlines()
        exports = "\n".join(line for line in lines if line.startswith("export "))
        ask = 'curl -fsS -H "Authorization: Bearer $FLY_API_TOKEN" $FLY_API_HOSTNAME/v1/apps/typed'
        shell = ["sh", "-c", f"{exports}\n{ask}"]
        answer = subprocess.run(shell, env=environ, capture_output=True, text=True, check=True)
        assert json.loads(answer.stdout)["name"] == "typed"
        page = next(line.split()[1] for line in lines if line.startswith("page "))
        assert httpx.get(page.partition("#")[0], trust_env=False).status_code == 401
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    os.close(ours)


def test_launch_gives_a_ready_emulator(serve: Serve) -> None:
    with serve("--app", "made", token="emu-given") as emulator:
        assert emulator.token == "emu-given"
        assert "emu-given" not in repr(emulator)
        assert emulator.engine == "tiny"
        for url in (emulator.api_url, emulator.proxy_url, emulator.control_url):
            assert httpx.URL(url).host == "127.0.0.1"
        fly = Fly(emulator)
        assert fly.ok("GET", "/v1/apps/made")["organization"]["slug"] == "personal"
        fly.close()
    assert has_ended(emulator.pid)
    emulator.stop()


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "shutdown"])
def test_ending_leaves_nothing_behind(serve: Serve, temporary: Path, how: str) -> None:
    with serve("--app", "end") as emulator:
        fly = Fly(emulator)
        machine = App(fly, "end").create("sh", "-c", "echo $$ > pid; sleep inf")
        eventually(lambda: machine.exec("cat", "pid")["stdout"] != "")
        pid = int(machine.exec("cat", "pid")["stdout"])
        if how == "shutdown":
            assert fly.control.post("/shutdown").status_code == 202
        else:
            os.kill(emulator.pid, getattr(signal, how))
        eventually(lambda: has_ended(emulator.pid))
        assert emulator._process.wait() == 0
        assert has_ended(pid)
        fly.close()
    assert directories(temporary) == set()


def test_it_ends_with_its_owner(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, env=environment, cwd=tmp_path
    ) as owner:
        assert owner.stdout is not None
        url, token, text = owner.stdout.readline().decode().split()
        pid = int(text)
        answer = httpx.get(
            f"{url}/v1/apps/owned",
            headers={"authorization": f"Bearer {token}"},
            trust_env=False,
        )
        assert answer.status_code == 200
        assert os.getsid(pid) == pid
        owner.kill()
    eventually(lambda: has_ended(pid))


def test_disowned_emulator_lives_as_long_as_its_machines(serve: Serve, tmp_path: Path) -> None:
    owner = subprocess.Popen(["sleep", "1000"])
    with serve("--app", "kept", owner_pid=owner.pid) as emulator:
        fly = Fly(emulator)
        machine = App(fly, "kept").create("sleep", "inf")
        emulator.disown()
        owner.kill()
        owner.wait()
        emulator.stop()
        assert machine.state == "started"
        machine.destroy()
        fly.close()
        eventually(lambda: has_ended(emulator.pid))
    assert os.waitpid(emulator.pid, 0)[1] == 0


def test_an_owner_that_is_gone_already_is_noticed(serve: Serve) -> None:
    finished = subprocess.Popen(["true"])
    finished.wait()
    with pytest.raises(LaunchError, match="is gone"), serve(owner_pid=finished.pid):
        pass


def test_a_process_that_started_later_is_not_the_owner(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The emulator waits for a line with the number of a process that is younger than itself.
    late = tmp_path / "late.py"
    late.write_text(
        "import os, sys, subprocess, time\n"
        "time.sleep(0.05)\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        "at = sys.argv.index('--owner-pid')\n"
        "sys.argv[at + 1] = str(child.pid)\n"
        "from tests.emulator.serve import main\n"
        "code = main()\n"
        "child.kill()\n"
        "sys.exit(code)\n"
    )
    monkeypatch.setattr(launching, "_program", lambda: [sys.executable, str(late)])
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    with pytest.raises(LaunchError, match="is gone"):
        launch()


def test_what_a_killed_emulator_left_is_swept(serve: Serve, temporary: Path) -> None:
    with serve("--app", "left") as emulator:
        fly = Fly(emulator)
        App(fly, "left").create("sleep", "inf")
        os.kill(emulator.pid, signal.SIGKILL)
        fly.close()
    [left] = directories(temporary)
    just_made = temporary / f"{PREFIX}{os.getuid()}-justmade"
    just_made.mkdir()
    with serve() as first:
        eventually(lambda: not left.exists())
        with serve():
            assert len(directories(temporary)) == 3
            health = httpx.get(f"{first.control_url}/health", trust_env=False)
            assert health.status_code == 200
    assert directories(temporary) == {just_made}


def test_failure_to_start_has_the_log(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for option in ("--port", "--control-port", "--proxy-port"):
            with pytest.raises(LaunchError, match="cannot listen on"), serve(option, port):
                pass


def test_bad_arguments_are_in_the_error(serve: Serve) -> None:
    with (
        pytest.raises(LaunchError, match="kind 'nonsense' is none of"),
        serve("--fault", "nonsense"),
    ):
        pass


def test_start_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        launching, "_program", lambda: [sys.executable, "-c", "import time; time.sleep(60)"]
    )
    with pytest.raises(LaunchError, match=r"was not ready after 0\.2 s"):
        launch(timeout_s=0.2)


def test_real_tokens_stay_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FLY_API_TOKEN", "FLY_ACCESS_TOKEN", "FLY_TOKEN"):
        monkeypatch.setenv(name, "fo1_real")
    environment = launching._environment(None)
    assert environment["FLY_API_TOKEN"].startswith("emu-")
    assert "fo1_real" not in environment.values()


def test_ready_line_goes_to_stdout_without_a_descriptor() -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "FLY_API_TOKEN": "emu-env"}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.emulator.serve"], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        about = json.loads(process.stdout.readline())
        assert set(about) == {
            *("api_url", "proxy_url", "control_url", "token", "pid", "engine", "notes"),
        }
        assert about["token"] == "emu-env"
        process.terminate()
        assert process.wait() == 0


def test_options() -> None:
    options = parse(
        ["--rate-limits", "off", "--latency", "20", "--app", "a", "--app", "b", "--org", "acme"],
        {"FLY_API_TOKEN": " t "},
    )
    assert (options.rate_limits, options.latency_s) == (False, 0.02)
    assert (options.apps, options.org, options.token) == (("a", "b"), "acme", "t")
    assert parse([], {}).token.startswith("emu-")
    assert parse([], {}).token != parse([], {}).token
    assert parse([], {}).rate_limits


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "x"],
        ["--port", "70000"],
        ["--latency", "-1"],
        ["--engine", "magic"],
        ["--app", "Bad Name"],
        ["--region", "mars"],
        ["--fault", "x"],
    ],
)
def test_bad_options_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(arguments, {})
    assert arguments[0] in capsys.readouterr().err
