from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pytest_flymachines._http import Request, Response, Transport
from pytest_flymachines.api.calls import EXTENSION, Call
from pytest_flymachines.api.pacing import JITTER_S, PacingTransport
from tests.api.server import StepClock


class Sink(Transport):
    """Notes when each request comes through."""

    def __init__(self, clock: StepClock) -> None:
        self.clock = clock
        self.times: list[float] = []

    def handle_request(self, request: Request) -> Response:
        self.times.append(self.clock.now)
        return Response(200)


Send = Callable[[Call | None], None]


@pytest.fixture
def sink(clock: StepClock) -> Sink:
    return Sink(clock)


@pytest.fixture(params=["alone", "shared"])
def send(request: pytest.FixtureRequest, sink: Sink, clock: StepClock, tmp_path: Path) -> Send:
    directory = tmp_path / "run" if request.param == "shared" else None
    transport = PacingTransport(sink, directory=directory, clock=clock)

    def send(call: Call | None) -> None:
        extensions = {EXTENSION: call} if call else {}
        transport.handle_request(Request("POST", "http://x/", extensions=extensions))

    return send


def test_an_action_runs_three_times_at_once_and_then_once_a_second(send: Send, sink: Sink) -> None:
    for _ in range(6):
        send(Call("exec", "m1"))
    later = [second + JITTER_S for second in (1, 2, 3)]
    assert [time - 1000 for time in sink.times] == pytest.approx([0, 0, 0, *later])


def test_a_pause_gives_the_burst_back(send: Send, sink: Sink, clock: StepClock) -> None:
    for _ in range(3):
        send(Call("exec", "m1"))
    clock.now += 10
    for _ in range(4):
        send(Call("exec", "m1"))
    expected = [0, 0, 0, 10, 10, 10, 11 + JITTER_S]
    assert [time - 1000 for time in sink.times] == pytest.approx(expected)


def test_what_is_urgent_does_not_wait_but_others_do_for_it(send: Send, sink: Sink) -> None:
    for _ in range(3):
        send(Call("exec", "m1"))
    send(Call("exec", "m1", urgent=True))
    send(Call("exec", "m1"))
    assert [time - 1000 for time in sink.times] == pytest.approx([0, 0, 0, 0, 2 + JITTER_S])


def test_reading_a_machine_runs_ten_times_at_once_and_then_five_times_a_second(
    send: Send, sink: Sink
) -> None:
    for _ in range(15):
        send(Call("get", "m1"))
    assert sink.times[9] == pytest.approx(sink.times[0], abs=1e-6)
    assert sink.times[14] - sink.times[9] == pytest.approx(1.0 + JITTER_S)


def test_machines_and_actions_are_counted_apart(send: Send, clock: StepClock) -> None:
    for machine in ("m1", "m2"):
        for action in ("exec", "wait", "stop"):
            for _ in range(3):
                send(Call(action, machine))
    assert clock.slept == []


def test_creations_are_counted_per_app(send: Send, clock: StepClock) -> None:
    for _ in range(4):
        send(Call("create", "app"))
    send(Call("create", "other"))
    assert clock.slept == [1.0 + JITTER_S]


def test_requests_to_others_are_not_paced(send: Send, clock: StepClock) -> None:
    """The agent's requests pass through the same transports."""
    for _ in range(50):
        send(None)
    assert clock.slept == []


def test_threads_share_one_pace(sink: Sink) -> None:
    waits: list[float] = []

    class Still(StepClock):
        def sleep(self, seconds: float) -> None:
            waits.append(seconds)

    transport = PacingTransport(sink, clock=Still())
    request = Request("POST", "http://x/", extensions={EXTENSION: Call("exec", "m")})
    threads = [threading.Thread(target=transport.handle_request, args=(request,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    later = [second + JITTER_S for second in range(1, 6)]
    assert sorted(waits) == pytest.approx([0, 0, 0, *later])


PROCESS = """
import sys
from pathlib import Path
from pytest_flymachines._http import Request, Response, Transport
from pytest_flymachines.api.calls import EXTENSION, Call
from pytest_flymachines.api.pacing import JITTER_S, PacingTransport

class Still:
    def monotonic(self):
        return 1000.0
    def sleep(self, seconds):
        print(seconds)

class Sink(Transport):
    def handle_request(self, request):
        return Response(200)

transport = PacingTransport(Sink(), directory=Path(sys.argv[1]), clock=Still())
request = Request("POST", "http://x/", extensions={EXTENSION: Call("exec", "m")})
print("ready", flush=True)
sys.stdin.readline()
for _ in range(100):
    transport.handle_request(request)
"""


def test_processes_share_one_pace(tmp_path: Path) -> None:
    """Workers of a run hit the same limits, so no two of them get the same turn."""
    command = [sys.executable, "-c", PROCESS, str(tmp_path / "run")]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    with ThreadPoolExecutor() as pool:
        outputs = list(pool.map(lambda p: p.communicate("go\n", timeout=60)[0], processes))
    waits = [float(line) for output in outputs for line in output.split()]
    assert [p.returncode for p in processes] == [0, 0, 0]
    later = [second + JITTER_S for second in range(1, 298)]
    assert sorted(waits) == pytest.approx([0, 0, 0, *later])


def test_a_writer_that_was_killed_does_not_stop_the_others(
    sink: Sink, clock: StepClock, tmp_path: Path
) -> None:
    (tmp_path / "pace.json").write_bytes(b'{"exec m": 10')
    transport = PacingTransport(sink, directory=tmp_path, clock=clock)
    request = Request("POST", "http://x/", extensions={EXTENSION: Call("exec", "m")})
    assert transport.handle_request(request).status_code == 200


def test_the_shared_file_forgets_what_is_over(sink: Sink, clock: StepClock, tmp_path: Path) -> None:
    transport = PacingTransport(sink, directory=tmp_path, clock=clock)
    for number in range(100):
        call = Call("exec", f"m{number}")
        transport.handle_request(Request("POST", "http://x/", extensions={EXTENSION: call}))
        clock.now += 2
    assert len((tmp_path / "pace.json").read_bytes()) < 100
