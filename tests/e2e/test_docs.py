"""Every block of code in `docs/` is run as it stands there, or it is said here why not.

Those of `handle.md` and `client.md`, and the fenced ones of `emulator.md`, are run where the
handle, the client and the emulator are tested.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from pytest_flymachines import cli
from pytest_flymachines.agent.channel import AgentChannel
from pytest_flymachines.api import MachinesClient
from pytest_flymachines.emulator import options as emulator_options
from pytest_flymachines.emulator.faults import parse_fault
from pytest_flymachines.emulator.launch import EmulatorProcess
from pytest_flymachines.options import OPTIONS
from tests.agent.running import open_channel, running_agent

from .cloud import DIES_WITH_US, until
from .conftest import Run
from .forks import Forks
from .pages import ROOT, block, blocks

#: By another test, which looks for the blocks of its page itself.
ELSEWHERE = {
    "handle.md: ": "tests/sandbox/test_docs.py",
    "client.md: ": "tests/api/test_docs.py",
    "emulator.md: from pytest_flymachines.emulator.launch import launch": (
        "tests/emulator/test_docs.py"
    ),
    'emulator.md: api="$FLY_API_HOSTNAME/v1/apps/demo"': "tests/emulator/test_docs.py",
}
#: By a test of this file.
HERE = (
    "agent.md: python3 agent.pyz",
    'agent.md: {"id": "p7-1f0e"',
    "agent.md: with channel.forward(5432)",
    "cassettes.md: pytest --fly-record=all",
    "cassettes.md: [pytest]",
    "cassettes.md: @pytest.fixture",
    "cassettes.md: tests/test_a.py::test_x now asks",
    "cassettes.md: pytest-flymachines cassettes list",
    "cassettes.md: - repo: local",
    "emulator.md: pytest-flymachines emulator --app demo",
    "emulator.md: curl -H 'Host: demo.fly.dev'",
    'emulator.md: curl -H "$auth" -G',
    "emulator.md: --fault 'lost",
    "lifetime.md: pytest-flymachines list",
)
#: Only its options are looked at, or nothing; and why.
NOT_RUN = {
    "emulator.md: export FLY_FLAPS_BASE_URL": (
        "flyctl comes from no package registry; its requests are in tests/emulator/test_flyctl.py"
    ),
    "emulator.md: os.Setenv": "Go, of Fly's own library",
    "engines.md: emulator": "a picture of processes",
    "probe.md: $ export FLY_API_TOKEN=...": "a token of Fly",
    "probe.md: $ pytest-flymachines emulator --port 8080": (
        "ports that may be taken here; tests/probe compares the emulator with the probe"
    ),
}

LOCAL = "--fly-mode=local", "--fly-engine=bubblewrap"
#: A machine of which the pages' visitors get something.
SERVER = """
from http.server import BaseHTTPRequestHandler, HTTPServer
import os
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"served 1\\n")
HTTPServer((os.environ["PYTEST_FLYMACHINES_BIND"], 8080), Handler).serve_forever()
"""
MEASURED: dict[str, Any] = {
    "image": "debian:stable-slim",
    "init": {"exec": ["python3", "-c", SERVER]},
    "metrics": {"port": 8080, "path": "/metrics"},
    "services": [
        {"protocol": "tcp", "internal_port": 8080, "ports": [{"port": 80, "handlers": ["http"]}]}
    ],
}


def test_every_block_is_run_or_it_is_said_why_not() -> None:
    told = [*ELSEWHERE, *HERE, *NOT_RUN]
    names = [block.name for block in blocks()]
    assert len(names) > 40
    assert [name for name in names if sum(map(name.startswith, told)) != 1] == []
    assert [begins for begins in told if not any(n.startswith(begins) for n in names)] == []
    assert all((ROOT / path).exists() for path in ELSEWHERE.values())


def test_every_option_and_variable_that_a_page_names_is_there() -> None:
    """Also in prose and in tables."""
    known = {f"--fly-{option.name.replace('_', '-')}" for option in OPTIONS}
    keys = {f"fly_{option.name}" for option in OPTIONS} | {"fly_scrub"}
    fixtures = set(re.findall(r"^def (fly_\w+)\(", _sources(), re.MULTILINE))
    for page in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]:
        text = page.read_text()
        assert set(re.findall(r"--fly(?:-[a-z]+)+", text)) <= known, page.name
        # what ends in a dash or a star stands for all that begin so
        assert set(re.findall(r"\bfly_[a-z_]+\b(?![*.])", text)) <= keys | fixtures, page.name
        for name in set(re.findall(r"\b(?:PYTEST_FLYMACHINES|COOK)_[A-Z_]+\b", text)):
            assert name in _sources(), (page.name, name)


def _sources() -> str:
    files = (ROOT / "pytest_flymachines").rglob("*.py")
    return "\n".join(path.read_text() for path in files)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, id=f"{found.page}-{number}")
        for found in blocks()
        if not found.name.startswith("handle.md")
        if "pytest-flymachines " in found.text and not found.language.startswith("py")
        for number, words in enumerate(found.commands())
        if "pytest-flymachines" in words
    ],
)
def test_the_script_takes_the_options_of_every_command(words: list[str]) -> None:
    name, *args = words[words.index("pytest-flymachines") + 1 :]
    if name == "emulator":
        emulator_options.parse(args, {})
        return
    context = click.Context(cli.main)
    command = cli.main.get_command(context, name)
    while isinstance(command, click.Group):
        command = command.get_command(context, args.pop(0))
    assert command is not None, name
    command.make_context(name, args, resilient_parsing=False)


@pytest.fixture(scope="module")
def demo() -> Iterator[EmulatorProcess]:
    """What the page about the emulator starts, with its own command."""
    [[program, *args]] = block("emulator.md: pytest-flymachines emulator").commands()
    command = [*DIES_WITH_US, str(Path(sys.executable).parent / program), *args]
    with subprocess.Popen([*command, "--engine=process"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        about = json.loads(process.stdout.readline())
        yield EmulatorProcess(
            **{name: about[name] for name in ("api_url", "proxy_url", "control_url", "token")},
            **{name: about[name] for name in ("pid", "engine", "notes")},
            _process=process,
        )
        process.terminate()


def shell(script: str, emulator: EmulatorProcess) -> str:
    """What a person's shell prints who has exported what the page says before."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FLY_API_HOSTNAME": emulator.api_url,
        "FLY_API_TOKEN": emulator.token,
        "PROXY": emulator.proxy_url,
        "auth": f"Authorization: Bearer {emulator.token}",
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_emulator_is_visited_and_measured(demo: EmulatorProcess) -> None:
    visit, scrape = block("emulator.md: curl -H 'Host"), block('emulator.md: curl -H "$auth" -G')
    with MachinesClient(demo.token, base_url=demo.api_url) as client:
        machine = client.create_machine("demo", MEASURED)
        client.wait("demo", machine.id, "started", timeout_s=60)
        until(lambda: shell(visit.text, demo) == "served 1\n")
        until(lambda: 'served{app="demo"' in shell(scrape.text, demo))


