"""`--fly-budget`: no launch that could cost more than was allowed."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_flymachines.errors import SettingsError
from pytest_flymachines.prices import SOURCE, spec_hourly_usd
from pytest_flymachines.sharing import Intent
from pytest_flymachines.spec import SandboxSpec

__all__ = ["check_budget"]


def check_budget(
    budget_usd: float, spec: SandboxSpec, noted: Sequence[Intent], ttl_s: float
) -> None:
    """Refuse another machine, if nothing but their time to live ended the machines of a run.

    Args:
        budget_usd: What the run may cost.
        spec: Of the machine to come.
        noted: The run's machines so far.
        ttl_s: Time to live, in seconds.

    Raises:
        SettingsError: It could cost more, or its price is not known.
    """
    hourly = spec_hourly_usd(spec)
    if hourly is None:
        raise SettingsError(
            f"--fly-budget={budget_usd:g}: the price of {spec.cpu_kind}-{spec.cpus}x in "
            f"{','.join(spec.regions)} is not known to this version ({SOURCE}), so it cannot be "
            "held; leave the budget out, or ask for a size and regions of that page"
        )
    there = [intent.hourly_usd or 0.0 for intent in noted if not intent.over]
    estimate = (hourly + sum(there)) * ttl_s / 3600
    if estimate > budget_usd:
        raise SettingsError(
            f"--fly-budget={budget_usd:g}: {len(there) + 1} machine(s) for {ttl_s:g} s cost about "
            f"${estimate:.4f} ({SOURCE}); raise the budget, lower --fly-ttl or ask for less memory"
        )
