"""The client's side: what is sent again, what is compressed, and that requests stay the same."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import islice

import httpx
import pytest

from pytest_flymachines._clock import ReplayClock, SystemClock
from pytest_flymachines._http import (
    ConnectError,
    PoolTransport,
    ReadError,
    ReadTimeout,
    Request,
    Response,
    SyncByteStream,
    Transport,
)
from pytest_flymachines.agent.channel import AgentChannel
from pytest_flymachines.backend import PatientTransport
from pytest_flymachines.errors import AgentUnavailable, SandboxFileError
from pytest_flymachines.sandbox.channel import Channel, Command
from tests.agent.running import PREFIX, TOKEN, RunningAgent, eventually
from tests.agent.test_processes import run


class Flaky(Transport):
    """Fails in the ways that networks do, a given number of times for each request."""

    def __init__(self, inner: Transport, *, before: int = 0, after: int = 0, cut: int = 0) -> None:
        self.inner = inner
        self.before, self.after, self.cut = before, after, cut
        self.requests = 0

    def handle_request(self, request: Request) -> Response:
        self.requests += 1
        if self.before:
            self.before -= 1
            raise ConnectError("refused")
        response = self.inner.handle_request(request)
        if self.after:
            self.after -= 1
            response.close()
            raise ReadError("reset")
        if self.cut:
            self.cut -= 1
            stream = Cut(response)
            return Response(response.status_code, headers=response.headers.raw, stream=stream)
        return response


class Cut(SyncByteStream):
    """The first pieces of a body, then a reset."""

    def __init__(self, response: Response) -> None:
        self.response = response

    def __iter__(self) -> Iterator[bytes]:
        yield from islice(self.response.iter_raw(), 2)
        raise ReadError("reset")

    def close(self) -> None:
        self.response.close()


@contextmanager
def flaky_channel(
    agent: RunningAgent, **faults: int
) -> Iterator[tuple[AgentChannel, Flaky, ReplayClock]]:
    clock = ReplayClock()
    with closing(PoolTransport()) as pool:
        transport = Flaky(pool, **faults)
        channel = AgentChannel(
            transport, base_url=agent.url, app="app", machine_id="m1", token=TOKEN, clock=clock
        )
        yield channel, transport, clock


def test_a_request_that_was_never_sent_is_sent_again(agent: RunningAgent) -> None:
    with flaky_channel(agent, before=2) as (channel, transport, clock):
        assert run(channel, "echo", "hi").stdout == b"hi\n"
        assert (transport.requests, clock.monotonic()) == (3, 0.6)


def test_a_start_whose_answer_was_lost_is_not_repeated(agent: RunningAgent) -> None:
    with flaky_channel(agent, after=1) as (channel, transport, _):
        with pytest.raises(AgentUnavailable, match=r"POST /exec.*reset"):
            run(channel, "true")
        assert transport.requests == 1


def test_a_poll_whose_answer_was_lost_is_repeated(
    agent: RunningAgent, channel: AgentChannel
) -> None:
    started = channel.start(Command(argv=[b"echo", b"hi"]), wait_s=20, forget=False)
    with flaky_channel(agent, after=2) as (flaky, transport, _):
        update = flaky.poll(started.id, stdout=0, stderr=0, wait_s=5, forget=True)
        assert (update.stdout, transport.requests) == (b"hi\n", 3)


def test_a_read_that_is_cut_goes_on_from_there(agent: RunningAgent) -> None:
    data = os.urandom(5 << 20)
    (agent.base / "cut").write_bytes(data)
    with flaky_channel(agent, cut=2) as (channel, transport, _):
        assert b"".join(channel.read(b"cut")) == data
        assert transport.requests == 3
    with flaky_channel(agent, cut=2) as (channel, transport, _):
        assert b"".join(channel.read(b"cut", offset=7, size=4_000_000)) == data[7:4_000_007]


def test_a_read_that_is_cut_does_not_go_on_in_another_file(agent: RunningAgent) -> None:
    (agent.base / "swapped").write_bytes(bytes(5 << 20))
    with flaky_channel(agent, cut=1) as (channel, _, _):
        pieces = channel.read(b"swapped")
        next(pieces)
        (agent.base / "other").write_bytes(b"x" * (5 << 20))
        (agent.base / "other").rename(agent.base / "swapped")
        with pytest.raises(SandboxFileError, match="replaced while it was read"):
            list(pieces)


def test_a_tree_that_is_cut_is_an_error(agent: RunningAgent) -> None:
    (agent.base / "cut-tree").mkdir()
    (agent.base / "cut-tree" / "f").write_bytes(os.urandom(5 << 20))
    broken = pytest.raises(AgentUnavailable, match="download of cut-tree")
    with flaky_channel(agent, cut=1) as (channel, _, _), broken:
        list(channel.get_tree(b"cut-tree"))


def test_an_upload_is_repeated_whole(agent: RunningAgent) -> None:
    data = os.urandom(10 << 20)
    with flaky_channel(agent, after=1) as (channel, transport, _):
        pieces = (data[at : at + 100_000] for at in range(0, len(data), 100_000))
        assert channel.write(b"again", pieces, mode=None, parents=False) == len(data)
        assert transport.requests == 2
        assert (agent.base / "again").read_bytes() == data


class Source:
    """Ten megabytes that can be read again; counts how often it was begun and what was taken."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.pieces = [os.urandom(100_000) for _ in range(100)]
        self.fails_at = fails_at
        self.begun = self.taken = 0

    def __iter__(self) -> Iterator[bytes]:
        self.begun += 1
        for number, piece in enumerate(self.pieces):
            if number == self.fails_at:
                raise RuntimeError("the source broke")
            self.taken += 1
            yield piece


