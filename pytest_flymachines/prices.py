"""What a machine costs, by Fly's prices; where one is not known, that is said.

Source: the table and the rates per second of https://fly.io/docs/about/pricing/, as read on
2026-10-09; it counts 30 days as a month.
"""

from __future__ import annotations

from collections.abc import Iterable

from pytest_flymachines.api import Machine
from pytest_flymachines.spec import SandboxSpec

__all__ = ["SOURCE", "describe_cost", "hourly_usd", "spec_hourly_usd"]

SOURCE = "https://fly.io/docs/about/pricing/ (2026-10-09)"
_PRESETS = {"shared": (1, 2, 4, 6, 8), "performance": (1, 2, 4, 6, 8, 10, 12, 14, 16)}
# USD for each second of a cpu, and the memory that comes with it, in Ashburn (iad)
_CPU_USD = {"shared": 0.0000008465, "performance": 0.000012732}
_INCLUDED_MB = {"shared": 256, "performance": 2048}
_MORE_GB_USD = 0.000002316
# how many times as much cpus and memory cost elsewhere
_MARKUPS = {
    "ams": 1.038461538,
    "arn": 1.038461538,
    "cdg": 1.134615385,
    "dfw": 1.25,
    "ewr": 1.0,
    "fra": 1.153846154,
    "gru": 1.615384615,
    "iad": 1.0,
    "jnb": 1.302884615,
    "lax": 1.199519231,
    "lhr": 1.134615385,
    "nrt": 1.307692308,
    "ord": 1.25,
    "sin": 1.269230769,
    "sjc": 1.192307692,
    "syd": 1.269230769,
    "yyz": 1.115384615,
}
_VOLUME_GB_MONTH_USD = 0.15
_HOURS_PER_MONTH = 30 * 24


def hourly_usd(
    cpu_kind: str, cpus: int, memory_mb: int, *, region: str, volume_gb: int = 0
) -> float | None:
    """USD for an hour of a started machine with its volume; None where no price is known."""
    if cpus not in _PRESETS.get(cpu_kind, ()) or region not in _MARKUPS:
        return None
    more_gb = max(0, memory_mb - cpus * _INCLUDED_MB[cpu_kind]) / 1024
    second = (cpus * _CPU_USD[cpu_kind] + more_gb * _MORE_GB_USD) * _MARKUPS[region]
    return second * 3600 + volume_gb * _VOLUME_GB_MONTH_USD / _HOURS_PER_MONTH


def spec_hourly_usd(spec: SandboxSpec, regions: Iterable[str] = ()) -> float | None:
    """The same for a spec, in the dearest of these regions, or of its own."""
    prices = [
        hourly_usd(
            spec.cpu_kind, spec.cpus, spec.memory_mb, region=region, volume_gb=spec.volume_gb
        )
        for region in regions or spec.regions
    ]
    known = [price for price in prices if price is not None]
    return max(known) if len(known) == len(prices) else None


def describe_cost(machine: Machine, seconds: float) -> str:
    """The cost of a machine that ran for so long, in words."""
    guest = (machine.config or {}).get("guest")
    if not guest:
        return "unknown"
    kind, cpus = guest.get("cpu_kind"), guest.get("cpus")
    hourly = hourly_usd(kind, cpus, guest.get("memory_mb", 0), region=machine.region)
    if hourly is None:
        return f"unknown ({kind}-{cpus}x in {machine.region})"
    # one that does not run costs its disk alone, and when it stopped is not known
    estimate = "about" if machine.state == "started" else "at most"
    return f"{estimate} ${hourly * seconds / 3600:.4f}"
