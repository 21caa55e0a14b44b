"""The recorder: knows whose requests are made now, and keeps or finds their answers."""

from __future__ import annotations

import contextlib
import datetime
import shlex
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

from vcr.persisters.filesystem import CassetteNotFoundError
from vcr.request import Request as VcrRequest

import pytest_flymachines
from pytest_flymachines._clock import Clock, ReplayClock, SystemClock
from pytest_flymachines._http import Transport
from pytest_flymachines.cassettes.bodies import Blobs
from pytest_flymachines.cassettes.claims import Claims, Seen
from pytest_flymachines.cassettes.cleaning import BodyCleaner, clean
from pytest_flymachines.cassettes.files import FORMAT, Persister, Serializer
from pytest_flymachines.cassettes.frames import FrameSocket, RecordedSocket, ReplayedSocket
from pytest_flymachines.cassettes.identities import EXISTING, Identities, created, started
from pytest_flymachines.cassettes.journal import Journal
from pytest_flymachines.cassettes.jsons import json_value
from pytest_flymachines.cassettes.kept import LARGEST_JSON, Kept, whole
from pytest_flymachines.cassettes.keys import BLOBS, CassetteKey, spec_facts
from pytest_flymachines.cassettes.locks import sweep
from pytest_flymachines.cassettes.meaning import meaning, target
from pytest_flymachines.cassettes.misses import Misses, no_owner
from pytest_flymachines.cassettes.polls import without_offsets
from pytest_flymachines.cassettes.scopes import Scope, Scopes
from pytest_flymachines.cassettes.scrub import Scrubber
from pytest_flymachines.cassettes.tape import Asked, Blank, Playback
from pytest_flymachines.cassettes.transports import RecordingTransport, ReplayTransport
from pytest_flymachines.cassettes.variables import learn, may_have
from pytest_flymachines.cassettes.volatile import WEBSOCKET
from pytest_flymachines.errors import CassetteError
from pytest_flymachines.spec import SandboxSpec

__all__ = ["Mode", "Recorder"]

Mode = Literal["off", "once", "all", "replay"]


