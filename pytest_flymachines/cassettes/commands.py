"""Commands, and what they mean; those to our runner, over the Machines API alone, above all.

A command to the runner (`sandbox/runner.py`) is a shell with its text, its version, directories,
a verb and the verb's arguments.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pytest_flymachines.cassettes.carriers import argument
from pytest_flymachines.cassettes.scripts import without_secret_variables
from pytest_flymachines.cassettes.volatile import (
    REPEATABLE_VERBS,
    RUNNER,
    RUNNER_ARGUMENTS,
    RUNNER_DATA,
    RUNNER_PACK,
    RUNNER_PACKED,
    RUNNER_PATH,
    RUNNER_SCRIPT,
    RUNNER_TREE,
    RUNNER_TREE_ARGUMENTS,
    RUNNER_UPLOADED_MODE,
    RUNNER_UPLOADED_TIME,
    RUNNER_VERB,
    RUNNER_VERB_ARGUMENTS,
)
from pytest_flymachines.sandbox.runner import unpack_block

__all__ = [
    "Said",
    "command_meaning",
    "may_be_left_out",
    "may_repeat",
    "pack_argument",
    "runs",
    "said",
    "sends_tree",
    "verb_of",
]

_GZIP_WORD = re.compile(r"[bz]?(H4sI[A-Za-z0-9+/]+={0,2})")
_VERSION = re.compile(r"(?<=\bfly )[0-9a-f]{8}( )")
_UNPACKS = re.compile(r"(unpack_tree \S+ \S+) \d+ [0-9a-f]{64}")
_STREAMS = ("stdout", "stderr")
_PROCESS = re.compile(
    r"(?P<id>p\d+-[0-9a-f]{8}) (?P<pid>\d+) (?P<code>-|\d+) \d+ \d+ \d+ (?P<flags>-\w*)"
)
_TEXT = r'"(?:[^"\\]|\\.)*"'
# the shell, its option, its name, mode, two directories
_HEAD = rf'\{{"command":\[(?:{_TEXT},){{6}}'
_ASKS = re.compile(rf'{_HEAD}"(?:{"|".join(sorted(REPEATABLE_VERBS))})"[],].*')
_SENDS_TREE = re.compile(rf'{_HEAD}"stage",{_TEXT},"(?:{RUNNER_TREE}|{RUNNER_PACK})"\].*')
_ASKS_TOOLS = re.compile(rf'{_HEAD}"hello"\].*')


def command_meaning(command: Any, opaque: Callable[[bytes], str]) -> Any:
    """A command without what differs from run to run.

    Args:
        command: The argv of an exec request.
        opaque: What bytes mean.
    """
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        return command
    if not _is_to_runner(command):
        return command
    verb = command[RUNNER_VERB]
    dropped = RUNNER_ARGUMENTS | RUNNER_VERB_ARGUMENTS.get(verb, frozenset())
    if verb == "stage" and command[-1] in (RUNNER_TREE, RUNNER_PACK):
        dropped |= RUNNER_TREE_ARGUMENTS
    if verb == "put" and RUNNER_PACKED.fullmatch(command[RUNNER_PATH]):
        dropped |= RUNNER_DATA["put"]
    if verb == "start" and len(command) > RUNNER_SCRIPT:
        command = [*command]
        command[RUNNER_SCRIPT] = _script(command[RUNNER_SCRIPT])
    if verb == "put" and len(command) > RUNNER_UPLOADED_TIME:
        command = [*command]
        command[RUNNER_UPLOADED_MODE] = runs(command[RUNNER_UPLOADED_MODE], 8)
    return [_word(word, opaque) for at, word in enumerate(command) if at not in dropped]


def runs(mode: str, base: int) -> str:
    """What counts of the mode of an uploaded file: whether it may be run."""
    try:
        return "x" if int(mode, base) & 0o111 else "-"
    except ValueError:
        return mode


def _script(word: str) -> str:
    """The command that is to run, without values of secret variables."""
    codec = argument(word, escaped=False)
    try:
        script = codec.decode(word)
    except (ValueError, OSError, EOFError, zlib.error):
        return word
    clean = without_secret_variables(script)
    return word if clean == script else codec.encode(clean, word)


def may_repeat(body: str) -> bool:
    """Whether the meaning of a body is a command to the runner that changes nothing."""
    return bool(_ASKS.fullmatch(body)) or sends_tree(body)


def sends_tree(body: str) -> bool:
    """Whether the meaning of a body is a piece of a tree, of which there may be more or less."""
    return bool(_SENDS_TREE.fullmatch(body))


def may_be_left_out(body: str) -> bool:
    """Whether a replay may do without this: it packs no repository, nor asks how to send one."""
    return sends_tree(body) or bool(_ASKS_TOOLS.fullmatch(body))


@dataclass(frozen=True)
class Said:
    """An answer of the runner.

    Attributes:
        words: Its first line.
        blocks: The bytes that follow.
        process: Facts about a process, named as our agent names them, if it is about one.
    """

    words: list[str]
    blocks: list[bytes]
    process: dict[str, Any] | None


def pack_argument(body: Any) -> int | None:
    """Which argument of a body is bytes of a packed repository, if one is."""
    verb = verb_of(body)
    command = body["command"] if verb in ("stage", "put") else []
    packed = (
        command[-1] == RUNNER_PACK
        if verb == "stage"
        else len(command) > RUNNER_PATH and RUNNER_PACKED.fullmatch(command[RUNNER_PATH])
    )
    return min(RUNNER_DATA[verb]) if packed else None


def verb_of(body: Any) -> str:
    """The verb of an exec request to the runner; empty for any other."""
    command = body.get("command") if isinstance(body, dict) else None
    if isinstance(command, list) and all(isinstance(word, str) for word in command):
        return command[RUNNER_VERB] if _is_to_runner(command) else ""
    return ""


def said(answer: dict[str, Any]) -> Said | None:
    """What the runner said; None if the answer to the exec request is none of its."""
    first, _, rest = answer["stdout"].partition("\n")
    try:
        blocks = [unpack_block(block) for block in rest.split(".\n")[:-1]]
    except (ValueError, zlib.error):
        return None
    return Said(first.split(" "), blocks, _process(first, blocks))


def _process(line: str, blocks: list[bytes]) -> dict[str, Any] | None:
    """See `_tell` in sandbox/runner.sh."""
    if len(blocks) != len(_STREAMS) or not (match := _PROCESS.match(line)):
        return None
    facts: dict[str, Any] = {"id": match["id"], "pid": int(match["pid"])}
    facts["running"] = match["code"] == "-"
    facts["exit_code"] = None if facts["running"] else int(match["code"])
    facts["flags"] = match["flags"]
    for stream, block in zip(_STREAMS, blocks, strict=True):
        facts[stream] = block.decode("utf-8", "replace")
    return facts


def _is_to_runner(command: list[str]) -> bool:
    return len(command) > RUNNER_VERB and RUNNER in command[2]


def _word(word: str, opaque: Callable[[bytes], str]) -> str:
    """An argument; one that carries gzip data means what is in it."""
    if match := _GZIP_WORD.fullmatch(word):
        try:
            word = opaque(base64.b64decode(match[1]))
        except ValueError:
            return word
    # a runner within the runner: its version, and size and digest of an archive with its times
    return _UNPACKS.sub(r"\1", _VERSION.sub(r"\1", word))
