"""Requests to the shell functions in `runner.sh`, each one exec of the Machines API."""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import json
import re
import threading
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, TypeAlias

from pytest_flymachines.errors import (
    Conflict,
    FlyMachinesError,
    MachineGone,
    NotFound,
    file_error,
)

if TYPE_CHECKING:
    from pytest_flymachines.api import ExecResponse, MachinesClient

__all__ = [
    "DENSE_BODY_BYTES",
    "MAX_BODY_BYTES",
    "Answer",
    "Runner",
    "RunnerFailed",
    "quote",
    "source",
    "unpack_block",
    "version",
]

Argument: TypeAlias = str | bytes | int

# Fly's guest refuses bodies of 16 KiB, with a 200 (https://github.com/superfly/init-snapshot);
# what the API adds on the way is not known, so this stays well below.
MAX_BODY_BYTES = 12_000
# Requests that are base64 nearly alone are as long wherever their JSON is made anew; 15.8 KB have
# been seen to pass.
DENSE_BODY_BYTES = 15_000
_BODY_OVERHEAD_BYTES = 64
_EXEC_TIMEOUT_S = 45
_ABSENT = 97
# SIGKILL and SIGTERM: what the kernel and an init send when a machine goes down
_KILLED = (137, 143)
# What needs no directory, and so works although the workspace has gone
_ANYWHERE = frozenset(
    {"abort", "drop", "forget", "hello", "poll", "resize", "signal", "spool", "stage", "write"}
)
# What may be asked again when the connection broke before the answer was here
_REPEATABLE = frozenset({"abort", "hello", "list", "poll", "read", "resize", "spool", "stat"})
# What ends a command, and so is not to wait behind what asks for its output
_URGENT = frozenset({"abort", "forget", "signal"})

_STUB = (
    "_S=${PYTEST_FLYMACHINES_ROOT:-}/opt/pytest-flymachines/api;"
    '[ -r "$_S/$1.sh" ]||{ echo absent $(command -v base64 gzip);exit 97;};'
    '. "$_S/$1.sh";_request "$@"'
)
_INSTALL = (
    "_S=${PYTEST_FLYMACHINES_ROOT:-}/opt/pytest-flymachines/api;"
    'mkdir -p "${_S%/*}";umask 077;mkdir -p "$_S"&&cd "$_S"||exit 1;'
    'if [ "$5" ];then printf %s "$4"|base64 -d|gzip -dc;else printf %s "$4";fi>"$1.$2"||exit 1;'
    '[ "$2" = "$3" ]||exit 0;'
    'i=1;while [ $i -le $3 ];do cat "$1.$i"||exit 1;i=$((i+1));done>"$1.$$"&&mv "$1.$$" "$1.sh"'
)


class RunnerFailed(Exception):
    """A request failed in the machine.

    Attributes:
        word: What followed `errno` on stderr: a number, or one of the runner's own words.
        stderr: All that was said.
    """

    def __init__(self, word: str, stderr: str, machine_id: str) -> None:
        super().__init__(word, stderr, machine_id)
        self.word = word
        self.stderr = stderr
        self.machine_id = machine_id

    def error(self, path: str) -> Exception:
        """The error for a failed file operation on `path`."""
        if self.word == "base":
            return file_error(2, "the workspace", f"needed to resolve {path!r}")
        if self.word.isdecimal():
            return file_error(int(self.word), path)
        return file_error(5, path, self.stderr.strip()[:500] or self.word)


@dataclass(frozen=True)
class Answer:
    """What a request printed: lines of words, and blocks of bytes."""

    words: tuple[str, ...]
    blocks: tuple[bytes, ...]