def test_what_can_be_read_again_is_sent_while_it_is_read(agent: RunningAgent) -> None:
    source, data = Source(), []

    class Watching(Transport):
        def handle_request(self, request: Request) -> Response:
            assert isinstance(request.stream, SyncByteStream)
            data.append(b"".join(request.stream) if source.taken < 15 else b"read ahead")
            return Response(200, headers={"content-type": "application/json"}, content='{"size":1}')

    channel = AgentChannel(
        Watching(),
        base_url=agent.url,
        app="app",
        machine_id="m1",
        token=TOKEN,
        clock=ReplayClock(),
    )
    channel.write(b"file", source, mode=None, parents=False)
    whole = b"".join(source.pieces)
    assert data == [whole + hashlib.sha256(whole).hexdigest().encode()]
    assert source.begun == 1


def test_what_can_be_read_again_is_when_the_answer_was_lost(agent: RunningAgent) -> None:
    source = Source()
    with flaky_channel(agent, after=1) as (channel, transport, _):
        channel.write(b"read-again", source, mode=None, parents=False)
        assert (transport.requests, source.begun) == (2, 2)
    assert (agent.base / "read-again").read_bytes() == b"".join(source.pieces)


def test_a_source_that_breaks_late_leaves_the_file_as_it_was(
    agent: RunningAgent, channel: AgentChannel
) -> None:
    (agent.base / "kept").write_text("before")
    with pytest.raises(RuntimeError, match="the source broke"):
        channel.write(b"kept", Source(fails_at=60), mode=None, parents=False)
    assert (agent.base / "kept").read_text() == "before"
    eventually(lambda: not list(agent.base.glob(".flymachines-*")))
    assert "Traceback" not in agent.log()


def test_the_channel_is_one_and_hides_its_token(channel: AgentChannel) -> None:
    as_protocol: Channel = channel  # checked by mypy
    assert as_protocol.name == "agent"
    shown = repr(channel) + repr(vars(channel)) + repr(vars(channel._client))
    assert TOKEN not in shown
    assert "m1" in shown