def test_what_runs_left_is_listed_and_reaped(
    demo: EmulatorProcess, runs: Forks, tmp_path: Path
) -> None:
    """One machine, past its deadline: too young for the third command, and of the fourth's run."""
    commands = block("lifetime.md: pytest-flymachines list").commands()
    [run] = [words[words.index("--run") + 1] for words in commands if "--run" in words]
    config = {
        "image": "debian:12",
        "metadata": {
            "pytest_flymachines_run": run,
            "pytest_flymachines_owner": "o",
            "pytest_flymachines_deadline": "1",
            "pytest_flymachines_ttl": "60",
        },
    }
    environment = {"FLY_API_TOKEN": demo.token, "FLY_FLAPS_BASE_URL": demo.api_url}
    said = []
    with MachinesClient(demo.token, base_url=demo.api_url) as client:
        client.create_app("my-app", "personal")
        machine = client.create_machine("my-app", config, name="left")
        for program, *args in commands:
            done = runs.completed(
                args, tmp_path, {**os.environ, **environment}, tmp_path / "said", program
            )
            said.append((done.returncode, machine.id in done.stdout, done.stdout.splitlines()[-1]))
    assert said[0][:2] == (0, True)
    assert said[1:] == [
        (0, True, "dry run: nothing was destroyed"),
        (0, False, "nothing to destroy"),
        (0, True, "destroyed 1, left 0"),
    ]


def test_a_fault_is_one_that_the_emulator_knows() -> None:
    [[option, spec]] = block("emulator.md: --fault").commands()
    assert option == "--fault"
    assert parse_fault(spec).kind == "lost"


