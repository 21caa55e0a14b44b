"""Costs follow Fly's published prices; what Fly does not publish is not guessed."""

from __future__ import annotations

import pytest

from pytest_flymachines.api import Machine
from pytest_flymachines.budget import check_budget
from pytest_flymachines.errors import SettingsError
from pytest_flymachines.prices import SOURCE, describe_cost, hourly_usd, spec_hourly_usd
from pytest_flymachines.sharing import Intent
from pytest_flymachines.spec import SandboxSpec

MONTH_H = 30 * 24


@pytest.mark.parametrize(
    ("kind", "cpus", "memory_mb", "region", "month_usd"),
    [
        # rows of the table, and of the examples, of Fly's page
        ("shared", 1, 256, "iad", 2.19),
        ("shared", 1, 512, "ewr", 3.69),
        ("shared", 1, 1024, "iad", 6.70),
        ("shared", 2, 2048, "iad", 13.39),
        ("performance", 1, 2048, "iad", 33.00),
        ("performance", 2, 4096, "iad", 66.00),
        ("shared", 1, 1024, "fra", 7.73),
        ("shared", 1, 1024, "sin", 8.50),
    ],
)
def test_prices_are_those_of_flys_page(
    kind: str, cpus: int, memory_mb: int, region: str, month_usd: float
) -> None:
    hourly = hourly_usd(kind, cpus, memory_mb, region=region)
    assert hourly is not None
    assert round(hourly * MONTH_H, 2) == month_usd


def test_a_volume_costs_the_same_everywhere() -> None:
    for region in ("iad", "gru"):
        with_volume = hourly_usd("shared", 1, 256, region=region, volume_gb=10)
        without = hourly_usd("shared", 1, 256, region=region)
        assert with_volume is not None
        assert without is not None
        assert round((with_volume - without) * MONTH_H, 2) == 1.50


@pytest.mark.parametrize(
    ("kind", "cpus", "region"),
    [("shared", 3, "iad"), ("performance", 32, "iad"), ("a10", 8, "iad"), ("shared", 1, "xyz")],
)
def test_what_is_not_published_is_unknown(kind: str, cpus: int, region: str) -> None:
    assert hourly_usd(kind, cpus, 8192, region=region) is None
    guest = {"cpu_kind": kind, "cpus": cpus, "memory_mb": 8192}
    machine = Machine(id="m", state="started", region=region, config={"guest": guest})
    assert describe_cost(machine, 3600) == f"unknown ({kind}-{cpus}x in {region})"


def test_of_several_regions_the_dearest_counts() -> None:
    spec = SandboxSpec(regions=("iad", "gru", "ord"))
    assert spec_hourly_usd(spec) == spec_hourly_usd(spec, ["gru"])
    assert spec_hourly_usd(spec, ["iad", "xyz"]) is None


def test_a_budget_that_cannot_be_held_is_refused() -> None:
    unknown = SandboxSpec(regions=("xyz",))
    with pytest.raises(SettingsError, match=r"shared-1x in xyz is not known"):
        check_budget(1, unknown, [], 1800)
    spec = SandboxSpec()
    hourly = spec_hourly_usd(spec)
    assert hourly is not None
    check_budget(hourly * 2, spec, [Intent(app="a", name="n", hourly_usd=hourly)], 3600)
    with pytest.raises(SettingsError) as refused:
        check_budget(hourly, spec, [Intent(app="a", name="n", hourly_usd=hourly)], 3600)
    assert SOURCE in str(refused.value)
