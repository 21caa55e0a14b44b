"""Machines that are stopped and started again by a test of the installed plugin."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_flymachines.api import MachinesClient
from pytest_flymachines.emulator.launch import launch

from .conftest import Run


@pytest.mark.parametrize("agent", ["auto", "off"])
@pytest.mark.parametrize("engine", ["bubblewrap", "process"])
def test_what_a_stop_loses_is_told_and_the_rest_is_there_again(
    pytester: pytest.Pytester, run: Run, repository: Path, engine: str, agent: str
) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("repo", [None, "project"])
        def test_it(fly_sandbox_factory, repo):
            machine = fly_sandbox_factory(
                fresh=True, auto_destroy=False, repo=repo, setup=("echo made > by-setup",)
            )
            machine.checkpoint("mine")
            assert machine.checkpoints() == ["mine"]
            machine.write_file("lost.txt", "x")
            machine.stop()
            assert "outside a volume" in machine.start()
            assert not machine.exists("lost.txt")
            assert machine.read_text("by-setup") == "made\\n"
            assert machine.exists("hello.txt") == (repo is not None)
            assert machine.checkpoints() == []
            machine.suspend()
            assert machine.resume() == ""
            assert machine.exec("pwd").stdout.strip() == machine.workdir
            machine.destroy()
        """
    )
    run(f"--fly-engine={engine}", f"--fly-agent={agent}").assert_outcomes(passed=2)


def test_a_workspace_on_a_volume_stays_and_gets_what_is_beside_it_again(
    pytester: pytest.Pytester, run: Run, repository: Path
) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.fly_sandbox(
            repo="project", volume_gb=1, volume_path="/workspace", auto_destroy=False
        )
        def test_it(fly_workspace, fly_sandbox_factory):
            machine = fly_sandbox_factory(
                repo="project", volume_gb=1, volume_path="/workspace", auto_destroy=False
            )
            machine.write_file("kept.txt", "x")
            machine.checkpoint("mine")
            machine.stop()
            lost = machine.start()
            assert "outside a volume" in lost and "checkpoints" in lost
            assert machine.read_text("kept.txt") == "x"
            assert machine.read_text("hello.txt") == "hello\\n"
            assert machine.checkpoints() == []
            machine.suspend()
            assert machine.resume() == ""

        @pytest.mark.fly_sandbox(
            repo="project", volume_gb=1, volume_path="/workspace", auto_destroy=False
        )
        def test_next(fly_workspace):
            assert fly_workspace.read_text("hello.txt") == "hello\\n"
        """
    )
    run().assert_outcomes(passed=2)


def test_a_machine_that_was_there_before_is_never_filled_anew(
    pytester: pytest.Pytester, run: Run, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(
        """
        def test_it(fly_sandbox):
            fly_sandbox.write_file("/data/kept.txt", "precious")
            fly_sandbox.stop()
            assert "outside a volume" in fly_sandbox.start()
            assert fly_sandbox.read_text("/data/kept.txt") == "precious"
            assert not fly_sandbox.exists("/data/hello.txt")
        """
    )
    with (
        launch(apps=["mine"]) as emulator,
        MachinesClient(emulator.token, base_url=emulator.api_url) as client,
    ):
        monkeypatch.setenv("FLY_API_TOKEN", emulator.token)
        monkeypatch.setenv("FLY_FLAPS_BASE_URL", emulator.api_url)
        monkeypatch.setenv("FLY_EMULATOR_PROXY_URL", emulator.proxy_url)
        volume = client.create_volume("mine", "data", region="ord", size_gb=1)
        config = {
            "image": "debian:12",
            "init": {"exec": ["/bin/sh", "-c", "ln -sfn /data /workspace; exec sleep 600"]},
            "mounts": [{"volume": volume.id, "path": "/data"}],
        }
        machine = client.create_machine("mine", config, region="ord")
        client.wait("mine", machine.id, "started")
        named = ["--fly-app=mine", f"--fly-machine={machine.id}", f"--fly-repo={repository}"]
        run(*named, mode="live").assert_outcomes(passed=1)