class Recorder:
    """Records or replays everything that goes through its transports. Thread-safe.

    Attributes:
        clock: What loops above the transports must use: virtual in replay.
        scrubber: Knows the secrets.
        identities: Knows the machines.
        scopes: Knows whose requests are made now.
        claims: Knows which process of the run writes and tells what.
        missed: Replay had no answer for some request of this process.
    """

    def __init__(
        self,
        directory: Path,
        *,
        mode: Mode,
        source: str = "",
        run_id: str = "",
        scrubber: Scrubber | None = None,
        rootdir: Path | None = None,
        shared: Path | None = None,
        command: Callable[[str], str] | None = None,
        note: str = "",
    ) -> None:
        """Make a recorder without any scope.

        Args:
            directory: Of the cassettes.
            mode: `replay`; `off`: requests just pass; `once` and `all`: they are recorded,
                with `once` only for owners that have no cassette yet.
            source: `live` or `local`: what is recorded from.
            run_id: Of this run; told in headers, so that a mixture of runs can be noticed.
            scrubber: Knows the secrets; by default those of the environment.
            rootdir: What local paths in specs are relative to.
            shared: A directory of this run, shared by its workers on this computer: what
                every worker records is written by one of them.
            command: Makes the command that records a test again from its node id.
            note: What else to tell with what was never recorded.
        """
        self.directory = directory
        self.mode = mode
        self.clock: Clock = ReplayClock() if mode == "replay" else SystemClock()
        self.scrubber = scrubber or Scrubber()
        self.identities = Identities()
        self._source = source
        self._run_id = run_id
        self._rootdir = rootdir
        self.claims = Claims(shared)
        self._journal = Journal(shared)
        self._command = command or _pytest_command
        self._persister = Persister(Blobs(directory / BLOBS), self.scrubber)
        self.scopes = Scopes(self._scope)
        self.misses = Misses(self.scopes, self._command, rootdir, note)
        self._written: dict[Path, int] = {}
        self._bodies = BodyCleaner(self.scrubber)
        self._swept = False

    # transports

    def transport(self, inner: Transport | None, *, service: str = "") -> Transport:
        """A transport whose requests are recorded or replayed.

        Args:
            inner: What answers; not used in replay, and handed back as it is in mode `off`.
            service: What answers, when it is neither the Machines API nor the agent, such as
                `port 8000`: its requests are told from theirs by this name.
        """
        if self.mode == "replay":
            return ReplayTransport(self, service)
        if inner is None:
            raise ValueError(f"a recorder in mode {self.mode!r} needs a transport that answers")
        return inner if self.mode == "off" else RecordingTransport(self, inner, service)

    # scopes

    def use(self, key: CassetteKey, **header: Any) -> contextlib.AbstractContextManager[Scope]:
        """Make `key` the owner of what is requested meanwhile, as `Scopes.use`."""
        return self.scopes.use(key, **header)

    def has(self, key: CassetteKey) -> bool:
        """Whether there is a cassette of `key`."""
        return (self.directory / key.path).exists()

    def provisioning(
        self, spec: SandboxSpec, *, machine: str = ""
    ) -> contextlib.AbstractContextManager[Scope]:
        """Make a spec the owner of the requests that this thread makes meanwhile.

        Args:
            spec: The spec.
            machine: Id of a machine that was there before, if none is made.
        """
        facts = self._clean_facts(spec)
        return self.use(CassetteKey.sandbox(spec, self._rootdir), spec=facts, machine=machine)

    def recorded_machine(self) -> str:
        """In a provisioning that is replayed: the machine that was there before, or empty."""
        scope = self.scopes.current()
        tape = self._tape(scope) if scope is not None else None
        return str(tape.header.get("machine", "")) if tape else ""

    def identify(self, spec: SandboxSpec | None, **facts: str) -> None:
        """Say which machine a spec has in this run.

        Not needed where this recorder saw it being created.

        Args:
            spec: The spec; None for a machine that was there before, which any spec may have.
            facts: `id`, and `private_ip`, `instance_id` and `name` where they are known.
        """
        alias = CassetteKey.sandbox(spec, self._rootdir).alias if spec else EXISTING
        self.identities.learn(alias, facts)

    # what goes through the transports

    def learn(self, scope: Scope, method: str, uri: str, response: dict[str, Any]) -> None:
        """Notice what is made, so that it can be recognized by who made it."""
        status, body = response["status"]["code"], response["body"]
        body = body["string"] if isinstance(body, dict) else body
        if isinstance(body, Kept):
            body = whole(body) if body.size <= LARGEST_JSON else b""
        path = target(uri).partition("?")[0]
        if facts := created(method, path, status, body):
            with scope.lock:
                scope.machines += 1
                many = "" if scope.machines == 1 or scope.key.kind == "sandbox" else scope.machines
            self.identities.learn(f"{scope.key.alias}{many and f'#{many}'}", facts)
        # what tests and provisionings start is known to nobody else
        elif scope.key.kind == "fixture" and (facts := started(method, path, status, body)):
            with scope.lock:
                number = scope.processes.setdefault(facts["process"], len(scope.processes) + 1)
            self.identities.learn(f"{scope.key.alias} process {number}", facts)

    def replay(self, method: str, uri: str, body: bytes = b"", service: str = "") -> dict[str, Any]:
        """The recorded answer to a request; its time has passed on this thread's clock.

        Raises:
            CassetteMiss: There is none.
            CassetteError: The cassette cannot be read.
        """
        self.learn_variables(body)  # while it was recorded these were secrets, too
        means = partial(
            meaning,
            method,
            self.scrubber.text(uri),
            self._bodies.clean(method, uri, body, service),
            service=service,
            rename=self.identities.rename,
        )
        asked = Asked(*without_offsets(means()), partial(means, at_length=True))
        scope = self.scopes.current()
        if scope is None:
            raise no_owner(asked.meaning)
        tape = self._tape(scope)
        response = tape.play(asked, self.clock) if tape else None
        if response is None:
            raise self.misses.of_answer(scope, asked.meaning)
        self.learn(scope, method, uri, response)
        return response

    def frames(self, path: str, connect: Callable[[], FrameSocket]) -> FrameSocket:
        """A WebSocket whose frames are recorded or replayed.

        Args:
            path: Path and query that it is opened at.
            connect: Opens it; not called in replay.

        Raises:
            CassetteMiss: There is none; a frame that was not recorded raises it in `send`.
        """
        uri = f"http://{WEBSOCKET}{target(path)}"
        scope = self.scopes.current()
        if self.mode == "replay":
            response = self.replay("GET", uri, service=WEBSOCKET)
            assert scope is not None
            return ReplayedSocket(
                response["body"],
                self.clock,
                partial(self.misses.of_frame, scope),
                lambda text: self.identities.rename(self.scrubber.text(text)),
            )
        socket = connect()
        if scope is None or scope.blank is None:
            return socket
        recorded = RecordedSocket(socket, self.clock)
        scope.blank.begin(VcrRequest("GET", uri, None, {})).so_far = recorded.response
        return recorded

    # the end

    def finish(self, key: CassetteKey, passed: bool) -> Scope | None:
        """End an owner: write its cassette if it `passed`, and forget it.

        Returns:
            The scope, for its misses and what it left unused; None if it was never entered.

        Raises:
            CassetteError: The cassette may not or cannot be written.
        """
        scope = self.scopes.forget(key)
        if scope is not None and passed:
            self.save(scope)
        return scope

    def save(self, scope: Scope) -> None:
        """Write what a scope has recorded so far, unless another worker does.

        Raises:
            CassetteError: The cassette may not or cannot be written; the old one is whole. Or it
                is to be kept, and cannot be replayed.
        """
        if scope.unkept:
            raise CassetteError(scope.unkept)
        if not scope.wanted or scope.blank is None or len(scope.blank) == scope.written:
            return
        with self.claims.turn(scope.key, again=bool(scope.written)) as mine:
            if mine:
                self._write(scope)

    def learn_variables(self, body: Any) -> None:
        """Take values of secret variables in what is sent for secrets, also if the test fails."""
        if isinstance(body, bytes) and may_have(body):
            learn(json_value(body), self.scrubber)
            if self.mode != "replay":
                self._journal.note(self.scrubber.learnt())

    def seen(self) -> Seen:
        """What this process has recorded, for a look at it when all secrets are known."""
        written = [(str(path), known) for path, known in self._written.items()]
        return Seen(self.scrubber.learnt(), written)

    def unused(self, scope: Scope) -> list[str]:
        """Recorded requests that a scope never made."""
        if self.mode != "replay":
            return []
        tape = self._tape(scope)
        return [request.meaning.short() for request in tape.unused()] if tape else []

    # helpers

    def _scope(self, key: CassetteKey, header: dict[str, Any]) -> Scope:
        path = self.directory / key.path
        wanted = self.mode == "all" or (self.mode == "once" and not path.exists())
        scope = Scope(key, path, {**key.header, **header}, wanted=wanted)
        # the machines that wider scopes make are recognized by these, also in other cassettes
        if wanted or (self.mode == "once" and key.kind != "test"):
            scope.blank = Blank(self.clock)
        if self.mode == "once" and not wanted:
            scope.unkept = self._unkept(key, path)
        return scope

    def _unkept(self, key: CassetteKey, path: Path) -> str:
        """Why a cassette that is there cannot be kept; empty if it can."""
        try:
            Playback(path, self._persister, self.identities)
        except CassetteError as error:
            command = self._command(key.label if key.kind == "test" else "")
            return (
                f"{error}\n--fly-record=once keeps the cassettes that are there. To have a new "
                f"one, delete {path}, or record with: {command}"
            )
        return ""

    def _tape(self, scope: Scope) -> Playback | None:
        with scope.lock:
            if scope.tape is None:
                loosely = scope.key.kind == "sandbox"
                with contextlib.suppress(CassetteNotFoundError):
                    scope.tape = Playback(
                        scope.path, self._persister, self.identities, loosely=loosely
                    )
            return scope.tape

    def _clean_facts(self, spec: SandboxSpec) -> dict[str, Any]:
        def clean_value(value: Any) -> Any:
            if isinstance(value, str):
                return self.scrubber.text(value)
            if isinstance(value, dict):
                return {name: clean_value(item) for name, item in value.items()}
            return [clean_value(item) for item in value] if isinstance(value, tuple) else value

        facts = spec_facts(spec, self._rootdir)
        return {name: clean_value(value) for name, value in facts.items()}

    def _write(self, scope: Scope) -> None:
        assert scope.blank is not None
        if not self._swept:
            self._swept = True
            sweep(self.directory)
        count = len(scope.blank)
        exchanges = scope.blank.exchanges()
        clean(exchanges, self.scrubber)
        learnt = self.scrubber.learnt()
        self._journal.note(learnt, scope.path)
        texts = (part for exchange in exchanges for part in _texts(*exchange))
        header = {
            "format": FORMAT,
            "recorded_by": f"pytest-flymachines {pytest_flymachines.__version__}",
            "mode": self._source,
            "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "run": self._run_id,
            **scope.header,
            "machines": self.identities.mentioned(texts),
        }
        cassette = {
            "requests": [request for request, _ in exchanges],
            "responses": [response for _, response in exchanges],
        }
        serializer = Serializer({name: value for name, value in header.items() if value})
        self._persister.save_cassette(scope.path, cassette, serializer)
        scope.written = count
        self._written[scope.path] = len(learnt)


def _texts(request: VcrRequest, response: dict[str, Any]) -> Iterator[bytes]:
    """What may name a machine; nothing that is too large for an answer about one."""
    yield request.uri.encode()
    for body in (request.body, response["body"]["string"]):
        if not isinstance(body, Kept) or body.size <= LARGEST_JSON:
            yield whole(body)


def _pytest_command(nodeid: str) -> str:
    return f"pytest {shlex.quote(nodeid)} --fly-record=all" if nodeid else "pytest --fly-record=all"
