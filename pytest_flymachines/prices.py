"""What a machine costs, by the prices that are known; where one is not, that is said.

Source: https://fly.io/docs/about/pricing/, as read on 2026-06-07 (started machines, cheapest
region) and 2026-08-05 (extra memory, volumes). Prices differ by region, some are higher.
"""

from __future__ import annotations

from pytest_flymachines.api import Machine
from pytest_flymachines.spec import SandboxSpec

__all__ = ["SOURCE", "describe_cost", "hourly_usd", "spec_hourly_usd"]

SOURCE = "https://fly.io/docs/about/pricing/ (2026-08-05)"
_HOURS_PER_MONTH = 30 * 24
# (cpu kind, cpus): USD a month and the memory that it includes
_PRESETS_USD = {("shared", 1): (2.02, 256)}
_EXTRA_GB_MONTH_USD = 5.0
_VOLUME_GB_MONTH_USD = 0.15


def hourly_usd(cpu_kind: str, cpus: int, memory_mb: int, volume_gb: int = 0) -> float | None:
    """USD for an hour of a started machine with its volume; None where no price is known."""
    preset = _PRESETS_USD.get((cpu_kind, cpus))
    if preset is None:
        return None
    month, included_mb = preset
    month += max(0, memory_mb - included_mb) / 1024 * _EXTRA_GB_MONTH_USD
    return (month + volume_gb * _VOLUME_GB_MONTH_USD) / _HOURS_PER_MONTH


def spec_hourly_usd(spec: SandboxSpec) -> float | None:
    """The same for a spec."""
    return hourly_usd(spec.cpu_kind, spec.cpus, spec.memory_mb, spec.volume_gb)


def describe_cost(machine: Machine, seconds: float) -> str:
    """The cost of a machine that ran for so long, in words."""
    guest = (machine.config or {}).get("guest")
    if not guest:
        return "unknown"
    hourly = hourly_usd(guest.get("cpu_kind"), guest.get("cpus"), guest.get("memory_mb", 0))
    if hourly is None:
        return f"unknown ({guest.get('cpu_kind')}-{guest.get('cpus')}x)"
    return f"about ${hourly * seconds / 3600:.4f}"
