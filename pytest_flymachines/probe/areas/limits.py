"""Rate limits (reference, section 8.1): the only requests that are sent faster than allowed.

Each kind goes to a machine of this area, so that nothing else is slowed down by it.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from pytest_flymachines.probe.registry import check
from pytest_flymachines.probe.trial import Trial
from pytest_flymachines.probe.wire import Answer


def _burst(trial: Trial, method: str, path: str, number: int) -> tuple[list[Answer], float]:
    """Several requests as fast as four connections go, after a rest."""
    trial.sleep(3)
    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        sent = [
            pool.submit(trial.send, method, path, pace=False, private=True) for _ in range(number)
        ]
        answers = [future.result() for future in sent]
    return answers, time.monotonic() - began


def _note(trial: Trial, answers: list[Answer], seconds: float) -> list[Answer]:
    limited = [answer for answer in answers if answer.status == 429]
    trial.note("sent", f"{len(answers)} in {seconds:.1f} s, {len(limited)} of them answered 429")
    if limited:
        trial.exchanges.append(limited[0])
        trial.note("429 body", limited[0].text[:500])
        trial.note("429 headers", dict(limited[0].headers))
    return limited


@check("429 for an action on a machine more often than once a second, bursts of 3", "docs", "8.1")
def actions(trial: Trial) -> None:
    answers, seconds = _burst(trial, "POST", f"{trial.guest().path}/uncordon", 12)
    limited = _note(trial, answers, seconds)
    passed = len(answers) - len(limited)
    trial.true("some are refused", limited)
    trial.true("bursts of 3 pass", passed >= 3, passed)


@check("429 for reads of a machine more often than 5 a second, bursts of 10", "docs", "8.1")
def reads(trial: Trial) -> None:
    answers, seconds = _burst(trial, "GET", trial.guest().path, 45)
    limited = _note(trial, answers, seconds)
    trial.true("some are refused", limited)
    trial.true("bursts of 10 pass", len(answers) - len(limited) >= 10, len(answers) - len(limited))


@check("how often lists may be asked for", "unknown", "8.1")
def lists(trial: Trial) -> None:
    _note(trial, *_burst(trial, "GET", trial.machines, 25))
