"""A project whose tests talk to a machine, run by pytest inside pytest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import pytest

from tests.cassettes.machine import Server
from tests.e2e.forks import forks

CONFTEST = """
import os
from functools import partial
from pathlib import Path

import pytest

from pytest_flymachines._http import Http, PoolTransport
from pytest_flymachines.cassettes import Recorder
from pytest_flymachines.cassettes.pytest_glue import CassettePlugin, record_command
from pytest_flymachines.spec import SandboxSpec

RECORDER = pytest.StashKey()


def pytest_configure(config):
    if getattr(config.option, "dist", "no") != "no" and not hasattr(config, "workerinput"):
        return
    mode = os.environ["FLY_TEST_MODE"]
    uid = getattr(config, "workerinput", {}).get("testrunuid", os.urandom(4).hex())
    recorder = config.stash[RECORDER] = Recorder(
        config.rootpath / "cassettes",
        mode=mode,
        source="local",
        run_id=uid,
        rootdir=config.rootpath,
        shared=Path(os.environ["FLY_TEST_SHARED"]) / uid,
        command=partial(record_command, config),
    )
    plugin = CassettePlugin(
        recorder,
        missing=os.environ.get("FLY_TEST_MISSING", "fail"),
        unused=os.environ.get("FLY_TEST_UNUSED", "fail"),
    )
    config.pluginmanager.register(plugin, "cassettes")


class Box:
    def __init__(self, recorder):
        self.recorder = recorder
        self.pool = None if recorder.mode == "replay" else PoolTransport()
        url = os.environ.get("FLY_TEST_URL", "http://replay.invalid")
        self.http = Http(recorder.transport(self.pool), url, {"authorization": "Bearer abcd1234"})
        self.machine = None

    def provision(self, **fields):
        spec = SandboxSpec(**fields)
        with self.recorder.provisioning(spec):
            body = {"name": os.urandom(4).hex(), "config": {"image": spec.image}}
            answer = self.http.request("POST", "/v1/apps/app/machines", json=body)
            self.machine = answer.json()["id"]
        return self

    def exec(self, command, **body):
        path = f"/v1/apps/app/machines/{self.machine}/exec"
        body = {"command": ["sh", "-c", command], **body}
        return self.http.request("POST", path, json=body).json()["stdout"]


@pytest.fixture(scope="session")
def box(pytestconfig):
    box = Box(pytestconfig.stash[RECORDER]).provision(image="debian:12")
    yield box
    if box.pool:
        box.pool.close()
"""


PLUGINS = {
    "-n ": "xdist.plugin",
    "--tx": "xdist.plugin",
    "--reruns": "pytest_rerunfailures",
    "--randomly": "pytest_randomly",
}


#: A network that has no interface, not even a loopback that is up.
NO_NETWORK = ("unshare", "-rn")
#: What runs import, none of it a plugin of pytest.
MODULES = (
    *("pytest_flymachines._http", "pytest_flymachines.cassettes.pytest_glue", "httpx", "vcr"),
    *("pytest_flymachines.cli", "pytest_flymachines.cassettes.cli"),
)


class Runs:
    """Processes to fork runs from, one with a network and one without, once they are asked for."""

    def __init__(self, stack: ExitStack, modules: Sequence[str] = MODULES) -> None:
        self._enter = cache(lambda prefix: stack.enter_context(forks(modules, prefix)))

    def end(self, prefix: tuple[str, ...], args: Sequence[str], output: Path) -> pytest.RunResult:
        """Run to the end, in this directory and environment."""
        began = time.monotonic()
        ended = self._enter(prefix).end(args, Path.cwd(), os.environ, output)
        took_s = time.monotonic() - began
        print(ended.output)
        return pytest.RunResult(ended.code, ended.output.splitlines(), [], took_s)

    def script(
        self, args: Sequence[str], directory: Path, env: Mapping[str, str], output: Path
    ) -> subprocess.CompletedProcess[str]:
        """The console script, in this directory and environment."""
        return self._enter(()).completed(args, directory, env, output, "pytest-flymachines")


class Project:
    """Attributes:
    path: Its directory.
    """

    def __init__(self, pytester: pytest.Pytester, server: Server, shared: Path, runs: Runs) -> None:
        self._runs = runs
        self.path = pytester.path
        self._pytester = pytester
        self._server = server
        self._shared = shared
        self._env = {"FLY_TEST_SHARED": str(shared)}
        pytester.makeconftest(CONFTEST)
        pytester.makeini(
            "[pytest]\naddopts = -p no:cacheprovider\nfilterwarnings = error\n"
            "markers =\n  xdist_group: of pytest-xdist\n  block_network: of pytest-recording\n"
        )

    def record(
        self, *args: str, mode: str = "all", prefix: Sequence[str] = (), **env: str
    ) -> pytest.RunResult:
        """Run against the server."""
        return self._run(prefix, args, self._recording(mode, env))

    def record_once(self, kept: Path, *args: str, passed: int) -> None:
        """Have the cassettes of a recording: made by the first who asks, copied to all others.

        Args:
            kept: Where the others find them.
            args: pytest's.
            passed: How many tests the recording has.
        """
        if not kept.exists():
            self.record(*args).assert_outcomes(passed=passed)
            shutil.copytree(self.path / "cassettes", kept)
        else:
            shutil.copytree(kept, self.path / "cassettes")

    def start_recording(self, *args: str, **env: str) -> subprocess.Popen[bytes]:
        """Start a run against the server."""
        with self._environment(self._recording("all", env)):
            return subprocess.Popen(self._command(args), cwd=self.path, stdout=subprocess.DEVNULL)

    def replay(self, *args: str, **env: str) -> pytest.RunResult:
        """Run without any network."""
        return self._run(NO_NETWORK, args, {"FLY_TEST_MODE": "replay", **env})

    def _recording(self, mode: str, env: dict[str, str]) -> dict[str, str]:
        return {"FLY_TEST_MODE": mode, "FLY_TEST_URL": self._server.url, **env}

    def _run(
        self, prefix: Sequence[str], args: Sequence[str], env: dict[str, str]
    ) -> pytest.RunResult:
        with self._environment(env):
            if tuple(prefix) in ((), NO_NETWORK) and "-p" not in args:
                output = self._shared.parent / "output"
                return self._runs.end(tuple(prefix), self._arguments(args), output)
            # what else changes a process, or patches modules, gets a fresh one
            return self._pytester.run(*prefix, *self._command(args))

    @contextmanager
    def _environment(self, env: dict[str, str]) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            # plugins that a run does not need cost a second each time
            patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
            patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
            for name, value in {**self._env, **env}.items():
                patch.setenv(name, value)
            for name in ("FLY_API_TOKEN", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER"):
                patch.delenv(name, raising=False)
            yield

    @staticmethod
    def _arguments(args: Sequence[str]) -> list[str]:
        plugins = [name for option, name in PLUGINS.items() if option in " ".join(args)]
        return [*(word for name in plugins for word in ("-p", name)), *args]

    def _command(self, args: Sequence[str]) -> list[str]:
        return [sys.executable, "-m", "pytest", *self._arguments(args)]

    def script(self, *args: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """`pytest-flymachines` in the project's directory.

        Args:
            args: Its arguments.
            env: Its whole environment.
        """
        return self._runs.script(args, self.path, env, self._shared.parent / "output")

    def cassettes(self) -> set[str]:
        """Files below the directory of the cassettes."""
        root = self.path / "cassettes"
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}

    def cassette(self, name: str) -> Path:
        """One of them."""
        return self.path / "cassettes" / name
