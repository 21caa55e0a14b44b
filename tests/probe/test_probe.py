"""The probe against the emulator: as it is, with faults, ended in the middle."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from pytest_flymachines.emulator.launch import EmulatorProcess
from pytest_flymachines.marks import RUN_KEY
from tests.probe.world import ORG, SCRIPT, TOKEN, Probing, arm, client, fly, made

IN_ORG = f"--org={ORG}"


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorProcess]:
    with fly() as process:
        yield process


@pytest.fixture(scope="module", autouse=True)
def whole(emulator: EmulatorProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probing]:
    """Every check; it is at work while the other tests are."""
    proxy = f"--proxy-url={emulator.proxy_url}"
    probing = Probing(emulator, tmp_path_factory.mktemp("whole"), IN_ORG, proxy)
    yield probing
    probing.kill()


def only(*names: str) -> list[str]:
    return [f"--only={name}" for name in names]


def test_differences_are_found_told_and_counted(emulator: EmulatorProcess, tmp_path: Path) -> None:
    app = "deviating"
    arm(emulator, f"status=400,method=GET,path=/v1/apps/{app}/*/wait,body=instance_id required")
    arm(emulator, f"status=500,method=POST,path=/v1/apps/{app}/*/cordon,body=unknown: no")
    names = ("waits.there_already", "machines.cordon", "machines.metadata", "waits.unknown_state")
    done = Probing(emulator, tmp_path, IN_ORG, f"--app={app}", *only(*names)).end()
    assert made(emulator, app) == []
    assert done.code == 1, done.output
    assert done.named("differs") == ["machines.cordon", "waits.there_already"]
    assert done.named("same") == ["machines.metadata", "waits.unknown_state"]
    assert "waits.there_already: status: expected 200, observed 400" in done.output
    [first, second] = [item for item in done.data["checks"] if item["verdict"] == "differs"]
    assert first["differences"][0] == {"what": "status", "expected": 200, "observed": 500}
    assert second["exchanges"][-1]["body"] == '{"error":"instance_id required"}'


def test_a_hiccup_is_no_difference(emulator: EmulatorProcess, tmp_path: Path) -> None:
    app = "hiccup"
    arm(emulator, f"status=502,path=/v1/apps/{app}/*/memory,count=1")
    arm(emulator, f"reset=before,path=/v1/apps/{app}/*/cordon,count=1")
    arm(emulator, f"status=429,path=/v1/apps/{app}/*/ps,count=2")
    names = ("machines.memory", "machines.cordon", "machines.processes")
    done = Probing(emulator, tmp_path, IN_ORG, f"--app={app}", *only(*names)).end()
    assert done.code == 0, done.output
    assert done.named("same") == ["machines.cordon", "machines.processes"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_whatever_ends_it_everything_is_destroyed(
    emulator: EmulatorProcess, tmp_path: Path, number: int
) -> None:
    app = f"ended-by-{number}"
    arm(emulator, f"slow-boot=1,app={app}")
    areas = only("lifecycle", "volumes", "execs", "leases")
    probing = Probing(emulator, tmp_path, IN_ORG, f"--app={app}", *areas)
    probing.until(lambda: len(made(emulator, app)) > 4)
    done = probing.end(number)
    assert made(emulator, app) == []
    assert done.code == 130, done.output
    assert "everything that was made is destroyed first" in done.output
    assert len(done.verdicts()) > 40
    assert "the probe was ended before" in {item.get("why") for item in done.data["checks"]}


def test_a_second_interrupt_says_what_is_left(emulator: EmulatorProcess, tmp_path: Path) -> None:
    arm(emulator, "delay=60,method=DELETE,path=/v1/apps/hurried/machines/*")
    probing = Probing(emulator, tmp_path, IN_ORG, "--app=hurried", *only("leases"))
    probing.until(lambda: len(made(emulator, "hurried")) > 1)
    probing.process.send_signal(signal.SIGINT)
    probing.until(lambda: "destroying 1 machine(s)" in probing.log.read_text())
    done = probing.end(signal.SIGINT)
    assert done.code == 3, done.output
    assert re.search(r"reap --run probe-\w+ -a hurried, then fly apps destroy", done.output)


def test_a_machine_whose_create_was_not_answered_is_destroyed(
    emulator: EmulatorProcess, tmp_path: Path
) -> None:
    app = "lossy"
    arm(emulator, f"lost,method=POST,path=/v1/apps/{app}/machines")
    done = Probing(emulator, tmp_path, IN_ORG, f"--app={app}", *only("machines.cordon")).end()
    assert made(emulator, app) == []
    assert done.code == 0, done.output
    [item] = done.data["checks"]
    assert (item["verdict"], "RemoteProtocolError" in item["why"]) == ("not run", True)
    assert "destroying 2 machine(s)" in done.output


def test_what_a_killed_probe_leaves_ends_by_itself_and_is_found_by_reap(
    emulator: EmulatorProcess, tmp_path: Path
) -> None:
    with client(emulator) as api:
        api.create_app("killed", ORG)
        probing = Probing(emulator, tmp_path, "--app=killed", *only("patience"))
        probing.until(lambda: [m for m in api.list_machines("killed") if m.state == "started"])
        probing.kill()
        [machine] = api.list_machines("killed")
    assert machine.config is not None
    assert machine.config["init"]["exec"] == ["/bin/sleep", "600"]
    assert machine.config["restart"]["policy"] == "no"
    run = machine.metadata[RUN_KEY]
    reap = ["reap", f"--api-url={emulator.api_url}", "-a", "killed", "--run", run, "--yes"]
    environ = os.environ | {"FLY_API_TOKEN": emulator.token}
    done = subprocess.run([*SCRIPT, *reap], env=environ, capture_output=True, text=True, timeout=60)
    assert "destroyed 1, left 0" in done.stdout, done.stdout + done.stderr


def test_what_cannot_be_destroyed_is_named_with_the_command_that_does(
    emulator: EmulatorProcess, tmp_path: Path
) -> None:
    with client(emulator) as api:
        api.create_app("sticky", ORG)
    arm(emulator, "status=412,method=DELETE,path=/v1/apps/sticky/machines/*,body=no")
    done = Probing(emulator, tmp_path, "--app=sticky", *only("machines.cordon")).end()
    assert done.code == 3, done.output
    left = r"LEFT: machine \w{14} in sticky \(.*\(DELETE .*: pytest-flymachines reap --run probe-"
    assert re.search(left, done.output)
    assert done.data["left"]


def test_in_an_app_that_exists_nothing_else_is_touched(
    emulator: EmulatorProcess, tmp_path: Path
) -> None:
    with client(emulator) as api:
        api.create_app("theirs", ORG)
        theirs = api.create_machine("theirs", {"image": "alpine"}, name="theirs", skip_launch=True)
        names = ("apps", "contents.secrets", "machines.unique_name")
        done = Probing(emulator, tmp_path, "--app=theirs", *only(*names)).end()
        assert [machine.id for machine in api.list_machines("theirs")] == [theirs.id]
    assert done.code == 0, done.output
    assert set(done.named("same")) == {"apps.read", "apps.listed", "machines.unique_name"}
    assert "contents.secrets" in done.named("not run")
    assert "theirs" not in done.report.read_text()


def test_without_consent_nothing_is_made(emulator: EmulatorProcess, tmp_path: Path) -> None:
    done = Probing(emulator, tmp_path, IN_ORG, "--app=unwanted", yes=False).end()
    assert (done.code, done.report.exists()) == (2, False)
    assert re.search(r"Estimated cost: about \$0\.00\d\d", done.output)
    assert re.search(r"at most \$0\.0[01]\d\d", done.output)
    assert "nothing was made; answer y, or say --yes" in done.output
    assert made(emulator, "unwanted") == []


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ([], "say where: --org SLUG"),
        (["--app=nobodys"], "app 'nobodys' does not exist, and without --org none can be made"),
        ([IN_ORG, "--only=colours"], "expected an area (apps, contents"),
        ([IN_ORG, "--report=/no/such/dir/r.json"], "/no/such/dir is no directory"),
        ([IN_ORG, "--api-url=http://127.0.0.1:9"], "Check the network, or --api-url"),
        ([IN_ORG, "--api-url=api.machines.dev"], "expected a URL"),
    ],
)
def test_bad_input_is_refused_before_anything_is_made(
    emulator: EmulatorProcess, tmp_path: Path, args: list[str], text: str
) -> None:
    done = Probing(emulator, tmp_path, *args).end()
    assert done.code == 2
    assert text in done.output


class AnswersEverything(BaseHTTPRequestHandler):
    """A server of something else: a catch-all page, a captive portal, a stub."""

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.asked.append(f"{self.command} {self.path}")  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - http.server calls them

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("where", [["--app=mine"], [IN_ORG], [IN_ORG, "--app=mine"]])
def test_a_server_that_says_yes_to_everything_is_refused(tmp_path: Path, where: list[str]) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), AnswersEverything) as server:
        server.asked = []  # type: ignore[attr-defined]
        Thread(target=server.serve_forever).start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            environ = {k: v for k, v in os.environ.items() if not k.startswith("FLY_")}
            done = subprocess.run(
                [*SCRIPT, "probe", f"--api-url={url}", f"--proxy-url={url}", *where, "--yes"],
                capture_output=True,
                text=True,
                env=environ | {"FLY_API_TOKEN": TOKEN},
                cwd=tmp_path,
                timeout=60,
            )
        finally:
            server.shutdown()
    assert done.returncode == 2, done.stdout
    assert "this is no server of the Machines API" in done.stderr
    assert not [asked for asked in server.asked if not asked.startswith("GET")]  # type: ignore[attr-defined]


def test_a_token_that_is_not_good_is_told_how_to_get_one(
    emulator: EmulatorProcess, tmp_path: Path
) -> None:
    arm(emulator, "status=403,path=/v1/apps/forbidden,body=unauthorized")
    done = Probing(emulator, tmp_path, "--app=forbidden").end()
    assert done.code == 2
    assert "the token is not good for app forbidden" in done.output
    assert "fly tokens create deploy" in done.output


def test_a_token_that_may_not_make_an_app_is_told_which_may(
    emulator: EmulatorProcess, tmp_path: Path
) -> None:
    fault = "status=403,method=POST,path=/v1/apps,count=1,body=forbidden: read-only token"
    arm(emulator, fault)
    done = Probing(emulator, tmp_path, IN_ORG).end()
    assert done.code == 2
    assert f"the token may not make an app in organization {ORG}" in done.output
    assert "read-only tokens will not do" in done.output


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        ("capacity,app={}", "There is no room where it was tried: name another region"),
        (
            "status=403,method=POST,path=/v1/apps/{}/machines,body=forbidden: read-only token",
            "read-only tokens will not do",
        ),
        (
            "status=422,method=POST,path=/v1/apps/{}/machines,body=add a payment method",
            "The organization needs a way to pay",
        ),
    ],
)
def test_where_no_machine_can_be_made_it_gives_up_and_says_what_to_do(
    emulator: EmulatorProcess, tmp_path: Path, fault: str, advice: str
) -> None:
    app = f"barren-{advice.split()[1].lower()}"
    arm(emulator, fault.format(app))
    areas = only("machines", "updates")
    done = Probing(emulator, tmp_path, IN_ORG, f"--app={app}", *areas).end()
    assert done.code == 2, done.output
    assert "no machine can be made here: create answered" in done.output
    assert advice in done.output
    assert advice in done.data["advice"]
    assert "stamina" not in done.output
    assert made(emulator, app) == []


def test_an_answer_that_was_lost_does_not_spoil_what_follows(
    emulator: EmulatorProcess, tmp_path: Path
) -> None:
    """A lease was granted that nobody knows of."""
    arm(emulator, "lost,method=POST,path=/v1/apps/half-heard/*/lease,count=1")
    arm(emulator, "status=502,method=DELETE,path=/v1/apps/half-heard,count=1")
    names = only("leases.acquire", "leases.ttl_in_body")
    done = Probing(emulator, tmp_path, IN_ORG, "--app=half-heard", *names).end()
    assert done.code == 0, done.output
    assert done.named("not run") == done.named("differs") == []
    assert made(emulator, "half-heard") == []


def test_it_finds_no_difference_in_the_emulator(emulator: EmulatorProcess, whole: Probing) -> None:
    done = whole.end()
    assert done.code == 0, done.output
    assert done.named("differs") == []
    assert done.named("not run") == ["machines.unknown_image"]
    assert len(done.named("same")) > 75
    assert made(emulator, whole.app) == []


def test_it_answers_what_no_source_says(whole: Probing) -> None:
    done = whole.end()
    notes = {item["check"]: item.get("notes") or {} for item in done.data["checks"]}
    assert notes["limits.actions"]["429 body"] == '{"error":"rate limit exceeded"}'
    assert "content-type" in notes["limits.actions"]["429 headers"]
    assert 29 <= notes["patience.default_timeout"]["seconds"] < 45
    assert notes["execs.timeout_above_60"]["timeout 61"].startswith("400 ")
    assert notes["execs.cmd_splitting"]["a'b'\"c\" '' \"\" x"] == "200 [abc][][][x]"
    assert notes["execs.output_cap"]["1000000 bytes"] == "200, 1000000 came back"
    assert "with swap" in notes["updates.suspend_refused"]["a machine with swap"]
    assert notes["leases.default_ttl"]["seconds"] in (13, 14, 15)
    assert notes["leases.wrong_nonce"]["cordon"].startswith("409 ")
    assert notes["updates.update"]["a stale `current_version`"].startswith("412 ")
    assert notes["endings.destroyed_readable"]["states"][-1] == "404"
    assert notes["contents.sizes"]["a file of 1000000 bytes"] == "taken"
    assert notes["contents.secrets"]["`env` against a secret of the same name"] == "secret"
    assert notes["inside.others"]["metadata of itself"] == 200


def test_its_report_tells_nothing_of_the_account(whole: Probing) -> None:
    text = whole.end().report.read_text()
    assert whole.app.startswith("ptfm-probe-")
    for secret in (TOKEN, ORG, "Jane", "@", "127.0.0.1", "fdaa:", whole.app):
        assert secret not in text, secret