class Runner:
    """The way to one machine's runner. Thread-safe; puts the runner there when it is missing."""

    def __init__(
        self, client: MachinesClient, app: str, machine_id: str, workdir: bytes, base: bytes
    ) -> None:
        self.client = client
        self.app = app
        self.machine_id = machine_id
        self.workdir = workdir
        self.base = base
        self._tools: list[str] = []
        #: Held by whoever lets a request wait in the machine: meanwhile Fly runs no other there.
        self.turn = threading.Lock()

    def with_base(self, base: bytes) -> Runner:
        """The same machine, with another directory for relative paths."""
        other = Runner(self.client, self.app, self.machine_id, self.workdir, base)
        other._tools = self._tools
        other.turn = self.turn
        return other

    def learn_tools(self, tools: str) -> None:
        """Remember what programs the machine has, where an answer or another process told it."""
        if tools and not self._tools:
            self._tools.append(tools)

    @property
    def tools(self) -> str:
        """A letter for each program that the machine has; see `_find_tools` in runner.sh."""
        if not self._tools:
            self._tools.append(self.call("hello").words[0])
        return self._tools[0]

    def argv(self, verb: str, *arguments: Argument) -> list[str]:
        """The command that does one thing, as the exec request has it."""
        raw = [a if isinstance(a, bytes) else _utf8(a) for a in arguments]
        base = b"/" if verb in _ANYWHERE else self.base or b"."
        raw = [self.workdir, base, verb.encode(), *raw]
        try:
            mode, texts = "", [a.decode() for a in raw]
        except UnicodeDecodeError:
            mode, texts = "%", [escape(a) for a in raw]
        return ["/bin/sh", "-c", _STUB, "fly", version(), mode, *texts]

    def call(self, verb: str, *arguments: Argument) -> Answer:
        """Do one thing, whose function is named `_` and `verb`.

        Raises:
            RunnerFailed: It failed.
            MachineGone: There is no machine to do it.
        """
        argv = self.argv(verb, *arguments)
        # a piece that comes twice replaces itself
        again = verb in _REPEATABLE or (verb == "stage" and bool(arguments[0]))
        done = self._exec(argv, again, urgent=verb in _URGENT)
        if done.exit_code == _ABSENT and done.stdout.startswith("absent"):
            self._install(all(tool in done.stdout for tool in ("gzip", "base64")))
            done = self._exec(argv, again)
        if done.exit_code in _KILLED and not done.stderr:
            raise MachineGone(
                f"a request to machine {self.machine_id} was killed there (exit code "
                f"{done.exit_code}): the machine goes down, or its memory is full; "
                "Sandbox.status() and events() say which"
            )
        return self.answer(done.exit_code, done.stdout, done.stderr)

    def try_call(self, verb: str, *arguments: Argument) -> None:
        """Do one thing for which it is enough to have tried."""
        with suppress(RunnerFailed, FlyMachinesError, OSError):
            self.call(verb, *arguments)

    def answer(self, exit_code: int, stdout: str, stderr: str) -> Answer:
        """What the runner's output means.

        Raises:
            RunnerFailed: It failed.
        """
        if exit_code:
            raise RunnerFailed(*_failure(stderr), self.machine_id)
        first, _, rest = stdout.partition("\n")
        blocks = rest.split(".\n")[:-1]
        return Answer(tuple(first.split(" ")), tuple(unpack_block(block) for block in blocks))

    def _exec(self, argv: Sequence[str], again: bool, *, urgent: bool = False) -> ExecResponse:
        try:
            return self.client.exec(
                self.app,
                self.machine_id,
                argv,
                timeout_s=_EXEC_TIMEOUT_S,
                repeat_safe=again,
                urgent=urgent,
            )
        except (Conflict, NotFound) as error:
            raise MachineGone(
                f"machine {self.machine_id} of app {self.app} does not run any more: {error}\n"
                "Sandbox.start() or resume() brings a stopped or suspended machine back."
            ) from error

    def _install(self, compressed: bool) -> None:
        text = source()
        if compressed:
            text = base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()
        pieces = _split(text, MAX_BODY_BYTES - 1000)
        for number, piece in enumerate(pieces, 1):
            tail = [str(number), str(len(pieces)), piece, "z" if compressed else ""]
            done = self._exec(["/bin/sh", "-c", _INSTALL, "fly", version(), *tail], True)
            if done.exit_code:
                raise FlyMachinesError(
                    f"machine {self.machine_id} did not take the script that commands over the "
                    "Machines API need, into /opt/pytest-flymachines/api (exit code "
                    f"{done.exit_code}): {done.stderr.strip()}"
                )


@functools.cache
def source() -> str:
    """The runner's text without its comments."""
    text = files(__package__).joinpath("runner.sh").read_text("utf-8")
    lines = (re.sub(r"(?<=[ {;])\s*# .*", "", line).strip() for line in text.splitlines())
    return "".join(f"{line}\n" for line in lines if line and not line.startswith("# "))


@functools.cache
def version() -> str:
    """Names the runner's text; another text is another version, beside it."""
    return hashlib.sha256(source().encode()).hexdigest()[:8]


def _utf8(argument: str | int) -> bytes:
    return str(argument).encode("utf-8", "surrogateescape")


def body_bytes(argv: Sequence[str]) -> int:
    """Size of the request that carries a command."""
    return len(json.dumps(argv, ensure_ascii=False).encode()) + _BODY_OVERHEAD_BYTES


def escape(data: bytes) -> str:
    """Bytes as printf's %b takes them; what is printable stays readable."""
    return "".join(chr(b) if 32 <= b < 127 and b != 92 else f"\\0{b:03o}" for b in data)


def quote(word: bytes) -> bytes:
    """A word as the shell takes it from a script."""
    if word and not re.search(rb"[^A-Za-z0-9_@%+=:,./-]", word):
        return word
    return b"'" + word.replace(b"'", b"'\\''") + b"'"


def _split(text: str, limit: int) -> list[str]:
    """Pieces whose JSON is not longer than `limit` bytes."""
    pieces, start, size = [], 0, 0
    for position, char in enumerate(text):
        more = len(json.dumps(char, ensure_ascii=False).encode()) - 2
        if size + more > limit:
            pieces.append(text[start:position])
            start, size = position, 0
        size += more
    return [*pieces, text[start:]]


def unpack_block(block: str) -> bytes:
    """The bytes of a block of an answer.

    Raises:
        ValueError, zlib.error: It is none.
    """
    kind, _, text = block.partition("\n")
    if kind == "z":
        return zlib.decompress(base64.b64decode(text), wbits=31)
    if kind == "b":
        return base64.b64decode(text)
    return bytes.fromhex(text) if kind == "x" else b""


# Words of glibc, musl, dash and GNU tar for errno, in the C locale
_WORDS = {
    "No such file or directory": 2,
    "Directory nonexistent": 2,
    "nonexistent directory": 2,
    "Not a directory": 20,
    "Is a directory": 21,
    "File exists": 17,
    "Directory not empty": 39,
    "Permission denied": 13,
    "Operation not permitted": 1,
    "Read-only file system": 30,
    "No space left on device": 28,
    "Disk quota exceeded": 122,
    "File name too long": 36,
    "Filename too long": 36,
    "Too many levels of symbolic links": 40,
    "Symbolic link loop": 40,
    "Device or resource busy": 16,
    "Resource busy": 16,
    "Text file busy": 26,
    "Invalid argument": 22,
    "Invalid cross-device link": 18,
    "Input/output error": 5,
    "I/O error": 5,
}


def _failure(stderr: str) -> tuple[str, str]:
    """The word for a failure, and all that was said."""
    for line in stderr.splitlines():
        if line.startswith("errno "):
            return line.removeprefix("errno "), stderr
    for words, number in _WORDS.items():
        if words in stderr:
            return str(number), stderr
    return "", stderr
