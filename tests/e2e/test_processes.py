"""What a test leaves running ends with it, and is shown when it failed."""

from __future__ import annotations

import pytest

from pytest_flymachines.api import MachinesClient
from pytest_flymachines.emulator.launch import launch

from .conftest import Run


def test_processes_end_with_their_test_or_their_fixture(
    pytester: pytest.Pytester, run: Run
) -> None:
    pytester.makepyfile(
        """
        import pytest

        left = []

        @pytest.fixture(scope="module")
        def server(fly_sandbox):
            return fly_sandbox.popen("echo serving; exec sleep 1000")

        def test_fails(fly_sandbox, server):
            left.append(fly_sandbox.popen("echo working; exec sleep 999"))
            left.append(fly_sandbox.terminal("echo drawing; exec sleep 998"))
            left[0].wait_for_log("working")
            left[1].expect("drawing")
            assert server.poll() is None
            assert 0

        def test_the_next_one_finds_only_the_fixtures(fly_sandbox, server):
            assert server.poll() is None
            running = fly_sandbox.exec("ps ax").stdout
            assert "sleep 1000" in running
            assert "sleep 999" not in running
            assert "sleep 998" not in running
        """
    )
    result = run()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*fly sandbox process*", "*working*", "*drawing*"])
    result.stdout.no_fnmatch_line("serving")


def test_every_test_has_its_own_workspace(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("n", range(3))
        def test_it(fly_workspace, fly_sandbox, n):
            assert fly_workspace.machine_id == fly_sandbox.machine_id
            assert fly_workspace.workdir != fly_sandbox.workdir
            assert [f.name for f in fly_workspace.list_files(".")] == []
            fly_workspace.write_file("mine", str(n))
            assert fly_workspace.exec("cat mine").stdout == str(n)
            assert not fly_sandbox.exists("mine")

        @pytest.mark.fly_sandbox(memory_mb=512)
        def test_of_another_spec(fly_workspace, fly_sandbox):
            assert fly_workspace.machine_id != fly_sandbox.machine_id
            assert fly_workspace.exec("echo $FLY_VM_MEMORY_MB").stdout == "512\\n"
        """
    )
    run().assert_outcomes(passed=4)


@pytest.mark.parametrize("keep", ["never", "failed"])
def test_the_workspace_of_a_test_that_failed_is_kept_when_asked(
    pytester: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch, keep: str
) -> None:
    pytester.makepyfile(
        """
        def test_passes(fly_workspace):
            fly_workspace.write_file("of-the-good", "")

        def test_fails(fly_workspace):
            fly_workspace.write_file("of-the-bad", "")
            assert 0

        def test_afterwards(fly_workspace, fly_sandbox):
            # what was dropped is removed in the background
            find = "find /opt/pytest-flymachines -name spares -prune -o -name 'of-the-*' -print"
            left = fly_sandbox.exec(find)
            print("left:", left.stdout.split())
            assert 0
        """
    )
    with (
        launch(apps=["mine"]) as emulator,
        MachinesClient(emulator.token, base_url=emulator.api_url) as client,
    ):
        monkeypatch.setenv("FLY_API_TOKEN", emulator.token)
        monkeypatch.setenv("FLY_FLAPS_BASE_URL", emulator.api_url)
        monkeypatch.setenv("FLY_EMULATOR_PROXY_URL", emulator.proxy_url)
        result = run("--fly-app=mine", f"--fly-keep={keep}", mode="live")
        result.assert_outcomes(passed=1, failed=2)
        machines = client.list_machines("mine")
        if keep == "never":
            result.stdout.fnmatch_lines(["left: []"])
            assert {one.state for one in machines} <= {"destroying", "destroyed"}
            return
        result.stdout.fnmatch_lines(
            ["*fly sandbox workspace*", f"kept on machine {machines[0].id}: /*", "left: [[]'*"]
        )
        (path,) = {
            line.partition(": ")[2]
            for line in result.outlines
            if line.startswith("kept on") and line.endswith("/w1")
        }
        ls = client.exec("mine", machines[0].id, ["ls", path])
        assert ls.stdout == "of-the-bad\n"
