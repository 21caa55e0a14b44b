"""Schemathesis over the whole document, against the stand-alone emulator: `scripts/fuzz`.

Requests are generated from Fly's document: right ones, right ones that also pass validation, and
wrong ones. No answer may be a 5xx (but 501 for what is left out), none may be other than the
document says, and nothing may have failed in the background.

Schemathesis lies in a directory of its own (`scripts/fuzz` installs it), for its pytest plugin
would cost every pytest run of the suite a second.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import schemathesis
from hypothesis import HealthCheck, Phase, Verbosity
from hypothesis.errors import HypothesisException
from hypothesis.strategies import SearchStrategy
from schemathesis import GenerationMode

from pytest_flymachines.emulator.faults import STATES
from pytest_flymachines.emulator.launch import EmulatorProcess, launch
from tests.emulator.fuzz_shapes import plain, sharp
from tests.emulator.fuzz_world import World
from tests.emulator.openapi import validate_answer
from tests.emulator.schema import REQUEST_ID

#: Their answer may take a while; a request that waits has not failed.
SLOW = ("/wait", "/exec")
SLOW_S = 4.0
#: In the body of what a `status` fault answers.
INJECTED = b"injected fault"
BAD_DAY = (
    "status=503,probability=0.1",
    "status=500,when=after,probability=0.1",
    "delay=0.05,probability=0.2",
    "reset=before,probability=0.05",
    "reset=after,probability=0.05",
    "lost,probability=0.1",
    "slow-boot=0.3,probability=0.3",
    *(f"stuck={state},delay_s=0.3,probability=0.2" for state in STATES),
    "capacity,probability=0.1",
    "image-pull,probability=0.1",
    "death=0.05,probability=0.2",
    "death=0.05,path=*/machines/*,probability=0.2",
)


class Fuzz:
    """One run."""

    def __init__(
        self, emulator: EmulatorProcess, examples: int, seed: int, faults: Sequence[str] = ()
    ) -> None:
        self.world = World(emulator)
        self._control = httpx.Client(
            base_url=emulator.control_url, headers=self.world.http.headers, trust_env=False
        )
        self._faults = faults
        self._sent = 0
        self.statuses: dict[str, collections.Counter[int]] = collections.defaultdict(
            collections.Counter
        )
        self._examples = examples
        self._seed = seed

    def operation(self, label: str, strategy: SearchStrategy[Any]) -> None:
        """Send generated requests of one operation.

        Raises:
            AssertionError: An answer is wrong; the request is in the text.
        """

        @hypothesis.seed(self._seed)
        @hypothesis.settings(
            max_examples=self._examples,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            verbosity=Verbosity.quiet,
        )
        @hypothesis.given(strategy)
        def send_all(case: Any) -> None:
            self._send(label, case)

        send_all()
        self.world.tidy()

    def _send(self, label: str, case: Any) -> None:
        case.path_parameters = self.world.resolve(case.path_parameters)
        case.body = self.world.resolve(case.body)
        arguments = case.as_transport_kwargs(base_url=str(self.world.http.base_url) + "/v1")
        headers = {**arguments.pop("headers"), **self.world.http.headers}
        arguments.pop("cookies", None)
        if "data" in arguments:
            arguments["content"] = arguments.pop("data")
        try:
            with self._on_a_bad_day():
                response = self.world.http.request(
                    **arguments,
                    headers={name: str(value).encode("utf-8") for name, value in headers.items()},
                    timeout=SLOW_S if case.path.endswith(SLOW) else 60,
                )
        except httpx.ReadTimeout:
            assert case.path.endswith(SLOW), f"no answer within 60 s\n{case.as_curl_command()}"
            return
        except (httpx.ReadError, httpx.RemoteProtocolError):
            assert self._faults, f"no answer\n{case.as_curl_command()}"
            self.statuses[label][0] += 1
            return
        self.statuses[label][response.status_code] += 1
        try:
            _check(response)
        except Exception as error:  # noqa: BLE001 - with the request, whatever is wrong
            raise AssertionError(
                f"{error}\n  {case.as_curl_command()}\n  {response.status_code} {response.text}"
            ) from None

    @contextlib.contextmanager
    def _on_a_bad_day(self) -> Iterator[None]:
        """The faults are in force, for this request and what it sets going."""
        for number, fault in enumerate(self._faults):
            # Another chance each time, which the seed of the run decides.
            seed = self._seed * 1_000_000 + self._sent * 100 + number
            self._control.post("/faults", json={"spec": f"{fault},seed={seed}"}).raise_for_status()
        self._sent += 1
        try:
            yield
        finally:
            if self._faults:
                self._control.delete("/faults").raise_for_status()

    def close(self) -> None:
        """Let go of the connections."""
        self.world.close()
        self._control.close()


def _check(response: httpx.Response) -> None:
    injected = INJECTED in response.content
    assert response.status_code < 500 or response.status_code == 501 or injected, (
        "a failure of the server"
    )
    assert REQUEST_ID.match(response.headers["fly-request-id"]), "no request id"
    if response.headers.get("content-type", "").startswith("application/json"):
        path = response.request.url.raw_path.decode().split("?")[0]
        validate_answer(response.request.method, path, response.status_code, response.json())
    else:
        assert response.status_code == 404 or not response.content, "not JSON"


def operations(pattern: str) -> Iterator[tuple[str, SearchStrategy[Any]]]:
    """Every operation three times: plain, sharp, and wrong."""
    for document, mode in (
        (plain(), GenerationMode.POSITIVE),
        (sharp(), GenerationMode.POSITIVE),
        (plain(), GenerationMode.NEGATIVE),
    ):
        for found in schemathesis.openapi.from_dict(document).get_all_operations():
            operation = found.ok()
            if pattern in operation.label:
                yield operation.label, operation.as_strategy(generation_mode=mode)


def run(fuzz: Fuzz, pattern: str, say: Callable[[str], None]) -> int:
    """Fuzz what matches; the number of operations that failed."""
    failed = 0
    for label, strategy in operations(pattern):
        try:
            fuzz.operation(label, strategy)
        except HypothesisException:
            continue  # there is no wrong form of a request without parameters
        except AssertionError as error:
            failed += 1
            say(f"FAILED {label}: {error}\n")
        except Exception:  # noqa: BLE001 - the other operations are worth a try
            failed += 1
            say(f"FAILED {label}:\n{traceback.format_exc()}")
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--examples", type=int, default=40, help="requests of each kind (40)")
    parser.add_argument("--seed", type=int, default=0, help="other requests (0)")
    parser.add_argument("--only", default="", help="operations whose name has this text")
    parser.add_argument("--engine", default="auto", help="what runs the machines (auto)")
    parser.add_argument("--state", action="store_true", help="with its state on disk")
    parser.add_argument(
        "--bad-day", action="store_true", help="with faults of each kind, now and then"
    )
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log"
        state = Path(directory) / "state" if given.state else None
        with launch(engine=given.engine, apps=["fuzz"], log=log, state=state) as emulator:
            fuzz = Fuzz(emulator, given.examples, given.seed, BAD_DAY if given.bad_day else ())
            failed = run(fuzz, given.only, print)
            fuzz.close()
        lines = log.read_bytes().splitlines()  # only of bytes does it split at newlines alone
        failures = [line.decode() for line in lines if "failure" in json.loads(line)]
    for label, statuses in fuzz.statuses.items():
        print(f"{label:75} {' '.join(f'{s}:{n}' for s, n in sorted(statuses.items()))}")
    for line in failures:
        print("failed in the background:", line)
    sent = sum(statuses.total() for statuses in fuzz.statuses.values())
    print(
        f"{sent} requests to {len(fuzz.statuses)} operations in {time.monotonic() - began:.0f} s: "
        f"{failed} operations failed, {len(failures)} failures in the background"
    )
    return 1 if failed or failures else 0


if __name__ == "__main__":
    sys.exit(main())
