"""What the probe made on a server, so that all of it can be taken away again.

Machines carry this plugin's metadata, and volumes its names, so that what a killed probe leaves
ends by itself and `pytest-flymachines reap` finds it.
"""

from __future__ import annotations

import itertools
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

from pytest_flymachines.api import App, MachinesClient
from pytest_flymachines.errors import FlyMachinesError, NotFound, SettingsError, Unauthorized
from pytest_flymachines.marks import (
    DEADLINE_KEY,
    OWNER_KEY,
    RUN_KEY,
    TTL_KEY,
    stamp,
    volume_name,
    volume_run,
)
from pytest_flymachines.probe.wire import Answer, Wire
from pytest_flymachines.run import owner
from pytest_flymachines.sweep import GONE, destroy_verified
from pytest_flymachines.volumes import delete_volume

__all__ = ["TTL_S", "Closed", "Ground"]

#: Seconds after which a machine's main process ends by itself, and its machine with it.
TTL_S = 600
GUEST = {"cpu_kind": "shared", "cpus": 1, "memory_mb": 256}
# Lists are gossip and lag by seconds; a create that was under way may still arrive.
_LOOKS = 3
# So many refusals, and no machine that was made: there are none to be had.
_REFUSALS = 3
_LOOK_PAUSE_S = 1.0
_IN_FLIGHT_S = 30.0


class Closed(Exception):
    """The probe is ending: nothing new is made."""


