"""Machines: create, read, list, change, start, stop, destroy."""

from __future__ import annotations

import signal as signals
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_flymachines.api.answers import decode
from pytest_flymachines.api.caller import TIMEOUT_S, Caller, segment
from pytest_flymachines.api.calls import Call
from pytest_flymachines.api.models import Machine, MachineEvent, MachineVersion, StartResponse
from pytest_flymachines.errors import ApiError, Conflict, NotFound, SettingsError

__all__ = ["MachineCalls", "machine_path"]

# Refusals that pass by themselves: just created, just stopped, just updated. Reads may say
# `stopped` for seconds before a start is accepted.
_NOT_YET = (
    "from current state: 'created'",
    "machine still active, refusing to start",
    "machine getting replaced, refusing to start",
)
_UNDER_WAY = ("still attempting to start", "machine still starting", "already started")
_START_PAUSE_S = 1.0

# https://docs.machines.dev, `state` of the list call; others are filtered here
_LISTED_STATES = frozenset({"created", "started", "stopped", "suspended"})


def machine_path(app: str, machine_id: str) -> str:
    """Path of a machine."""
    return f"/v1/apps/{segment(app)}/machines/{segment(machine_id)}"


class MachineCalls(Caller):
    """Calls on machines."""

    def create_machine(
        self,
        app: str,
        config: Mapping[str, Any],
        *,
        name: str | None = None,
        region: str | None = None,
        skip_launch: bool = False,
        skip_service_registration: bool = False,
        lease_ttl_s: int = 0,
        skip_secrets: bool = False,
        min_secrets_version: int | None = None,
    ) -> Machine:
        """Create a machine, and start it unless `skip_launch`; does not wait for the start.

        A create is never sent twice, because that could make two machines. After an error whose
        `ambiguous` is true, look with `find_machine` for the name before trying again; a name
        is unique in its app, so a second create answers `Conflict`.

        Args:
            app: App that the machine belongs to.
            config: Any config that the API knows, sent as it is; only `image` is required.
            name: Unique among the app's machines; None lets Fly choose.
            region: A code (`ord`), several (`ord,iad`) or an alias (`eu`, `us`, `any`); None is
                the region nearest to the caller.
            skip_launch: Prepare the machine and leave it stopped.
            skip_service_registration: Keep it out of the proxy's routing until `uncordon_machine`.
            lease_ttl_s: Seconds of a lease to take at once; its nonce is in the answer. 0: none.
            skip_secrets: Do not give the app's secrets to it.
            min_secrets_version: Version of the app's secrets to have at least.

        Raises:
            CapacityError: No room for it in the region.
            Conflict: The name is taken.
            ApiError: The config is refused (400), or any other answer.
            ApiUnreachable: No answer.
        """
        body = {"config": config, "name": name, "region": region}
        body |= _launch_options(
            skip_launch, skip_service_registration, lease_ttl_s, skip_secrets, min_secrets_version
        )
        path = f"/v1/apps/{segment(app)}/machines"
        return decode(self._call("POST", path, Call("create", app), json=_given(body)), Machine)

    def update_machine(
        self,
        app: str,
        machine_id: str,
        config: Mapping[str, Any],
        *,
        current_version: str | None = None,
        nonce: str | None = None,
        skip_launch: bool = False,
        skip_service_registration: bool = False,
        lease_ttl_s: int = 0,
        skip_secrets: bool = False,
        min_secrets_version: int | None = None,
    ) -> Machine:
        """Replace a machine's config, and restart it if it runs; does not wait for that.

        Args:
            app: App of the machine.
            machine_id: The machine.
            config: The whole new config, `image` included: nothing is merged.
            current_version: Fail with `Conflict` unless this is still the `instance_id`.
            nonce: Of the lease that is held.
            skip_launch: Do not start the new version.
            skip_service_registration: As for `create_machine`, like those that follow.
            lease_ttl_s: Seconds.
            skip_secrets: Without the app's secrets.
            min_secrets_version: At least this version of them.
        """
        body = {"config": config, "current_version": current_version}
        body |= _launch_options(
            skip_launch, skip_service_registration, lease_ttl_s, skip_secrets, min_secrets_version
        )
        call = Call("update", machine_id)
        path = machine_path(app, machine_id)
        return decode(self._call("POST", path, call, json=_given(body), nonce=nonce), Machine)

    def get_machine(self, app: str, machine_id: str) -> Machine:
        """One machine, by the host that runs it: the authority where lists lag.

        Raises:
            NotFound: There is none of this id, or it was destroyed a while ago; shortly after
                its end a machine is still answered, with state `destroyed`.
        """
        return self._get(app, machine_id, retry_s=None)

    def _get(self, app: str, machine_id: str, *, retry_s: float | None) -> Machine:
        call = Call("get", machine_id, repeat_safe=True, retry_s=retry_s)
        return decode(self._call("GET", machine_path(app, machine_id), call), Machine)

    def list_machines(
        self,
        app: str,
        *,
        metadata: Mapping[str, str] | None = None,
        states: Sequence[str] = (),
        region: str | None = None,
        include_deleted: bool = False,
    ) -> list[Machine]:
        """The machines of an app. Lists lag behind by seconds: a new machine may be missing.

        Args:
            app: The app.
            metadata: Only machines with all of these. A machine whose config is not known
                (its host does not answer) is listed on the API's word.
            states: Only machines in one of these states; all if empty.
            region: Only machines in this region.
            include_deleted: Destroyed ones too.
        """
        params: dict[str, str | bool | None] = {
            f"metadata.{key}": value for key, value in (metadata or {}).items()
        }
        if states and _LISTED_STATES.issuperset(states):
            params["state"] = ",".join(states)
        params |= {"region": region, "include_deleted": include_deleted or None}
        call = Call("list", app, repeat_safe=True)
        answer = self._call("GET", f"/v1/apps/{segment(app)}/machines", call, params=params)
        wanted = (metadata or {}).items()
        return [
            machine
            for machine in decode(answer, list[Machine])
            # a server that does not know a filter ignores it, and some callers destroy what
            # they list
            if (not states or machine.state in states)
            and (machine.config is None or wanted <= machine.metadata.items())
        ]

    def find_machine(self, app: str, name: str, *, timeout_s: float = 0.0) -> Machine | None:
        """The machine of this name, or None.

        Args:
            app: The app.
            name: Name given at creation.
            timeout_s: Seconds to go on looking, as lists lag behind creations.
        """
        deadline = self._clock.monotonic() + timeout_s
        while True:
            for machine in self.list_machines(app):
                if machine.name == name and machine.state not in ("destroying", "destroyed"):
                    return machine
            if self._clock.monotonic() >= deadline:
                return None
            self._clock.sleep(1.0)

    def start_machine(
        self, app: str, machine_id: str, *, nonce: str | None = None, retry_s: float = 30.0
    ) -> StartResponse:
        """Start or resume a machine; does not wait until it runs. Starting already: fine.

        Args:
            app: App of the machine.
            machine_id: The machine.
            nonce: Of the lease that is held.
            retry_s: Seconds to try again where Fly refuses a start that comes right after a
                create, a stop or an update.

        Raises:
            CapacityError: No room on the machine's host.
            Conflict: Still refused, or leased to somebody else.
        """
        deadline = self._clock.monotonic() + retry_s
        path = f"{machine_path(app, machine_id)}/start"
        while True:
            try:
                answer = self._call("POST", path, Call("start", machine_id), nonce=nonce)
            except Conflict as refusal:
                if any(text in refusal.message for text in _UNDER_WAY):
                    return StartResponse(previous_state="starting", message=refusal.message)
                passing = any(text in refusal.message for text in _NOT_YET)
                if not passing or self._clock.monotonic() >= deadline:
                    raise
                self._clock.sleep(_START_PAUSE_S)
                continue
            started = decode(answer, StartResponse)
            if started.status == "error":
                raise ApiError("POST", path, 200, answer.text, message=started.message)
            return started

    def stop_machine(
        self,
        app: str,
        machine_id: str,
        *,
        signal: str | int | None = None,
        timeout_s: float | None = None,
        nonce: str | None = None,
    ) -> None:
        """Stop a machine; does not wait for its end. With `auto_destroy` this destroys it.

        Args:
            app: App of the machine.
            machine_id: The machine.
            signal: Sent to the main process; None is that of the config's `stop_config`, else
                SIGINT.
            timeout_s: Seconds from the signal until it is killed, at most 300; None is that of
                the config, else 5.
            nonce: Of the lease that is held.
        """
        body = {"signal": _signal_name(signal), "timeout": _duration(timeout_s)}
        self._act(app, machine_id, "stop", nonce, repeat_safe=True, json=_given(body) or None)

    def suspend_machine(self, app: str, machine_id: str, *, nonce: str | None = None) -> None:
        """Suspend a machine to a snapshot of its memory; does not wait. `start_machine` resumes."""
        self._act(app, machine_id, "suspend", nonce)

    def restart_machine(
        self,
        app: str,
        machine_id: str,
        *,
        signal: str | int | None = None,
        timeout_s: float | None = None,
        force_stop: bool = False,
        nonce: str | None = None,
    ) -> None:
        """Stop a machine and start it; does not wait.

        Args:
            app: App of the machine.
            machine_id: The machine.
            signal: As for `stop_machine`.
            timeout_s: As for `stop_machine`.
            force_stop: Kill at once.
            nonce: Of the lease that is held.
        """
        params = {
            "signal": _signal_name(signal),
            "timeout": _duration(timeout_s),
            "force_stop": force_stop or None,
        }
        read_s = TIMEOUT_S + (timeout_s or 0.0)
        self._act(app, machine_id, "restart", nonce, params=params, timeout_s=read_s)

    def signal_machine(self, app: str, machine_id: str, signal: str | int) -> None:
        """Send a signal, such as `SIGTERM` or 15, to the machine's main process."""
        self._act(app, machine_id, "signal", None, json={"signal": _signal_name(signal)})

    def destroy_machine(
        self, app: str, machine_id: str, *, force: bool = True, nonce: str | None = None
    ) -> None:
        """Destroy a machine; does not wait for its end. One that is gone already is fine.

        Args:
            app: App of the machine.
            machine_id: The machine.
            force: Kill it if it runs; else a running machine is a `Conflict`.
            nonce: Of the lease that is held.
        """
        call = Call("destroy", machine_id, repeat_safe=True)
        params = {"force": True} if force else None
        try:
            self._call("DELETE", machine_path(app, machine_id), call, params=params, nonce=nonce)
        except NotFound as error:
            # only the API's own words: an unknown app or a wrong base URL is no success
            if "machine" not in error.message.lower():
                raise

    def cordon_machine(self, app: str, machine_id: str, *, nonce: str | None = None) -> None:
        """Take a machine out of the proxy's routing."""
        self._act(app, machine_id, "cordon", nonce, repeat_safe=True)

    def uncordon_machine(self, app: str, machine_id: str, *, nonce: str | None = None) -> None:
        """Put a machine back into the proxy's routing."""
        self._act(app, machine_id, "uncordon", nonce, repeat_safe=True)

    def list_events(
        self, app: str, machine_id: str, *, limit: int | None = None
    ) -> list[MachineEvent]:
        """What happened to a machine, newest first; `limit` is 20 unless given, at most 50."""
        path = f"{machine_path(app, machine_id)}/events"
        call = Call("events", machine_id, repeat_safe=True)
        return decode(self._call("GET", path, call, params={"limit": limit}), list[MachineEvent])

    def list_versions(self, app: str, machine_id: str) -> list[MachineVersion]:
        """The configs that a machine has had."""
        path = f"{machine_path(app, machine_id)}/versions"
        call = Call("versions", machine_id, repeat_safe=True)
        return decode(self._call("GET", path, call), list[MachineVersion])

    def _act(
        self,
        app: str,
        machine_id: str,
        action: str,
        nonce: str | None,
        *,
        repeat_safe: bool = False,
        params: Mapping[str, str | bool | None] | None = None,
        json: Any = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """POST an action whose answer says no more than that it was accepted."""
        self._call(
            "POST",
            f"{machine_path(app, machine_id)}/{action}",
            Call(action, machine_id, repeat_safe=repeat_safe),
            params=params,
            json=json,
            nonce=nonce,
            timeout_s=timeout_s,
        )


def _given(body: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if value is not None}


def _launch_options(
    skip_launch: bool,
    skip_service_registration: bool,
    lease_ttl_s: int,
    skip_secrets: bool,
    min_secrets_version: int | None,
) -> dict[str, Any]:
    return {
        "skip_launch": skip_launch or None,
        "skip_service_registration": skip_service_registration or None,
        "lease_ttl": lease_ttl_s or None,
        "skip_secrets": skip_secrets or None,
        "min_secrets_version": min_secrets_version,
    }


def _signal_name(signal: str | int | None) -> str | None:
    if signal is None:
        return None
    try:
        known = signals.Signals(signal) if isinstance(signal, int) else signals.Signals[signal]
    except (ValueError, KeyError):
        raise SettingsError(
            f"signal={signal!r}: expected a name such as 'SIGTERM', or its number"
        ) from None
    return known.name


def _duration(seconds: float | None) -> str | None:
    """Seconds as Go writes a duration; a bare number would be nanoseconds."""
    return None if seconds is None else f"{seconds:g}s"