def answering(*answers: tuple[int, str, str]) -> Transport:
    """A transport with answers of proxies."""
    pending = list(answers)

    class Canned(Transport):
        def handle_request(self, request: Request) -> Response:
            status, kind, text = pending.pop(0)
            return Response(status, headers={"content-type": kind}, content=text.encode())

    return Canned()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((502, "text/html", "<h1>Bad gateway"), "502: '<h1>Bad gateway'"),
        ((404, "text/plain", ""), "404"),
        ((503, "application/json", "{"), "503"),
        ((401, "application/json", '{"error": "no"}'), "refuses the token"),
    ],
)
def test_a_proxys_answer_is_not_taken_for_the_agents(
    answer: tuple[int, str, str], words: str
) -> None:
    channel = AgentChannel(
        answering(answer),
        base_url="http://app.test",
        app="app",
        machine_id="m1",
        token=TOKEN,
        clock=ReplayClock(),
    )
    with pytest.raises(AgentUnavailable) as caught:
        channel.stat(b"x")
    message = str(caught.value)
    assert words in message
    assert "machine m1" in message
    assert "http://app.test" in message
    assert TOKEN not in message


def test_compression_over_a_network(agent: RunningAgent) -> None:
    """Only where bytes leave this computer; so the agent is called by another name here."""

    class Renamed(Transport):
        def __init__(self) -> None:
            self.inner = PoolTransport()
            self.seen: list[tuple[str | None, str | None]] = []

        def handle_request(self, request: Request) -> Response:
            request.url = httpx.URL(agent.url + request.url.raw_path.decode())
            response = self.inner.handle_request(request)
            encodings = (m.headers.get("content-encoding") for m in (request, response))
            self.seen.append((next(encodings), next(encodings)))
            return response

    transport = Renamed()
    channel = AgentChannel(
        transport,
        base_url="https://app.fly.test",
        host="app.fly.dev",
        app="app",
        machine_id="m1",
        token=TOKEN,
        clock=ReplayClock(),
    )
    text = b"compressible " * 300_000
    channel.write(b"text", [text], mode=None, parents=False)
    assert b"".join(channel.read(b"text")) == text
    noise = os.urandom(3 << 20)
    channel.write(b"noise", [noise], mode=None, parents=False)
    assert b"".join(channel.read(b"noise")) == noise
    assert transport.seen == [("gzip", None), (None, "gzip"), (None, None), (None, None)]
    tar = b"".join(channel.get_tree(b"text"))
    channel.put_tree(b"tree", [tar])
    assert (agent.base / "tree" / "text").read_bytes() == text
    assert transport.seen[4:] == [(None, "gzip"), ("gzip", None)]
    transport.inner.close()


def test_requests_are_the_same_each_time(agent: RunningAgent) -> None:
    """No clock, no random name, nothing of this computer: a cassette must find them again."""

    class Noting(Transport):
        def __init__(self) -> None:
            self.inner = PoolTransport()
            self.seen: list[tuple[str, str, bytes]] = []

        def handle_request(self, request: Request) -> Response:
            self.seen.append((request.method, str(request.url), request.read()))
            assert request.headers["fly-force-instance-id"] == "m1"
            assert request.headers["host"] == "app.fly.dev"
            return self.inner.handle_request(request)

    def session(base: bytes) -> list[tuple[str, str, bytes]]:
        transport = Noting()
        channel = AgentChannel(
            transport,
            base_url=agent.url,
            host="app.fly.dev",
            app="app",
            machine_id="m1",
            token=TOKEN,
            clock=ReplayClock(),
            base=base,
        )
        channel.write(b"\xff/f", [b"1"], mode=0o600, parents=True)
        run(
            channel,
            "env",
            env={"A": "1"},
            cwd=b"\xff",
            user=str(os.getuid()),
            stdin=b"\xfe",
            timeout_s=9,
        )
        list(channel.get_tree(b".", exclude=["x"]))
        channel.walk(b".", ["**", "f"])
        transport.inner.close()
        return transport.seen

    first, second = session(b"same"), session(b"same")
    assert first == second
    assert [line[1].removeprefix(agent.url + PREFIX) for line in first] == [
        "/agent/files?path=same/%FF/f&mode=384&parents=1",
        "/exec",
        "/agent/trees/get",
        "/agent/files/walk",
    ]
    assert json.loads(first[1][2]) == {
        "command": ["env"],
        "cwd": {"base64": "c2FtZS//"},
        "env": {"A": "1"},
        "user": str(os.getuid()),
        "stdin": {"base64": "/g=="},
        "timeout": 9,
        "wait_s": 30,
        "forget": True,
    }