class Ground:
    """One app, and what the probe has in it.

    Attributes:
        app: Name of the app.
        own: The probe made the app, and deletes it.
        run_id: In the metadata of every machine.
        region: Where machines and volumes are made; empty lets Fly choose.
        image: Of every machine.
        org: Slug of the organization, where it is known.
        loopback: The server is on this computer.
        emulated: The server says that it is this plugin's emulator.
        proxy_url: The proxy in front of the machines; empty: none is known.
        hopeless: Why no machine can be made here, and what to do, once that is sure.
    """

    def __init__(
        self,
        wire: Wire,
        client: MachinesClient,
        app: str,
        *,
        own: bool,
        image: str,
        region: str = "",
        org: str = "",
        loopback: bool = False,
        emulated: bool = False,
        proxy_url: str = "",
    ) -> None:
        self.wire = wire
        self.client = client
        self.app = app
        self.own = own
        self.image = image
        self.region = region
        self.org = org
        self.loopback = loopback
        self.emulated = emulated
        self.proxy_url = proxy_url or ("" if loopback else f"https://{app}.fly.dev")
        self.run_id = f"probe-{secrets.token_hex(6)}"
        self._numbers = itertools.count(1)
        self._lock = threading.Condition()
        self._closed = False
        self._in_flight = 0
        self._machines: set[str] = set()
        self._volumes: set[str] = set()
        self._apps: set[str] = set()
        self.machines_made = 0
        self._refusals = 0
        self.hopeless = ""

    @property
    def path(self) -> str:
        """Path of the app."""
        return f"/v1/apps/{self.app}"

    def begin(self) -> App:
        """Make the app, if it is to be the probe's own; the app as the API shows it.

        Raises:
            FlyMachinesError: It could not be made, or not be read.
        """
        if self.own:
            self._apps.add(self.app)
            try:
                self.client.create_app(self.app, self.org)
            except Unauthorized as error:
                raise SettingsError(
                    f"the token may not make an app in organization {self.org}: {error}\n"
                    f"{advice(403, '')}"
                ) from error
        return self.client.get_app(self.app)

    def refused(self, answer: Answer) -> None:
        """A machine that should have been made was not."""
        with self._lock:
            self._refusals += 1
            if self._refusals >= _REFUSALS and not self.machines_made and not self.hopeless:
                self.hopeless = (
                    f"no machine can be made here: create answered {answer.status}: "
                    f"{answer.error}\n{advice(answer.status, answer.error)}"
                )

    def name(self) -> str:
        """A name for a machine of this run."""
        return f"ptfm-{self.run_id}-{next(self._numbers)}"

    def volume_name(self) -> str:
        """A name for a volume, by which `reap` knows it."""
        return volume_name(self.run_id, TTL_S)

    def metadata(self) -> dict[str, str]:
        """The marks of a machine that is made now."""
        return {
            RUN_KEY: self.run_id,
            OWNER_KEY: owner(),
            DEADLINE_KEY: stamp(TTL_S),
            TTL_KEY: str(TTL_S),
        }

    def config(self, **changes: Any) -> dict[str, Any]:
        """A config of the smallest machine that ends by itself; a change of None leaves out."""
        config = {
            "image": self.image,
            "guest": GUEST,
            "init": {"exec": ["/bin/sleep", str(TTL_S)]},
            "restart": {"policy": "no"},
            "auto_destroy": True,
            **changes,
        }
        config["metadata"] = {**self.metadata(), **(config.get("metadata") or {})}
        return {key: value for key, value in config.items() if value is not None}

    def make(self, send: Callable[[], Answer], kind: Literal["machine", "volume"]) -> Answer:
        """Send a request that makes something; what came of it is remembered.

        Raises:
            Closed: The probe is ending.
        """
        with self._sending():
            answer = send()
            made = answer.field("id")
            if 200 <= answer.status < 300 and isinstance(made, str):
                with self._lock:
                    (self._machines if kind == "machine" else self._volumes).add(made)
                    self.machines_made += kind == "machine"
            return answer

    def make_app(self, name: str, send: Callable[[], Answer]) -> Answer:
        """Send a request that may make an app of this name; it is deleted in any case.

        Raises:
            Closed: The probe is ending.
        """
        with self._sending():
            self._apps.add(name)
            return send()

    @contextmanager
    def _sending(self) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise Closed
            self._in_flight += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_flight -= 1
                self._lock.notify_all()

    def destroy(self, machine_id: str) -> None:
        """Destroy one machine; what fails at once is left to `clear`."""
        if destroy_verified(self.client, self.app, machine_id, lambda _: None) is None:
            with self._lock:
                self._machines.discard(machine_id)

    def clear(self, progress: Callable[[str], None] = lambda _: None) -> list[str]:
        """Take everything away; what could not be, with the command that does.

        Nothing can be made any more from now on.
        """
        with self._lock:
            self._closed = True
            self._lock.wait_for(lambda: not self._in_flight, _IN_FLIGHT_S)
        left = self._destroy_machines(progress)
        left += self._delete_volumes()
        apps = {app: line for app in sorted(self._apps) if (line := self._delete_app(app))}
        if self.own and self.app not in apps:
            left = []  # it went with its app
        return [*left, *apps.values()]

    def _destroy_machines(self, progress: Callable[[str], None]) -> list[str]:
        gone: set[str] = set()
        failed: dict[str, str] = {}
        for look in range(_LOOKS):
            if look and not self.loopback:
                time.sleep(_LOOK_PAUSE_S)
            found = (self._machines | self._listed(failed)) - gone - failed.keys()
            if found:
                progress(f"destroying {len(found)} machine(s)")
            for machine_id in sorted(found):
                error = destroy_verified(self.client, self.app, machine_id)
                if error is None:
                    gone.add(machine_id)
                else:
                    failed[machine_id] = str(error)
        self._machines -= gone
        return [
            f"machine {machine_id} in {self.app} ({error}): "
            f"pytest-flymachines reap --run {self.run_id} -a {self.app}"
            for machine_id, error in failed.items()
        ]

    def _listed(self, failed: dict[str, str]) -> set[str]:
        """Machines of this run that the list shows, also those whose create was not answered."""
        try:
            listed = self.client.list_machines(self.app, metadata={RUN_KEY: self.run_id})
        except NotFound:
            return set()
        except FlyMachinesError as error:
            failed["(not listed)"] = str(error)
            return set()
        failed.pop("(not listed)", None)
        return {machine.id for machine in listed if machine.state not in GONE}

    def _delete_volumes(self) -> list[str]:
        with suppress(FlyMachinesError):
            mark = volume_run(self.run_id)
            self._volumes |= {
                volume.id
                for volume in self.client.list_volumes(self.app)
                if volume.name.startswith(mark)
            }
        left = []
        for volume_id in sorted(self._volumes):
            try:
                delete_volume(self.client, self.app, volume_id)
            except FlyMachinesError as error:
                left.append(
                    f"volume {volume_id} ({error}): fly volumes destroy {volume_id} -a {self.app}"
                )
        return left

    def _delete_app(self, app: str) -> str:
        left = ""
        for look in range(_LOOKS):
            if look:
                time.sleep(_LOOK_PAUSE_S)
            try:
                self.client.delete_app(app, force=True)
            except NotFound:
                return ""
            except FlyMachinesError as error:
                left = f"app {app} ({error}): fly apps destroy {app}"
            else:
                return ""
        return left


def advice(status: int, error: str) -> str:
    """What to do where no machine, or no app, can be made; by the answer to the create."""
    if status in (401, 403):
        return (
            "A token that may write is needed: `fly tokens create org ORG` makes one for --org, "
            "`fly tokens create deploy -a APP` one for --app; read-only tokens will not do."
        )
    if status == 402 or re.search("billing|payment|credit card", error):
        return "The organization needs a way to pay: https://fly.io/dashboard."
    if re.search("candidate host|insufficient|reserve resource", error):
        return "There is no room where it was tried: name another region with --region, or wait."
    if re.search("MANIFEST|manifest|image", error):
        return "Name an image that Fly can pull with --image; it needs /bin/sh."
    if status >= 500 or status == 429:
        return "The server has trouble: https://status.flyio.net; try again later."
    return "See the raw answers in the report."
