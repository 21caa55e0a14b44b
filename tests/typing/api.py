"""The public types of the handle, as a user's editor and mypy see them; never run, only checked."""

from __future__ import annotations

import io
import re
import subprocess
from pathlib import Path, PurePosixPath
from typing import assert_type

import httpx

from pytest_flymachines import (
    CommandFailed,
    CommandTimeout,
    ExecResult,
    FileInfo,
    Forward,
    MachinesClient,
    ProcessInput,
    RemoteProcess,
    Sandbox,
    SandboxFactory,
    SandboxFileNotFound,
    SandboxPath,
    SandboxSpec,
    Screen,
    Status,
    Terminal,
)
from pytest_flymachines.api import Machine, MachineEvent


def commands(sandbox: Sandbox) -> None:
    result = sandbox.exec(
        ["tar", b"\xff", PurePosixPath("a"), sandbox.path("b")],
        cwd=sandbox.path("sub"),
        env={"A": "b"},
        stdin=b"input",
        user=1000,
        timeout=None,
        check=False,
        on_output=lambda stream, text: print(stream.upper(), text.upper()),
        errors="replace",
    )
    assert_type(result, ExecResult)
    _plain: subprocess.CompletedProcess[str] = result
    assert_type(result.exit_code, int)
    assert_type(result.ok, bool)
    assert_type(result.duration, float)
    assert_type(result.stdout_bytes, bytes)
    assert_type(result.stdout_truncated, bool)


def processes(sandbox: Sandbox) -> None:
    with sandbox.popen("serve", timeout=60) as process:
        assert_type(process, RemoteProcess)
        assert_type(process.poll(), int | None)
        assert_type(process.returncode, int | None)
        assert_type(process.wait(timeout=1.5), int)
        assert_type(process.pid, int)
        assert_type(process.stdin, ProcessInput)
        assert_type(process.stdin.write("text"), int)
        assert_type(process.stdout, io.TextIOWrapper)
        assert_type(process.stdout.readline(), str)
        assert_type(process.wait_for_log(re.compile("up")), re.Match[str])
        process.wait_for_port(8000, timeout=3)
        process.send_signal(15)


def terminals(sandbox: Sandbox) -> None:
    with sandbox.terminal(["vi", "file"], rows=10, cols=40) as terminal:
        assert_type(terminal, Terminal)
        assert_type(terminal.expect("x"), re.Match[str])
        assert_type(terminal.screen, Screen)
        assert_type(terminal.screen.lines, tuple[str, ...])
        assert_type(terminal.screen.cursor, tuple[int, int])
        assert_type(terminal.exit_code, int | None)
        terminal.send_key("ctrl-c", "enter")
    assert_type(sandbox.cook_terminal(), Terminal)


def files(sandbox: Sandbox, local: Path) -> None:
    assert_type(sandbox.read_file("a", offset=1, size=2), bytes)
    assert_type(sandbox.read_text(b"a"), str)
    assert_type(sandbox.write_file("a", iter([b"piece"]), mode=0o600), int)
    assert_type(sandbox.list_files(), list[FileInfo])
    assert_type(sandbox.stat("a").mtime, float)
    assert_type(sandbox.exists("a"), bool)
    assert_type(sandbox.glob("**/*.py"), list[SandboxPath])
    path = sandbox.path("a") / "b"
    assert_type(path, SandboxPath)
    assert_type(path.parent, SandboxPath)
    assert_type(path.read_bytes(), bytes)
    assert_type([p.name for p in path.iterdir()], list[str])
    assert_type(path.rename("c"), SandboxPath)
    sandbox.upload(local, "tree", exclude=["*.pyc"], progress=lambda done, total: print(done))
    sandbox.download("tree", str(local))


def workspaces(sandbox: Sandbox) -> None:
    sandbox.checkpoint("before")
    assert_type(sandbox.checkpoints(), list[str])
    sandbox.restore("before")
    with sandbox.workspace("before") as copy:
        assert_type(copy, Sandbox)


def ports(sandbox: Sandbox) -> None:
    assert_type(sandbox.url(8000), str)
    with sandbox.forward(5432) as forward:
        assert_type(forward, Forward)
        assert_type((forward.host, forward.port), tuple[str, int])
    with sandbox.http(8000, timeout=5) as client:
        assert_type(client, httpx.Client)


def machine(sandbox: Sandbox, make: SandboxFactory, client: MachinesClient) -> None:
    assert_type(sandbox.status(), Status)
    assert_type(sandbox.events(), list[MachineEvent])
    assert_type(sandbox.logs(), str)
    assert_type(sandbox.start(), str)
    assert_type(sandbox.resume(), str)
    assert_type(sandbox.private_ip, str)
    assert_type(sandbox.region, str)
    assert_type(sandbox.agent_url, str | None)
    assert_type(make(fresh=True, memory_mb=512), Sandbox)
    assert_type(client.get_machine(sandbox.app, sandbox.machine_id), Machine)
    assert_type(SandboxSpec().replace(cpus=2), SandboxSpec)


def errors(sandbox: Sandbox) -> None:
    try:
        sandbox.exec("false")
    except CommandFailed as failed:
        assert_type(failed.returncode, int)
        as_usual: subprocess.CalledProcessError = failed
        raise as_usual from None
    except CommandTimeout as late:
        also: TimeoutError | subprocess.TimeoutExpired = late
        raise also from None
    except SandboxFileNotFound as missing:
        builtin: FileNotFoundError = missing
        raise builtin from None
