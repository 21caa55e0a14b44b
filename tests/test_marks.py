"""Names and metadata by which machines and volumes are known as ours."""

from __future__ import annotations

import re

import pytest

from pytest_flymachines.marks import (
    grace_s,
    machine_name,
    volume_name,
    volume_run,
    volume_ttl_s,
)


@pytest.mark.parametrize("run_id", ["0123456789abcdef", "PR #12 / Shard", "x" * 200, "Ünï", ""])
def test_names_are_what_fly_accepts(run_id: str) -> None:
    assert re.fullmatch("[a-z0-9-]{1,63}", machine_name(run_id, "0123456789ab").replace("--", "-"))
    assert re.fullmatch("[a-z0-9_]{1,30}", volume_name(run_id, 999_999_999_999))


def test_ids_that_begin_alike_have_names_of_their_own() -> None:
    assert machine_name("github-run-1234567", "k") != machine_name("github-run-1234568", "k")
    assert machine_name("a b", "k") != machine_name("a-b", "k")


def test_a_volume_says_whose_it_is_and_for_how_long() -> None:
    name = volume_name("run", 1800)
    assert name.startswith(volume_run("run"))
    assert volume_ttl_s(name) == 1800


@pytest.mark.parametrize("name", ["data", "ptfm_", "ptfm_backup_1", "ptfm_0123456789abcdef", ""])
def test_other_volumes_are_not_ours(name: str) -> None:
    assert volume_ttl_s(name) is None


def test_a_short_time_to_live_has_a_short_grace() -> None:
    assert grace_s(10) == 10
    assert grace_s(1800) == 120
