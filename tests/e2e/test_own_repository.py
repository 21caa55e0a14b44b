"""This very repository, cloned into a sandbox as it is, runs a part of its own tests there."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Run, git

ROOT = Path(__file__).parent.parent.parent


def test_the_repository_tests_itself_in_a_sandbox(pytester: pytest.Pytester, run: Run) -> None:
    """What pytest needs is pure Python, and is uploaded beside the workspace."""
    head = git(ROOT, "rev-parse", "HEAD")
    pytester.makepyfile(
        f"""
        from importlib.metadata import files
        from pathlib import Path

        def test_it(fly_sandbox, tmp_path):
            site = tmp_path / "site"
            for name in ("pytest", "pluggy", "iniconfig", "packaging", "pygments"):
                for file in files(name):
                    if file.suffix == ".py" and ".." not in file.parts:
                        target = site / str(file)
                        target.parent.mkdir(parents=True, exist_ok=True)
                        target.write_bytes(Path(file.locate()).read_bytes())
            fly_sandbox.upload(site, "../site")
            assert fly_sandbox.exec("git rev-parse HEAD").stdout.strip() == {head!r}
            outcome = fly_sandbox.exec(
                "python3 -m pytest -c /dev/null -p no:cacheprovider --rootdir=. -q "
                "tests/test_spec.py tests/test_repository.py",
                env={{"PYTHONPATH": "../site:."}},
                check=False,
            )
            print(outcome.stdout, outcome.stderr)
            assert outcome.exit_code == 0
            assert "passed" in outcome.stdout
        """
    )
    run(f"--fly-repo={ROOT}").assert_outcomes(passed=1)
