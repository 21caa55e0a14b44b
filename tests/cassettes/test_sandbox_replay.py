"""Everything that the handle does, recorded on a real machine, replays without one."""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pytest_flymachines.agent.bundle import build
from tests.cassettes.project import NO_NETWORK, Runs

SUITE = """
import os
import random
import threading

import pytest
from pytest_flymachines import (
    CommandFailed, CommandTimeout, ExpectTimeout, NotFound, SandboxFileNotFound, SandboxIsADirectory
)


@pytest.fixture(scope="session")
def built(fly_sandbox):
    fly_sandbox.exec("mkdir -p out && echo built > out/result")
    yield "out/result"
    fly_sandbox.exec("rm -r out")


@pytest.fixture(scope="session")
def server(fly_sandbox):
    with fly_sandbox.popen("echo ready; while read line; do echo got $line; done") as process:
        process.wait_for_log("ready", timeout=30)
        yield process


@pytest.fixture(scope="module")
def shell(fly_sandbox):
    with fly_sandbox.terminal() as terminal:
        yield terminal


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_process_of_the_session(server, n):
    assert server.poll() is None
    server.stdin.write(b"%d\\n" % n)
    server.wait_for_log(f"got {n}", timeout=30)
    assert server.poll() is None


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_terminal_of_the_module(shell, n):
    shell.send_line(f"echo $(({n} + 40))")
    shell.expect(str(n + 40), timeout=30)


def test_exec(fly_sandbox, built):
    done = fly_sandbox.exec(["sh", "-c", "cat; echo err >&2; exit 3"], stdin="in", check=False)
    assert (done.stdout, done.stderr, done.exit_code) == ("in", "err\\n", 3)
    assert fly_sandbox.read_text(built) == "built\\n"


def test_streaming(fly_sandbox):
    pieces = []
    fly_sandbox.exec(
        "for i in 1 2 3; do echo $i; sleep 0.3; done", on_output=lambda *a: pieces.append(a)
    )
    assert len(pieces) >= 2


def test_failure(fly_sandbox):
    with pytest.raises(CommandFailed):
        fly_sandbox.exec("exit 1")
    with pytest.raises(CommandTimeout):
        fly_sandbox.exec("sleep 30", timeout=0.4)


def test_large_output(fly_sandbox):
    out = fly_sandbox.exec("seq 1 100000").stdout
    assert out.endswith("\\n100000\\n")
    assert len(fly_sandbox.exec("head -c 400000 /dev/urandom | base64").stdout) > 500000


def test_files(fly_sandbox, tmp_path):
    data = bytes(range(256)) * 4000
    fly_sandbox.write_file("deep/er/file.bin", data)
    assert fly_sandbox.read_file("deep/er/file.bin") == data
    assert fly_sandbox.stat("deep/er/file.bin").size == len(data)
    assert [f.name for f in fly_sandbox.list_files("deep")] == ["er"]
    with pytest.raises(SandboxFileNotFound):
        fly_sandbox.read_file("nothing")
    with pytest.raises(SandboxIsADirectory):
        fly_sandbox.read_file("deep")
    path = fly_sandbox.path("deep") / "sp ace\\n\\u00fc"
    path.write_text("x")
    assert path.exists()
    assert {p.name for p in fly_sandbox.glob("deep/*")} == {"er", path.name}
    path.unlink()


def test_trees(fly_sandbox, tmp_path):
    here = tmp_path / "tree"
    (here / "sub").mkdir(parents=True)
    (here / "a.txt").write_text("a")
    (here / "sub" / "b.sh").write_text("#!/bin/sh\\n")
    (here / "sub" / "b.sh").chmod(0o755)
    fly_sandbox.upload(here, "tree")
    assert fly_sandbox.exec("find tree -type f | sort").stdout == "tree/a.txt\\ntree/sub/b.sh\\n"
    fly_sandbox.download("tree", tmp_path / "back")
    assert (tmp_path / "back" / "sub" / "b.sh").stat().st_mode & 0o100


def test_upload_of_a_file(fly_sandbox, tmp_path):
    (tmp_path / "a").write_text("a")  # its time is another one in each run
    fly_sandbox.upload(tmp_path / "a", "up/a")
    assert fly_sandbox.read_text("up/a") == "a"


def test_what_no_single_request_holds(fly_sandbox, tmp_path):
    chance = random.Random(1)
    here = tmp_path / "tree"
    for n in range(8):
        path = here / f"d{n % 3}" / f"f{n}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(5000))
    fly_sandbox.upload(here, "big")
    fly_sandbox.download("big", tmp_path / "back")
    assert (tmp_path / "back" / "d1" / "f1").read_bytes() == (here / "d1" / "f1").read_bytes()
    data = chance.randbytes(50_000)
    fly_sandbox.write_file("big.bin", data)
    assert fly_sandbox.read_file("big.bin") == data
    command = fly_sandbox.exec(f"echo {'x' * 30000} | wc -c; cat | wc -c", stdin="y" * 20000)
    assert command.stdout.split() == ["30001", "20000"]


def test_process(fly_sandbox):
    with fly_sandbox.popen("echo starting; sleep 0.3; echo ready; exec sleep 60") as process:
        process.wait_for_log("ready", timeout=30)
        assert process.poll() is None
        with pytest.raises(ExpectTimeout):
            process.wait_for_log("never", timeout=0.7)
        process.terminate()
        assert process.wait(timeout=30) == 128 + 15 or process.returncode == -15


def test_stdin(fly_sandbox):
    with fly_sandbox.popen("read line; echo got $line") as process:
        process.stdin.write(b"hello\\n")
        process.stdin.flush()
        process.wait_for_log("got hello", timeout=30)


def test_port(fly_sandbox):
    with fly_sandbox.popen("exec python3 -m http.server 8123") as server:
        server.wait_for_port(8123, timeout=30)
        assert fly_sandbox.http(8123).get("/").status_code == 200


def test_terminal(fly_sandbox):
    with fly_sandbox.terminal() as terminal:
        terminal.send_line("echo $((6*7))")
        terminal.expect("42", timeout=30)
        terminal.resize(30, 100)
        terminal.send_line("exit")
        terminal.wait(timeout=30)


def test_terminal_of_a_foreign_agent(fly_sandbox_factory):
    sandbox = fly_sandbox_factory(agent="./cook-agent")
    with sandbox.cook_terminal() as terminal:
        terminal.send_line("echo $((6*7))")
        terminal.expect("42", timeout=30)
        terminal.send_line("exit 3")
        assert terminal.wait(timeout=30) == 3


@pytest.mark.parametrize("n", [1, 2])
def test_workspace(fly_workspace, n):
    assert not fly_workspace.exists("mine")
    fly_workspace.write_file("mine", str(n))
    assert fly_workspace.exec("cat mine").stdout == str(n)


def test_checkpoint(fly_workspace):
    fly_workspace.write_file("a", "1")
    fly_workspace.checkpoint("one")
    fly_workspace.write_file("a", "2")
    fly_workspace.restore("one")
    assert fly_workspace.read_text("a") == "1"
    with fly_workspace.workspace("one") as copy:
        copy.write_file("b", "1")
        assert sorted(f.name for f in copy.list_files(".")) == ["a", "b"]
    assert "one" in fly_workspace.checkpoints()
    fly_workspace.delete_checkpoint("one")


def test_threads(fly_sandbox):
    out = {}

    def run(n):
        out[n] = fly_sandbox.exec(["echo", str(n)]).stdout

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert out == {n: f"{n}\\n" for n in range(4)}


def test_machine(fly_sandbox, fly_client):
    assert fly_sandbox.status().state == "running"
    machine = fly_client.get_machine(fly_sandbox.app, fly_sandbox.machine_id)
    assert machine.id == fly_sandbox.machine_id
    with pytest.raises(NotFound):
        fly_client.get_machine(fly_sandbox.app, "00000000000000")


def test_fresh(fly_sandbox_factory, fly_sandbox):
    fresh = fly_sandbox_factory(fresh=True, auto_destroy=False)
    assert fresh.machine_id != fly_sandbox.machine_id
    fresh.write_file("/root/kept", "x")
    fresh.stop()
    fresh.start()
    assert fresh.exec("echo back").stdout == "back\\n"
    fresh.suspend()
    assert fresh.status().message == "suspended"
    fresh.resume()
    assert not fresh.exists("/root/kept")
    fresh.destroy()


def test_another_spec(fly_sandbox_factory, fly_sandbox):
    other = fly_sandbox_factory(memory_mb=512)
    assert other.exec("echo other").stdout == "other\\n"
    assert other.machine_id != fly_sandbox.machine_id
"""
COUNT = 26
#: What every replay imports; a run that is forked has it already.
OFFLINE = (
    *("pytest_flymachines.run", "pytest_flymachines.session"),
    "pytest_flymachines.cassettes.pytest_glue",
)
# what only a machine needs, and what it costs to import, is left alone
CONFTEST = """
import sys

LIVE = {"filelock", "h11", "httpcore", "wsproto", "pytest_flymachines._http.pool"}


def pytest_sessionfinish(session):
    assert session.config.getoption("fly_record") or not LIVE & set(sys.modules)
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    for name in list(os.environ):
        if name.startswith(("FLY_", "PYTEST_", "COOK_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini("[pytest]\nfilterwarnings = error\naddopts = -p no:cacheprovider -ra\n")
    pytester.makeconftest(CONFTEST)
    (pytester.path / "test_all.py").write_text(SUITE)
    agent = pytester.path / "cook-agent"
    agent.write_bytes(b"#!/usr/bin/env -S python3 -I\n" + build())
    agent.chmod(0o755)
    return pytester


def plugins(*args: str) -> list[str]:
    return ["-pflymachines", *(["-pxdist"] if "-n" in args else [])]


def record(project: pytest.Pytester, *args: str) -> pytest.RunResult:
    local = ["--fly-mode=local", "--fly-record=all"]
    return project.run(sys.executable, "-m", "pytest", *plugins(*args), *local, *args)


@pytest.fixture
def replay(tmp_path: Path) -> Iterator[Callable[..., pytest.RunResult]]:
    """`replay(*args)`: a run without any network, forked; its workers are new interpreters."""
    strict = ["--fly-missing-cassette=fail", "--fly-unused=fail"]
    with ExitStack() as stack:
        runs = Runs(stack, OFFLINE)
        yield lambda *args: runs.end(
            NO_NETWORK, [*plugins(*args), *strict, *args], tmp_path / "output"
        )


@pytest.mark.parametrize("agent", ["auto", "off"])
def test_all_that_the_handle_does_replays_alone_and_in_any_order(
    project: pytest.Pytester,
    agent: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    replay: Callable[..., pytest.RunResult],
) -> None:
    """Recorded by two workers, replayed at another path; with the agent and without."""
    ask = f"--fly-agent={agent}"
    recorded = record(project, ask, "-n", "2")
    recorded.assert_outcomes(passed=COUNT)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(project.path, elsewhere, ignore=shutil.ignore_patterns(".cache"))
    (elsewhere / "cook-agent").unlink()
    monkeypatch.chdir(elsewhere)
    # an ordinary user is called root in a namespace, and may find root's own directory in /tmp
    monkeypatch.setenv("PYTEST_DEBUG_TEMPROOT", str(tmp_path))
    collected = replay(ask, "--collect-only", "-q").outlines
    ids = [line for line in collected if "::" in line]
    assert len(ids) == COUNT
    chance = random.Random(agent)
    for order in (ids[::-1], chance.sample(ids, COUNT)):
        replay(ask, *order).assert_outcomes(passed=COUNT)
    replay(ask, "-n", "2", "--dist", "worksteal").assert_outcomes(passed=COUNT)
    for nodeid in chance.sample(ids, 5):
        replay(ask, nodeid).assert_outcomes(passed=1)
