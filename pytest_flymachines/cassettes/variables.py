"""Values of variables whose names say that they are secret, in what is sent and answered."""

from __future__ import annotations

import zlib
from base64 import b64decode
from contextlib import suppress
from typing import Any

from pytest_flymachines.cassettes.carriers import argument
from pytest_flymachines.cassettes.scripts import secret_variables
from pytest_flymachines.cassettes.scrub import Scrubber
from pytest_flymachines.cassettes.volatile import RUNNER, RUNNER_SCRIPT, SECRET_NAME

__all__ = ["learn", "learn_script", "may_have"]

_SHORTEST = 8


def may_have(body: bytes) -> bool:
    """Whether it is worth to look for variables in a body."""
    return b'"env"' in body or (b"_fly env -- " in body and RUNNER.encode() in body)


def learn(value: Any, scrubber: Scrubber) -> bool:
    """Take values of secret variables for secrets, and put their names in their place.

    Returns:
        Whether anything was changed.
    """
    changed = False
    if isinstance(value, list):
        for item in value:
            changed = learn(item, scrubber) or changed
    if not isinstance(value, dict):
        return changed
    for key, item in value.items():
        if key == "env" and isinstance(item, dict):
            for name, secret in item.items():
                if SECRET_NAME.search(name) and (text := _text(secret)):
                    scrubber.add(name, text, shortest=_SHORTEST)
                    item[name] = f"<{name}>"
                    changed = True
        elif key == "command" and isinstance(item, list) and len(item) > RUNNER_SCRIPT:
            _learn_command(item, scrubber)
        else:
            changed = learn(item, scrubber) or changed
    return changed


def learn_script(script: bytes, scrubber: Scrubber) -> None:
    """Take values of secret variables for secrets, from a command as the runner takes it."""
    for name, value in secret_variables(script).items():
        scrubber.add(name, value.decode("utf-8", "surrogateescape"), shortest=_SHORTEST)


def _learn_command(command: list[Any], scrubber: Scrubber) -> None:
    word = command[RUNNER_SCRIPT]
    if RUNNER in str(command[2]) and isinstance(word, str) and word[:1] in ("t", "b", "z"):
        with suppress(ValueError, OSError, EOFError, zlib.error):  # whoever sent it, not our runner
            learn_script(argument(word, escaped=False).decode(word), scrubber)


def _text(value: Any) -> str:
    """A variable's value; what is not UTF-8 is packed in base64."""
    if isinstance(value, dict) and isinstance(value.get("base64"), str):
        value = value["base64"]
        with suppress(ValueError):  # else somebody meant it as it stands there
            value = b64decode(value).decode("utf-8", "surrogateescape")
    return value if isinstance(value, str) else ""