def test_the_agent_is_started_and_answers(tmp_path: Path) -> None:
    [[python, archive, *args]] = block("agent.md: python3 agent.pyz").commands()
    assert (python, archive) == ("python3", "agent.pyz")
    given = dict(zip(args[::2], args[1::2], strict=True))
    assert given.keys() == {"-listen", "--token-sha256-file", "--base", "--state"}
    told = json.loads(block('agent.md: {"id"').text)
    with running_agent(tmp_path, python=python) as agent, open_channel(agent) as channel:
        with agent.http() as http:
            answer = http.post("/exec", json={"command": ["echo", "hi"], "cwd": "/", "wait_s": 30})
        assert {name: type(value) for name, value in answer.json().items()} == {
            name: type(value) for name, value in told.items()
        }
        assert answer.json()["stdout"] == told["stdout"]
        with socket.create_server(("127.0.0.1", 0)) as server:
            _forwarded(channel, server)


def _forwarded(channel: AgentChannel, server: socket.socket) -> None:
    code = block("agent.md: with channel.forward").text
    assert "forward(5432)" in code
    reached = []

    def connect(host: str, port: int) -> None:
        with socket.create_connection((host, port)) as connection:
            connection.sendall(b"x")
            accepted, _ = server.accept()
            with accepted:
                reached.append(accepted.recv(1))

    port = str(server.getsockname()[1])
    exec(code.replace("5432", port), {"channel": channel, "connect": connect})
    assert reached == [b"x"]


@pytest.mark.skipif(shutil.which("make") is None, reason="the example calls make")
def test_a_recording_from_its_first_command_to_its_last(
    run: Run, runs: Forks, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recorded, replayed, missed, looked after, with the secrets that the page hides."""
    pytest_commands = block("cassettes.md: pytest --fly-record").commands()
    (repository / "pytest.ini").write_text(
        block("cassettes.md: [pytest]").text + "fly_image = debian:12\n"
    )
    (repository / "conftest.py").write_text(
        "import pytest\ndef read_license_key(): return 'the-key-itself'\n\n"
        + block("cassettes.md: @pytest.fixture").text
    )
    (repository / "tests").mkdir()
    test = repository / "tests" / "test_a.py"
    test.write_text(
        "def test_x(fly_sandbox):\n"
        "    fly_sandbox.exec('echo a value itself, the-key-itself, sesame-open')\n"
        "    fly_sandbox.exec('make install', check=False)\n"
    )
    monkeypatch.setenv("LICENSE_KEY", "sesame-open")
    monkeypatch.chdir(repository)
    modes = [LOCAL, LOCAL, ()]
    for (program, *args), more in zip(pytest_commands, modes, strict=True):
        assert program == "pytest"
        run(*args, *more, mode="").assert_outcomes(passed=1)
    written = b"".join(path.read_bytes() for path in (repository / "cassettes").rglob("*.yaml"))
    for secret in (b"a value itself", b"the-key-itself", b"sesame-open"):
        assert secret not in written
    test.write_text(test.read_text().replace("make install", "make install-all"))
    missed = run("--fly-missing-cassette=fail", mode="")
    missed.assert_outcomes(failed=1)
    told = re.sub(r"-[0-9a-f]{8} id", "-* id", block("cassettes.md: tests/test_a.py").text)
    folded = " ".join(re.sub(r"(?m)^E ", "", missed.stdout.str()).split())
    wanted = re.escape(" ".join(told.split())).replace(r"\-\*", "-[0-9a-f]{8}")
    assert re.search(wanted, folded), (wanted, folded)
    test.write_text(test.read_text().replace("make install-all", "make install"))
    _looked_after(repository, runs)


def _looked_after(project: Path, runs: Forks) -> None:
    """What `cassettes` commands say of a directory in which all is well."""

    def call(*words: str) -> str:
        environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        environment["PYTEST_ADDOPTS"] = "-pflymachines"
        done = runs.completed(words[1:], project, environment, project / "said", words[0])
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout + done.stderr

    for words in block("cassettes.md: pytest-flymachines cassettes list").commands():
        call(*words, *(LOCAL if "verify" in words else ()))
    [repository] = yaml.safe_load(block("cassettes.md: - repo: local").text)
    [hook] = repository["hooks"]
    names = [str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()]
    chosen = [name for name in names if re.search(hook["files"], name)]
    assert "cassettes/tests/test_a.py/test_x.yaml" in chosen
    call(*shlex.split(hook["entry"]), *chosen)
