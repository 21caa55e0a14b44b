"""What a failing test shows of the way through the package."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import cast

import pytest

from pytest_flymachines._clock import SystemClock
from pytest_flymachines.api import ExecResponse, MachinesClient
from pytest_flymachines.errors import MachineGone
from pytest_flymachines.report import may_be_lost
from pytest_flymachines.sandbox.api_files import ApiFiles
from pytest_flymachines.sandbox.channel import ProcessUpdate
from pytest_flymachines.sandbox.exec import Output, make_command
from pytest_flymachines.sandbox.runner import Runner
from pytest_flymachines.spec import SandboxSpec
from pytest_flymachines.tracebacks import without_inside

INSIDE = "pytest_flymachines"


def raised(act: Callable[[], object]) -> Exception:
    try:
        act()
    except Exception as error:  # noqa: BLE001
        return error
    raise AssertionError("nothing was raised")


def shown(error: BaseException) -> str:
    with without_inside(error):
        return "".join(traceback.format_exception(error))


def whole(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


REFUSED = {
    "value": lambda: make_command("true", timeout_s=-1),
    "field": lambda: SandboxSpec(memory_mb=-3),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_shows_the_line_that_asked_for_it(name: str) -> None:
    error = raised(REFUSED[name])
    assert f"{INSIDE}/" in whole(error)
    text = shown(error)
    assert f"{INSIDE}/" not in text
    assert "<string>" not in text
    assert "test_tracebacks.py" in text
    assert str(error) in text


def test_afterwards_the_error_is_as_it_was() -> None:
    def act() -> None:
        try:
            raise KeyError("before")
        except KeyError:
            make_command("true", timeout_s=-1)

    error = raised(act)
    before, context = whole(error), error.__context__
    shown(error)
    assert whole(error) == before
    assert error.__context__ is context
    assert isinstance(context, KeyError)


def test_a_defect_of_ours_shows_all() -> None:
    error = raised(lambda: Output().add(None))  # type: ignore[arg-type]
    assert isinstance(error, AttributeError)
    assert shown(error) == whole(error)
    assert f"{INSIDE}/sandbox/exec.py" in shown(error)


def test_what_a_callback_raises_shows_both_lines_of_the_users() -> None:
    def on_output(stream: str, text: str) -> None:
        raise ZeroDivisionError(text)

    def act() -> None:
        Output(on_output).add(ProcessUpdate(id="p", running=True, stdout=b"said"))

    text = shown(raised(act))
    assert f"{INSIDE}/" not in text
    assert "Output(on_output).add(" in text
    assert "raise ZeroDivisionError(text)" in text


class Refusing:
    """A client whose machine has no files."""

    def exec(self, *_: object, **__: object) -> ExecResponse:
        return ExecResponse(exit_code=1, exit_signal=0, stdout="", stderr="errno 2")


def test_causes_within_us_are_left_out_and_the_users_own_stay() -> None:
    def act() -> None:
        try:
            raise KeyError("users")
        except KeyError:
            runner = Runner(cast("MachinesClient", Refusing()), "app", "m", b"/workspace", b"")
            ApiFiles(runner, SystemClock()).stat(b"missing")

    error = raised(act)
    assert "RunnerFailed" in whole(error)
    text = shown(error)
    assert "RunnerFailed" not in text
    assert "KeyError: 'users'" in text
    assert "During handling of the above exception" in text
    assert f"{INSIDE}/" not in text


def test_members_of_groups_are_cut_too() -> None:
    errors = [raised(act) for act in REFUSED.values()]
    group = ExceptionGroup("both", errors)
    assert f"{INSIDE}/" in whole(group)
    assert f"{INSIDE}/" not in shown(group)
    assert all(str(error) in shown(group) for error in errors)


def test_a_lost_machine_is_found_in_a_group() -> None:
    assert may_be_lost(ExceptionGroup("all", [ValueError(), MachineGone("gone")]))
    assert not may_be_lost(ExceptionGroup("all", [ValueError()]))
