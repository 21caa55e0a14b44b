"""What a test leaves running ends with it, and is shown when it failed."""

from __future__ import annotations

import pytest

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