class Starting(Transport):
    """A proxy that reads a whole request before it finds nobody behind it, two times."""

    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self.refusals = 2

    def handle_request(self, request: Request) -> Response:
        if not self.refusals:
            return self.inner.handle_request(request)
        self.refusals -= 1
        assert isinstance(request.stream, SyncByteStream)
        assert b"".join(request.stream)
        return Response(503, content=b"nobody listens yet")


def test_an_upload_while_the_agent_starts_is_sent_again_whole(agent: RunningAgent) -> None:
    with closing(PoolTransport()) as pool:
        transport = PatientTransport(Starting(pool), SystemClock())
        clock = ReplayClock()
        channel = AgentChannel(
            transport, base_url=agent.url, app="app", machine_id="m1", token=TOKEN, clock=clock
        )
        pieces = iter([b"x" * 70_000, b"y"])
        assert channel.write(b"early", pieces, mode=None, parents=False) == 70_001
        assert (agent.base / "early").read_bytes() == b"x" * 70_000 + b"y"


@pytest.mark.parametrize("status", [503, 0], ids=["the proxy says so", "refused"])
def test_an_agent_that_will_never_come_is_not_waited_for(status: int) -> None:
    class Nobody(Transport):
        def handle_request(self, request: Request) -> Response:
            if not status:
                raise ConnectError("refused")
            return Response(status, content=b"nobody listens")

    clock = ReplayClock()
    asked: list[float] = []

    def hopeless() -> bool:
        asked.append(clock.monotonic())
        return len(asked) == 3

    transport = PatientTransport(Nobody(), clock)
    channel = AgentChannel(
        transport, base_url="http://x", app="app", machine_id="m1", token=TOKEN, clock=clock
    )
    with transport.unless("m1", hopeless), pytest.raises(AgentUnavailable):
        channel.mkdir(b"x", mode=0o755, parents=False, exist_ok=False)
    assert [round(at) for at in asked] == [1, 2, 3]
    assert clock.monotonic() < 6


class Holding(Transport):
    """A proxy that holds requests until somebody listens, and counts what comes through."""

    def __init__(self, clock: ReplayClock, inner: Transport | None) -> None:
        self.clock = clock
        self.inner = inner
        self.held = 3
        self.asked: list[str] = []

    def handle_request(self, request: Request) -> Response:
        self.asked.append(f"{request.method} {request.url.path}")
        if self.inner and not self.held:
            return self.inner.handle_request(request)
        self.held -= 1
        read_s = request.extensions["timeout"]["read"]
        self.clock.advance(min(read_s, 5.0))
        if read_s < 5.0:
            raise ReadTimeout("timed out", request=request)
        return Response(502, content=b"nobody listens")


HEALTH = "GET /v1/apps/app/machines/m1/agent/health"


def test_a_proxy_that_waits_for_a_listener_does_not_hide_that_none_will_come() -> None:
    clock = ReplayClock()
    proxy = Holding(clock, None)
    transport = PatientTransport(proxy, clock)
    channel = AgentChannel(
        transport, base_url="http://x", app="app", machine_id="m1", token=TOKEN, clock=clock
    )
    with transport.unless("m1", lambda: True), pytest.raises(AgentUnavailable):
        channel.start(Command(argv=[b"true"]), wait_s=1, forget=True)
    assert proxy.asked == [HEALTH]
    assert clock.monotonic() < 2


def test_what_may_not_be_sent_twice_is_sent_once_the_agent_answers(agent: RunningAgent) -> None:
    clock = ReplayClock()
    with closing(PoolTransport()) as pool:
        proxy = Holding(clock, pool)
        transport = PatientTransport(proxy, clock)
        channel = AgentChannel(
            transport, base_url=agent.url, app="app", machine_id="m1", token=TOKEN, clock=clock
        )
        with transport.unless("m1", lambda: False):
            assert channel.start(Command(argv=[b"true"]), wait_s=9, forget=True).exit_code == 0
            assert channel.start(Command(argv=[b"true"]), wait_s=9, forget=True).exit_code == 0
    start = "POST /v1/apps/app/machines/m1/exec"
    assert proxy.asked == [HEALTH] * 4 + [start] * 2
