"""The machine as a whole, over every way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_flymachines.errors import MachineGone, SettingsError
from pytest_flymachines.sandbox import Attachment, Sandbox, Status

from .conftest import WAYS
from .support import wait_until
from .world import SPEC, World

pytestmark = pytest.mark.core


@pytest.fixture(params=WAYS)
def own(request: pytest.FixtureRequest, world: World) -> Iterator[Sandbox]:
    """The handle of a machine that the test may end."""
    name = f"own-{abs(hash(request.node.nodeid)):x}"
    machine = world.machine(SPEC, name)
    sandbox = world.sandbox(request.param, machine, SPEC)
    yield sandbox
    sandbox.destroy()


class TestFacts:
    def test_names(self, sandbox: Sandbox, machine: str) -> None:
        assert sandbox.machine_id == machine
        assert sandbox.app == "handle-tests"
        assert sandbox.region == "ord"
        assert sandbox.workdir.endswith("/workspace")
        assert machine in repr(sandbox)

    def test_the_private_address(self, sandbox: Sandbox) -> None:
        assert sandbox.private_ip.startswith("fdaa:")

    def test_status(self, sandbox: Sandbox, machine: str) -> None:
        assert sandbox.status() == Status("running", machine, "started")

    def test_events(self, sandbox: Sandbox) -> None:
        types = [event.type for event in sandbox.events()]
        assert types[-1] == "launch"
        assert "start" in types

    def test_logs(self, sandbox: Sandbox) -> None:
        assert "listening on" in sandbox.logs()

    def test_the_way_to_the_agent(self, sandbox: Sandbox) -> None:
        named = sandbox.agent_url is not None
        assert named == (sandbox.attachment.channel.name == "agent")


class TestLife:
    def test_stop_and_start(self, own: Sandbox) -> None:
        own.stop()
        assert own.status().state == "stopped"
        assert own.status().message == "stopped"
        with pytest.raises(MachineGone):
            own.exec("true")
        assert own.start() == ""
        assert own.status().state == "running"
        assert own.exec("echo again").stdout == "again\n"

    def test_suspend_and_resume(self, own: Sandbox) -> None:
        process = own.popen("echo $$; exec sleep 600")
        pid = process.stdout.readline().strip()
        own.write_file("kept", "x")
        own.suspend()
        assert own.status() == Status("stopped", own.machine_id, "suspended")
        assert own.resume() == ""
        assert own.read_text("kept") == "x"
        assert own.exec(f"kill -0 {pid}").ok
        assert process.poll() is None

    def test_destroy(self, own: Sandbox) -> None:
        own.destroy()
        wait_until(lambda: own.status().message == "destroyed")
        assert own.status().state == "stopped"
        own.destroy()
        with pytest.raises(MachineGone):
            own.exec("true")

    def test_what_a_restart_lost_is_told(self, own: Sandbox) -> None:
        at = {**vars(own.attachment), "revive": lambda: "everything"}
        sandbox = Sandbox(Attachment(**at))
        sandbox.stop()
        assert sandbox.start() == "everything"

    def test_a_workspace_that_did_not_come_back(self, own: Sandbox) -> None:
        # the agent, when it starts, makes one that is missing
        wait_until(lambda: "listening on" in own.logs())
        own.exec('rmdir "$PWD"', cwd=own.workdir)
        with pytest.raises(MachineGone, match=r"workspace .* lost"):
            own._returned()


class TestRefusals:
    def test_stop_would_destroy(self, sandbox: Sandbox) -> None:
        spec = SPEC.replace(auto_destroy=True)
        at = {**vars(sandbox.attachment), "spec": spec}
        with pytest.raises(SettingsError, match="auto_destroy=False"):
            Sandbox(Attachment(**at)).stop()
        assert sandbox.status().state == "running"

    def test_a_borrowed_machine_is_not_destroyed(self, sandbox: Sandbox) -> None:
        at = {**vars(sandbox.attachment), "borrowed": True}
        with pytest.raises(SettingsError, match="was there before"):
            Sandbox(Attachment(**at)).destroy()
        assert sandbox.status().state == "running"


class TestExtend:
    def test_it_writes_the_renewal_that_init_looks_for(self, sandbox: Sandbox) -> None:
        renew = 'cat "${PYTEST_FLYMACHINES_ROOT:-}/opt/pytest-flymachines/renew"'
        sandbox.extend(3600)
        first, seconds = sandbox.exec(renew).stdout.split()
        assert seconds == "3600"
        sandbox.extend(3600)
        assert int(sandbox.exec(renew).stdout.split()[0]) == int(first) + 1

    def test_provisioning_may_do_it_otherwise(self, sandbox: Sandbox) -> None:
        asked: list[float] = []
        at = {**vars(sandbox.attachment), "extend": asked.append}
        Sandbox(Attachment(**at)).extend(60)
        assert asked == [60]

    @pytest.mark.parametrize("seconds", [0, -1])
    def test_no_time_at_all(self, sandbox: Sandbox, seconds: float) -> None:
        with pytest.raises(ValueError, match="above 0"):
            sandbox.extend(seconds)
