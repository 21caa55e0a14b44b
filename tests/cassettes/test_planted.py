"""A secret that is planted anywhere, in any spelling, over both ways into a real machine."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pytest_flymachines._http import Transport
from pytest_flymachines.api import MachinesClient
from pytest_flymachines.cassettes import CassetteKey, Recorder, Scrubber
from pytest_flymachines.errors import CassetteError
from pytest_flymachines.sandbox import Sandbox
from pytest_flymachines.spec import SandboxSpec
from tests.cassettes.spellings import SPELLINGS
from tests.cassettes.views import is_telling, parts_of, recorded
from tests.sandbox.world import APP, World, open_world

TEST = CassetteKey.test("test_a.py::test_x")
SPEC = SandboxSpec(app=APP, auto_destroy=False)
PIECE = 1 << 20


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


# what stands before: nothing, or so much that the end of a piece is near
BEFORE: dict[str, Callable[[int], bytes]] = {
    "nothing": lambda at: b"",
    "noise": lambda at: noise(8000 + at),
    "text to the end of a piece": lambda at: b"a line\n" * (PIECE // 7) + b"." * (PIECE % 7 - at),
}


def command(sandbox: Sandbox, data: bytes, directory: Path) -> bytes:
    return sandbox.exec(["printf", "%s", data.replace(b"\0", b"")]).stdout_bytes


def variables(sandbox: Sandbox, data: bytes, directory: Path) -> bytes:
    value = data.replace(b"\0", b"").decode("utf-8", "surrogateescape")
    return sandbox.exec("env", env={"LEVEL": value, "DEPLOY_TOKEN": value}).stdout_bytes


def stdin(sandbox: Sandbox, data: bytes, directory: Path) -> bytes:
    return sandbox.exec("cat", stdin=data).stdout_bytes


def file(sandbox: Sandbox, data: bytes, directory: Path) -> bytes:
    sandbox.write_file("file", data)
    return sandbox.exec("sha256sum file; rm file").stdout_bytes


def read(sandbox: Sandbox, data: bytes, directory: Path) -> bytes:
    return sandbox.read_file("there/file")


def output(sandbox: Sandbox, data: bytes, directory: Path) -> bytes:
    return sandbox.exec("cat there/file").stdout_bytes


def sent_tree(sandbox: Sandbox, data: bytes, directory: Path) -> bytes:
    sandbox.upload(directory, "sent")
    return sandbox.exec("cat sent/file; rm -r sent").stdout_bytes


def fetched_tree(sandbox: Sandbox, data: bytes, directory: Path) -> bytes:
    sandbox.download("there", directory / "back")
    return (directory / "back" / "file").read_bytes()


PLACES = (command, variables, stdin, file, read, output, sent_tree, fetched_tree)


@dataclass
class Machine:
    world: World
    name: str

    def run(
        self,
        recorder: Recorder,
        way: str,
        place: Callable[[Sandbox, bytes, Path], bytes],
        data: bytes,
    ) -> bytes:
        """Do the same in a recording and in a replay."""
        transport: Transport = recorder.transport(
            None if recorder.mode == "replay" else self.world.transport
        )
        token, url = self.world.emulator.token, self.world.emulator.api_url
        client = MachinesClient(token, base_url=url, pace=False, transport=transport)
        world = World(self.world.emulator, client, transport)  # type: ignore[arg-type]
        with tempfile.TemporaryDirectory() as scratch:
            directory = Path(scratch) / "tree"
            directory.mkdir()
            (directory / "file").write_bytes(data)
            if recorder.mode != "replay":
                plain = self.world.sandbox("agent", self.name, SPEC)
                plain.upload(directory, "there")
            with recorder.use(TEST):
                got = place(world.sandbox(way, self.name, SPEC), data, directory)
            if recorder.mode != "replay":
                plain.remove("there", recursive=True)
        return got


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with open_world("process") as world:
        yield Machine(world, world.machine(SPEC, "planted"))


SECRETS = st.text("abcdefghijkXYZ0123456789+/=_-&%!$ '\"\\\u00e9", min_size=24, max_size=40).filter(
    is_telling
)


def refusal(recorder: Recorder) -> str:
    """What is said if the recording may not be written."""
    try:
        recorder.finish(TEST, passed=True)
    except CassetteError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("way", ["agent", "api"])
@settings(
    max_examples=int(os.environ.get("PLANTED_EXAMPLES", "5")),
    deadline=None,
    derandomize="PLANTED_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    secret=SECRETS,
    spelling=st.sampled_from(list(SPELLINGS)),
    place=st.sampled_from(PLACES),
    before=st.sampled_from(list(BEFORE)),
    at=st.integers(1, 60),
)
@example(
    secret="fo1_pl4nted/s3cret+value=and-more",
    spelling="quoted-printable",
    place=stdin,
    before="nothing",
    at=1,
)
def test_not_half_of_a_secret_is_on_the_disk_or_the_save_is_refused(
    machine: Machine,
    tmp_path: Path,
    way: str,
    secret: str,
    spelling: str,
    place: Callable[[Sandbox, bytes, Path], bytes],
    before: str,
    at: int,
) -> None:
    if place in (command, variables):
        before = "nothing"
    directory = tmp_path / "cassettes"
    shutil.rmtree(directory, ignore_errors=True)
    raw = secret.encode()
    data = BEFORE[before](at) + SPELLINGS[spelling](raw) + b"\nand after it"
    known = {"FLY_API_TOKEN": secret}
    recorder = Recorder(directory, mode="all", scrubber=Scrubber(environ=known))
    live = machine.run(recorder, way, place, data)
    if refused := refusal(recorder):
        assert "FLY_API_TOKEN" in refused
        assert not parts_of(raw, refused.encode())
        assert not list(directory.rglob("*.yaml"))
        return
    for name, found in recorded(directory):
        assert not parts_of(raw, found), f"in {name}"
    replayer = Recorder(directory, mode="replay", scrubber=Scrubber(environ=known))
    again = machine.run(replayer, way, place, data)
    assert not parts_of(raw, again)
    assert len(again) == len(live)
