"""A project whose tests talk to a machine, run by pytest inside pytest."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cassettes.machine import Server

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


class Project:
    """Attributes:
    path: Its directory.
    """

    def __init__(self, pytester: pytest.Pytester, server: Server, shared: Path) -> None:
        self.path = pytester.path
        self._pytester = pytester
        self._server = server
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
        """Run in a network namespace that has no interface, not even a loopback that is up."""
        return self._run(["unshare", "-rn"], args, {"FLY_TEST_MODE": "replay", **env})

    def _recording(self, mode: str, env: dict[str, str]) -> dict[str, str]:
        return {"FLY_TEST_MODE": mode, "FLY_TEST_URL": self._server.url, **env}

    def _run(
        self, prefix: Sequence[str], args: Sequence[str], env: dict[str, str]
    ) -> pytest.RunResult:
        with self._environment(env):
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
    def _command(args: Sequence[str]) -> list[str]:
        plugins = [name for option, name in PLUGINS.items() if option in " ".join(args)]
        chosen = [word for name in plugins for word in ("-p", name)]
        return [sys.executable, "-m", "pytest", *chosen, *args]

    def cassettes(self) -> set[str]:
        """Files below the directory of the cassettes."""
        root = self.path / "cassettes"
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}

    def cassette(self, name: str) -> Path:
        """One of them."""
        return self.path / "cassettes" / name
