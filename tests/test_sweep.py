"""Sweep and reap: what is overdue goes with its volumes, what is not ours or alive stays."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pytest_flymachines.api import Machine
from pytest_flymachines.cli import main
from pytest_flymachines.marks import (
    DEADLINE_KEY,
    OWNER_KEY,
    RUN_KEY,
    TTL_KEY,
    volume_name,
)
from pytest_flymachines.run import owner
from pytest_flymachines.sweep import destroy_verified, ours, sweep
from tests.e2e.cloud import APP, Cloud, cloud


@pytest.fixture(scope="module")
def running() -> Iterator[Cloud]:
    with cloud() as found:
        yield found


@pytest.fixture
def fly(running: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    yield running
    running.clear_faults()
    for machine in running.client.list_machines(APP):
        running.client.destroy_machine(APP, machine.id)


def make(fly: Cloud, run: str = "", left_s: float = 0, ttl_s: int = 10, **more: Any) -> Machine:
    """A machine of a run whose deadline is so many seconds from now; without run: foreign."""
    metadata = {
        RUN_KEY: run,
        OWNER_KEY: more.pop("owner", "somebody@else"),
        TTL_KEY: str(ttl_s),
        DEADLINE_KEY: str(int(time.time() + left_s)),
    }
    config = {
        "image": "alpine",
        "init": {"exec": ["sleep", "600"]},
        "metadata": metadata if run else {"team": "other"},
        **more,
    }
    return fly.client.create_machine(APP, config)


def alive(fly: Cloud) -> set[str]:
    machines = fly.client.list_machines(APP)
    return {m.id for m in machines if m.state not in ("destroying", "destroyed")}


def reap(*args: str) -> Result:
    return CliRunner().invoke(main, ["reap", "-a", APP, *args])


def test_only_what_is_overdue_and_ours_is_swept(fly: Cloud) -> None:
    late = make(fly, "late", -60)
    stay = {make(fly, "alive", 10).id, make(fly, "within-grace", -2).id, make(fly).id}
    assert sweep(fly.client, APP) == [late.id]
    assert alive(fly) == stay


def test_a_sweep_asks_the_machine_itself_because_lists_are_old(fly: Cloud) -> None:
    late = make(fly, "late", -60)

    class OldLists:
        def __getattr__(self, name: str) -> Any:
            return getattr(fly.client, name)

        def list_machines(self, app: str, **options: Any) -> list[Machine]:
            listed = fly.client.list_machines(app, **options)
            fly.client.set_metadata(APP, late.id, DEADLINE_KEY, str(int(time.time() + 1000)))
            return listed

    assert sweep(OldLists(), APP) == []  # type: ignore[arg-type]  # all the sweep needs
    assert late.id in alive(fly)


def test_a_volume_goes_with_its_machine(fly: Cloud) -> None:
    volume = fly.client.create_volume(APP, volume_name("late", 10), region="ord", size_gb=1)
    kept = fly.client.create_volume(APP, volume_name("new", 10), region="ord", size_gb=1)
    mine = fly.client.create_volume(APP, "data", region="ord", size_gb=1)
    mounts = [{"volume": volume.id, "path": "/data"}]
    make(fly, "late", -60, mounts=mounts)
    result = reap("--yes")
    assert result.exit_code == 0, result.output
    assert "destroyed 2, left 0" in result.output
    assert {v.id for v in fly.client.list_volumes(APP)} == {kept.id, mine.id}
    assert reap("--run", "new", "--yes").exit_code == 0
    assert {v.id for v in fly.client.list_volumes(APP)} == {mine.id}


def test_volumes_that_somebody_has_or_will_have_are_not_tried(fly: Cloud) -> None:
    """Of a run that is alive, or in a machine; all of them are older than they may be unused."""
    make(fly, "alive", 100)
    volumes = [
        fly.client.create_volume(APP, volume_name(run, 0), region="ord", size_gb=1)
        for run in ("alive", "over", "over-too")
    ]
    awaited, used, unused = (volume.id for volume in volumes)
    make(fly, mounts=[{"volume": used, "path": "/data"}])
    fly.forget_requests()
    assert sweep(fly.client, APP) == [unused]
    assert fly.count("DELETE volumes/ID") == 1
    assert {awaited, used} <= {volume.id for volume in fly.client.list_volumes(APP)}


def test_a_sweep_that_is_told_to_stop_destroys_nothing_more(fly: Cloud) -> None:
    late = make(fly, "late", -60)
    assert sweep(fly.client, APP, lambda: True) == []
    assert late.id in alive(fly)


def test_a_machine_that_is_being_destroyed_is_left_to_it(fly: Cloud) -> None:
    late = make(fly, "late", -60)
    fly.fault(f"stuck=destroying,machine={late.id}")
    fly.client.destroy_machine(APP, late.id)
    assert fly.client.get_machine(APP, late.id).state == "destroying"
    assert late.id not in {one.machine.id for one in ours(fly.client, APP)}


def test_a_destroy_that_had_no_effect_is_an_error(fly: Cloud) -> None:
    class Ignored:
        tries = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(fly.client, name)

        def destroy_machine(self, *args: object, **how: object) -> None:
            self.tries += 1

    late, ignored = make(fly, "late", -60), Ignored()
    error = destroy_verified(ignored, APP, late.id, sleep=lambda _: None)  # type: ignore[arg-type]
    assert "accepted, but the machine is start" in str(error)
    assert ignored.tries > 1
    assert destroy_verified(fly.client, APP, late.id) is None


def test_reap_leaves_what_is_alive_unless_named(fly: Cloud) -> None:
    run = make(fly, "alive", 1700, 1800, owner=owner())
    dead = make(fly, "dead", 600, 1800, owner=owner())
    others = make(fly, "others", 600, 1800)
    for arguments in (["--all-mine"], ["--older-than", "0"], []):
        assert run.id not in reap("--dry-run", *arguments).output
    # both choices together leave more
    assert "nothing to destroy" in reap("--dry-run", "--all-mine", "--older-than=60").output
    assert others.id not in reap("--dry-run", "--all-mine", "--older-than=0").output
    assert others.id in reap("--dry-run", "--older-than=0").output
    assert reap("--all-mine", "--yes").exit_code == 0
    assert alive(fly) == {run.id, others.id}
    assert dead.id not in alive(fly)
    assert reap("--run", "alive", "--yes").exit_code == 0
    assert alive(fly) == {others.id}


def test_reap_asks_first_and_a_dry_run_destroys_nothing(fly: Cloud) -> None:
    late = make(fly, "late", -60)
    assert "dry run: nothing was destroyed" in reap("--dry-run").output
    refused = CliRunner().invoke(main, ["reap", "-a", APP], input="n\n")
    assert refused.exit_code == 1
    assert late.id in alive(fly)


def test_reap_says_by_its_exit_code_that_something_was_left(fly: Cloud) -> None:
    late = make(fly, "late", -60)
    fly.fault(f"status=400,method=DELETE,path=*/{late.id},body=host trouble")
    result = reap("--yes")
    assert result.exit_code == 1
    assert "LEFT: machine" in result.output


def test_list_shows_ours_alone(fly: Cloud) -> None:
    mine, other = make(fly, "my-run", 100), make(fly)
    result = CliRunner().invoke(main, ["list", "-a", APP])
    assert result.exit_code == 0
    assert mine.id in result.output
    assert "my-run" in result.output
    assert "somebody@else" in result.output
    assert other.id not in result.output
    heading, *rows = result.output.splitlines()
    [row] = [row for row in rows if mine.id in row]
    assert row.index("my-run") == heading.index("run")
    volume = fly.client.create_volume(APP, volume_name("my-run", 10), region="ord", size_gb=1)
    assert f"volume {volume.id}" in CliRunner().invoke(main, ["list", "-a", APP]).output


def test_a_wrong_token_is_an_error_that_says_so(
    fly: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLY_API_TOKEN", "wrong")
    assert os.environ["FLY_FLAPS_BASE_URL"]
    result = reap("--yes")
    assert result.exit_code == 1
    assert "401" in result.output
