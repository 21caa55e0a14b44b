"""The checks: each is a function with a title, a source, and whether the answer is known."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_flymachines.probe.trial import Trial

__all__ = ["CHECKS", "SOURCES", "Body", "Check", "check", "load"]

Body = Callable[["Trial"], None]

#: Where what is expected is known from; the numbers beside it are sections of the reference
#: that this project is written from.
SOURCES = {
    "docs": "Fly's documentation",
    "openapi": "the API's own OpenAPI document",
    "fly-go": "what superfly/fly-go sends and can decode",
    "flyctl": "what superfly/flyctl sends and can decode",
    "init": "superfly/init-snapshot, Fly's guest server of 2021",
    "seen": "answers of the live API that users have published",
    "unknown": "no source says it; the answer is recorded",
}


@dataclass(frozen=True)
class Check:
    """One behaviour that is asked for.

    Attributes:
        name: `area.function`.
        title: What should be so; for an unknown, what is asked.
        source: One of `SOURCES`.
        section: Of the reference.
        body: Asks and compares.
        own_app: It changes the app itself, and so needs one that the probe made.
        images: It needs a server that pulls images from a registry.
    """

    name: str
    title: str
    source: str
    section: str
    body: Body
    own_app: bool = False
    images: bool = False

    @property
    def area(self) -> str:
        """The part of the API, and the thread and machine that it shares."""
        return self.name.partition(".")[0]


CHECKS: list[Check] = []


def check(
    title: str, source: str, section: str, *, own_app: bool = False, images: bool = False
) -> Callable[[Body], Body]:
    """Register a function of an area's module as a check; see `Check` for the arguments."""
    assert source in SOURCES, source

    def register(body: Body) -> Body:
        name = f"{body.__module__.rsplit('.', 1)[-1]}.{body.__name__}"
        CHECKS.append(Check(name, title, source, section, body, own_app=own_app, images=images))
        return body

    return register


def load() -> list[Check]:
    """All checks of all areas."""
    package = importlib.import_module("pytest_flymachines.probe.areas")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return CHECKS
