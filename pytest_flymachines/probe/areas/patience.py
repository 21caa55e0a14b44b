"""The default time of an exec, on a machine of its own (reference, section 6.3)."""

from __future__ import annotations

from pytest_flymachines.probe.registry import check
from pytest_flymachines.probe.trial import Trial


@check("how long a command may take when no timeout is given", "unknown", "6.3")
def default_timeout(trial: Trial) -> None:
    answer = trial.guest().exec("sleep", "70", timeout_s=90)
    trial.note_answer("`sleep 70`", answer)
    trial.note("seconds", round(answer.seconds, 1))
