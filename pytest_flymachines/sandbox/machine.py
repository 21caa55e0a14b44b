"""The machine under the sandbox: its state, its end, and its return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pytest_flymachines.errors import (
    CommandFailed,
    FlyMachinesError,
    MachineGone,
    NotFound,
    SettingsError,
)
from pytest_flymachines.sandbox.arguments import check_seconds
from pytest_flymachines.sandbox.channel import Command
from pytest_flymachines.sandbox.exec import ExecVerbs

if TYPE_CHECKING:
    from pytest_flymachines.api import Machine, MachineEvent

__all__ = ["MachineVerbs", "Status"]

State = Literal["running", "starting", "stopped", "error"]

# https://fly.io/docs/machines/machine-states/
_STATES: dict[str, State] = {
    "started": "running",
    "created": "starting",
    "creating": "starting",
    "pending": "starting",
    "starting": "starting",
    "restarting": "starting",
    "updating": "starting",
    "replacing": "starting",
    "stopping": "stopped",
    "stopped": "stopped",
    "suspending": "stopped",
    "suspended": "stopped",
    "destroying": "stopped",
    "destroyed": "stopped",
    "replaced": "stopped",
    "migrated": "stopped",
}
_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Status:
    """State of a sandbox's machine.

    Attributes:
        state: `running`, `starting`, `stopped` (or suspended, or destroyed) or `error`.
        machine_id: Machine id.
        message: Fly's own word for the state; `destroyed` for a machine that is not known.
    """

    state: State
    machine_id: str
    message: str


class MachineVerbs(ExecVerbs):
    """The machine as a whole."""

    @property
    def machine_id(self) -> str:
        """Machine id."""
        return self.attachment.machine_id

    @property
    def app(self) -> str:
        """Fly app that the machine belongs to."""
        return self.attachment.app

    @property
    def region(self) -> str:
        """Region code."""
        return self.attachment.region

    @property
    def workdir(self) -> str:
        """Absolute path of the workspace in the machine."""
        return self.attachment.workdir

    @property
    def private_ip(self) -> str:
        """6PN address; asked for anew after a start, which may move the machine to another host."""
        return self.attachment.private_ip or (self._machine().private_ip or "")

    @property
    def agent_url(self) -> str | None:
        """Where the agent's HTTP answers; None when there is none."""
        return self.attachment.agent_url

    def status(self) -> Status:
        """Ask the API for the machine's state.

        Raises:
            ApiError: The API refused to tell.
        """
        try:
            word = self._state()
        except NotFound:
            word = "destroyed"
        return Status(_STATES.get(word, "error"), self.machine_id, word)

    def events(self) -> list[MachineEvent]:
        """What happened to the machine, newest first.

        Raises:
            NotFound: It was destroyed, so long ago that Fly does not know it any more.
        """
        return list(self.attachment.client.list_events(self.app, self.machine_id))

    def logs(self) -> str:
        """What the machine's agents have logged since it booted.

        Raises:
            MachineGone: It does not run.
        """
        return self.exec(
            'cd "${PYTEST_FLYMACHINES_ROOT:-}/opt/pytest-flymachines" 2>/dev/null || exit 0\n'
            'for log in agent.log foreign-agent.log; do [ ! -f "$log" ] || cat "$log"; done',
            cwd="/",
            errors="replace",
        ).stdout

    def stop(self) -> None:
        """Stop the machine; its root file system is lost, volumes stay.

        Raises:
            SettingsError: The machine would be destroyed by it (`auto_destroy`).
            WaitTimeout: It was not stopped after 60 s.
        """
        if self.attachment.spec.auto_destroy and not self.attachment.borrowed:
            raise SettingsError(
                f"stop() would destroy machine {self.machine_id}, because its spec has "
                "auto_destroy=True: ask for auto_destroy=False (in fly_sandbox_factory(...), "
                "@pytest.mark.fly_sandbox(...) or fly_sandbox_spec), or use suspend()"
            )
        self.attachment.client.stop_machine(self.app, self.machine_id)
        self._wait("stopped", _STOP_TIMEOUT_S)

    def start(self) -> str:
        """Start the stopped machine and bring workspace and agent back.

        Returns:
            What was lost, in words; empty if nothing was. The root file system is always that
            of the image again (https://fly.io/docs/machines/overview/), so files outside of
            volumes are.

        Raises:
            MachineGone: Its workspace cannot be used again.
            WaitTimeout: It was not started after 120 s.
            NotFound: It was destroyed.
        """
        fresh = self.attachment.borrowed and self._state() == "stopped"
        self.attachment.client.start_machine(self.app, self.machine_id)
        return self._returned() or ("everything written outside a volume" if fresh else "")

    def suspend(self) -> None:
        """Freeze the machine with its memory; `resume` goes on where it was.

        Raises:
            Conflict: It does not run, or Fly refuses to suspend it.
            WaitTimeout: It was not suspended after 60 s.
        """
        self.attachment.client.suspend_machine(self.app, self.machine_id)
        self._wait("suspended", _STOP_TIMEOUT_S)

    def resume(self) -> str:
        """Go on after `suspend`.

        Returns:
            What was lost, in words; empty if nothing was. Fly may drop a snapshot and boot
            instead, with the files kept (https://fly.io/docs/reference/suspend-resume/).

        Raises:
            MachineGone, WaitTimeout, NotFound: As `start`.
        """
        self.attachment.client.start_machine(self.app, self.machine_id)
        return self._returned()

    def extend(self, seconds: float) -> None:
        """Let the machine live at least so long from now, whatever the run does meanwhile.

        Args:
            seconds: Above 0; a later deadline that it has already stands.

        Raises:
            ValueError: `seconds` is not above 0.
        """
        check_seconds("seconds", seconds, above_0=True)
        if self.attachment.extend:
            self.attachment.extend(seconds)
        else:
            self._renew(seconds)

    def destroy(self) -> None:
        """Destroy the machine, whatever state it is in; no effect when it is gone already.

        Raises:
            SettingsError: The machine was there before the run (`--fly-machine`).
        """
        if self.attachment.borrowed:
            raise SettingsError(
                f"machine {self.machine_id} was there before this run, which therefore never "
                f"destroys it; `fly machine destroy --force {self.machine_id} -a {self.app}` does"
            )
        try:
            self.attachment.client.destroy_machine(self.app, self.machine_id, force=True)
        except NotFound:
            pass
        finally:
            self._channel.close()

    def _machine(self) -> Machine:
        return self.attachment.client.get_machine(self.app, self.machine_id)

    def _wait(self, state: str, timeout_s: float) -> None:
        self.attachment.client.wait(self.app, self.machine_id, state, timeout_s=timeout_s)

    def _returned(self) -> str:
        """Wait until the machine runs and its workspace can be used."""
        self._wait("started", _START_TIMEOUT_S)
        lost = self.attachment.revive() if self.attachment.revive else ""
        probe = Command(argv=[b"/bin/sh", b"-c", b"pwd"], timeout_s=30.0)
        try:
            update = self._channel.start(probe, wait_s=20.0, forget=True)
        except (FlyMachinesError, OSError) as error:
            raise MachineGone(
                f"machine {self.machine_id} runs again, but its workspace {self.workdir} is "
                f"lost or cannot be reached: {error}"
            ) from error
        if update.exit_code:
            raise CommandFailed(update.exit_code, "pwd", update.stdout, update.stderr)
        return lost

    def _renew(self, seconds: float) -> None:
        """Write the renewal that the machine's init looks for: a number never used, seconds."""
        script = (
            'cd "${PYTEST_FLYMACHINES_ROOT:-}/opt/pytest-flymachines" || exit\n'
            "n=0; [ ! -e renew ] || read -r n _ <renew\n"
            'echo "$((n + 1)) $1" >renew.new && mv renew.new renew'
        )
        self.exec(["/bin/sh", "-c", script, "renew", str(int(seconds))], cwd="/")
