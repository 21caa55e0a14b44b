"""What a failing test shows of the way through this package: nothing, but of our own faults."""

from __future__ import annotations

import dis
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from types import FrameType, TracebackType

from pytest_flymachines.errors import FlyMachinesError

__all__ = ["chain", "has_users_frame", "without_inside"]

_PACKAGE = Path(__file__).parent
_LIBRARIES = frozenset({"site-packages", "dist-packages"})
_STDLIB = Path(sysconfig.get_path("stdlib"))


@contextmanager
def without_inside(*errors: BaseException) -> Iterator[None]:
    """Take our own frames and causes out of errors, for as long as they are shown.

    What the package calls goes, too: a traceback ends at the line that called us, and what was
    raised and caught within us is no cause. An error that is not meant for users, and so tells of
    a defect, keeps all; what a callback of the user's raised keeps the user's lines.
    """
    with ExitStack() as restored:
        found = [one for error in errors for one in chain(error)]
        meant = [_is_meant_for_users(one) for one in found]  # while all is there to tell it by
        for one, enough in zip(found, meant, strict=True):
            if enough:
                restored.callback(_forget_causes(one))
        for one, enough in zip(found, meant, strict=True):
            for undo in _cut(one, enough):
                restored.callback(undo)
        yield


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, its causes, what it was raised upon, and the members of groups."""
    todo, seen = [error], set[int]()
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        members = one.exceptions if isinstance(one, BaseExceptionGroup) else ()
        todo += [one.__context__, one.__cause__, *reversed(members)]


def has_users_frame(error: BaseException) -> bool:
    """Whether a line on the way of an error is of neither the package, a library nor pytest."""
    return any(_is_users(frame) for frame, _ in traceback.walk_tb(error.__traceback__))


def _cut(error: BaseException, after: bool) -> Iterator[Callable[[], None]]:
    """Unlink frames between the user's and, if asked to, `after` them; gives what undoes it."""
    outside: TracebackType | None = None  # the last step that stays
    inside = False
    for step in list(_steps(error.__traceback__)):
        if _is_users(step.tb_frame):
            if inside and outside is not None:
                yield _link(outside, step)
            inside = False
        elif _is_ours(step.tb_frame):
            inside = True
        if not inside:
            outside = step
    if inside and outside is not None and after:
        yield _link(outside, None)


def _link(step: TracebackType, following: TracebackType | None) -> Callable[[], None]:
    before = step.tb_next
    step.tb_next = following

    def undo() -> None:
        step.tb_next = before

    return undo


def _forget_causes(error: BaseException) -> Callable[[], None]:
    """Make what stays of the causes the context; gives what undoes it."""
    before = error.__cause__, error.__context__, error.__suppress_context__
    cause = error.__cause__
    if cause is not None and _is_inside(cause):
        error.__cause__ = None
        error.__context__ = _outside(cause)
        error.__suppress_context__ = False
    elif cause is None and not error.__suppress_context__:
        error.__context__ = _outside(error.__context__)

    def undo() -> None:
        error.__cause__, error.__context__, error.__suppress_context__ = before

    return undo


def _outside(error: BaseException | None) -> BaseException | None:
    """The first in a chain that was not raised and caught within us."""
    seen: set[int] = set()
    while error is not None and _is_inside(error) and id(error) not in seen:
        seen.add(id(error))
        hidden = None if error.__suppress_context__ else error.__context__
        error = error.__cause__ or hidden
    return error


def _is_inside(error: BaseException) -> bool:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(map(_is_ours, frames)) and not any(map(_is_users, frames))


def _steps(step: TracebackType | None) -> Iterator[TracebackType]:
    while step is not None:
        yield step
        step = step.tb_next


def _is_meant_for_users(error: BaseException) -> bool:
    """Whether the message is enough: ours, the system's, or raised by us on purpose."""
    if isinstance(error, FlyMachinesError | OSError):
        return True
    if type(error).__module__ != "builtins" or isinstance(error, AssertionError):
        return False
    steps = list(_steps(error.__traceback__))
    return bool(steps) and _is_ours(steps[-1].tb_frame) and _stands_at_raise(steps[-1])


def _stands_at_raise(step: TracebackType) -> bool:
    """Whether a step is a `raise` statement, not an operation that failed."""
    return dis.opname[step.tb_frame.f_code.co_code[step.tb_lasti]] == "RAISE_VARARGS"


def _is_users(frame: FrameType) -> bool:
    return _whose(frame.f_code.co_filename, frame.f_globals.get("__name__", "")) == "user"


def _is_ours(frame: FrameType) -> bool:
    return _whose(frame.f_code.co_filename, frame.f_globals.get("__name__", "")) == "package"


@cache
def _whose(filename: str, module: str) -> str:
    path = Path(filename)
    made = filename.startswith("<") and module.partition(".")[0] == __package__  # by a dataclass
    if made or _PACKAGE in path.parents:
        return "package"
    library = _LIBRARIES.intersection(path.parts) or _STDLIB in path.parents
    return "library" if library or filename.startswith("<frozen ") else "user"
