"""What is behind the client in one mode: transports, clock, addresses, token."""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pytest_flymachines._clock import Clock, SystemClock
from pytest_flymachines._http import (
    ConnectError,
    Headers,
    ReadTimeout,
    Request,
    Response,
    Transport,
)
from pytest_flymachines.api import MachinesClient, build_transport
from pytest_flymachines.api.retry import RETRY_S
from pytest_flymachines.cassettes import FrameSocket, Recorder
from pytest_flymachines.settings import Settings
from pytest_flymachines.sharing import RunInfo

__all__ = ["AgentAddress", "Backend", "PatientTransport", "build", "direct_client"]

_STARTING = frozenset({404, 502, 503})
_ASK_EVERY_S = 1.0


@dataclass(frozen=True)
class AgentAddress:
    """Where the public side of an app answers: a base URL, and the Host header for it."""

    url: str
    host: str


@dataclass(frozen=True, kw_only=True)
class Backend:
    """One mode's way to machines.

    Attributes:
        mode: `live`, `local` or `replay`.
        transports: Own the sockets; closed with the backend.
        client: Machines API.
        agent_transport: For requests to agents, through the same recorder as the client's.
        patience: The transport beneath, which waits for an agent that is still starting.
        clock: Virtual in replay.
        recorded: Puts the recorder around a transport (None in replay) to what is named.
        frames: As `Recorder.frames`, for WebSockets.
        aside: Context in which requests are not recorded: for what only Fly itself needs.
        proxy_url: Front of the emulator's proxy; empty: Fly's own, at `<app>.fly.dev`.
        control_transport: For requests to the emulator's control interface; never recorded.
        control_url: That interface; empty where there is no emulator of ours.
        token: API token, from which each machine's agent token is derived.
    """

    mode: str
    transports: tuple[Transport, ...]
    client: MachinesClient
    agent_transport: Transport
    patience: PatientTransport
    clock: Clock
    recorded: Callable[[Transport | None, str], Transport]
    frames: Callable[[str, Callable[[], FrameSocket]], FrameSocket]
    aside: Callable[[], AbstractContextManager[None]]
    control_transport: Transport
    proxy_url: str = ""
    control_url: str = ""
    token: str = field(default="", repr=False)

    def close(self) -> None:
        """Give back connections."""
        for transport in self.transports:
            transport.close()

    def agent_address(self, app: str) -> AgentAddress:
        """Where requests to agents of this app go."""
        host = f"{app}.fly.dev"
        return AgentAddress(self.proxy_url or f"https://{host}", host)

    def agent_token(self, machine_name: str) -> str:
        """The token of one machine's agent.

        Derived from the API token, so that every worker, host and shard of a run can reach
        the agent, and the machine's config needs to hold no more than its digest.
        """
        key = self.token.encode()
        return hmac.new(key, f"cook-agent {machine_name}".encode(), hashlib.sha256).hexdigest()


class PatientTransport(Transport):
    """Waits for an agent that has not answered yet: it starts together with its machine.

    Until the first answer of a machine's agent, a refused connection and the proxy's 502,
    503 and 404 are tried again for `patience_s` seconds, or until it is known that no agent
    will come. After that they are what they are.
    """

    def __init__(self, inner: Transport, clock: Clock, patience_s: float = 15.0) -> None:
        self._inner = inner
        self._clock = clock
        self._patience_s = patience_s
        self._until: dict[str, float] = {}
        self._hopeless: dict[str, Callable[[], bool]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def unless(self, machine_id: str, hopeless: Callable[[], bool]) -> Iterator[None]:
        """Meanwhile, ask once a second or less whether this machine's agent will never come.

        A proxy holds a request for seconds until somebody listens. So what is sent first is one
        that may be given up after a second and sent again.
        """
        self._hopeless[machine_id] = hopeless
        try:
            yield
        finally:
            del self._hopeless[machine_id]

    def forget(self, machine_id: str) -> None:
        """Be patient with this machine again, because it starts anew."""
        with self._lock:
            self._until.pop(machine_id, None)

    def handle_request(self, request: Request) -> Response:
        """Send, and send again while the agent is starting."""
        machine = request.headers.get("fly-force-instance-id", "")
        with self._lock:
            patient_until = self._clock.monotonic() + self._patience_s
            deadline = self._until.setdefault(machine, patient_until)
        pause_s = 0.01
        ask_at = self._clock.monotonic() + _ASK_EVERY_S
        while True:
            failure: ConnectError | None = None
            knocks = machine in self._hopeless and deadline > 0
            try:
                response = self._knock(request) if knocks else self._inner.handle_request(request)
            except ConnectError as error:
                failure = error
            now = self._clock.monotonic()
            answered = failure is None and not self._still_starting(response)
            if knocks and answered:
                response.close()
                deadline = 0.0
                continue
            over = now >= deadline or answered
            if not over and now >= ask_at and machine in self._hopeless:
                over = self._hopeless[machine]()
                ask_at = now + _ASK_EVERY_S
            if over:
                with self._lock:
                    self._until[machine] = 0.0
                if failure is not None:
                    raise failure
                return response
            if failure is None:
                response.close()
            self._clock.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.5)

    def _knock(self, request: Request) -> Response:
        """Ask the agent that a request is for how it is; 503 when nobody says anything."""
        copied = ("host", "authorization", "fly-force-instance-id")
        headers = Headers([(k, v) for k in copied if (v := request.headers.get(k))])
        app, machines, _ = request.url.path.partition(f"/machines/{headers[copied[-1]]}")
        timeouts = request.extensions.get("timeout", {})
        knock = Request(
            "GET",
            request.url.copy_with(path=f"{app}{machines}/agent/health", query=None),
            headers=headers,
            extensions={"timeout": {**timeouts, "read": _ASK_EVERY_S}},
        )
        try:
            response = self._inner.handle_request(knock)
            response.read()
        except ReadTimeout as error:
            return Response(503, text=f"nobody answers: {error}")
        return response

    @staticmethod
    def _still_starting(response: Response) -> bool:
        """Whether the proxy answered for want of an agent; the agent's answers are JSON."""
        json = response.headers.get("content-type", "").startswith("application/json")
        return response.status_code in _STARTING and not json

    def close(self) -> None:
        """Close the transport beneath."""
        self._inner.close()


def build(settings: Settings, info: RunInfo | None, recorder: Recorder) -> Backend:
    """The backend of one process, with everything going through its recorder.

    Args:
        settings: What the user asked for.
        info: From the controller; None in replay, which has no addresses and no sockets.
        recorder: Records, replays, or lets pass.
    """
    url, token, proxy_url = _address(settings, info)
    nothing = recorder.transport(None) if info is None else None
    direct = nothing or _api_transport(settings, info)
    patience = PatientTransport(nothing or _pool(), SystemClock())
    control = nothing or _pool()
    client = MachinesClient(
        token or "replay",
        base_url=url,
        transport=recorder.transport(direct),
        clock=recorder.clock,
    )
    return Backend(
        transports=(direct, patience, control),
        mode=settings.chosen,
        client=client,
        agent_transport=recorder.transport(patience),
        patience=patience,
        clock=recorder.clock,
        recorded=lambda transport, service: recorder.transport(transport, service=service),
        frames=recorder.frames,
        aside=recorder.scopes.paused,
        proxy_url=proxy_url,
        control_transport=control,
        control_url=info.emulator.control_url if info and info.emulator else "",
        token=token,
    )


@contextmanager
def direct_client(settings: Settings, info: RunInfo, *, retry_s: float) -> Iterator[MachinesClient]:
    """A client for a run's own business, of which no cassette knows.

    Args:
        settings: What the user asked for.
        info: From the controller.
        retry_s: Seconds from a request's first attempt after which no other one is made.
    """
    url, token, _ = _address(settings, info)
    with closing(_api_transport(settings, info, retry_s)) as transport:
        yield MachinesClient(token, base_url=url, transport=transport)


def _api_transport(settings: Settings, info: RunInfo | None, retry_s: float = RETRY_S) -> Transport:
    """Live, all processes of a run keep one pace; the local emulator has no rate limits."""
    live = settings.chosen == "live" and info is not None
    directory = Path(info.directory) / "pace" if live and info else None
    return build_transport(_pool(), pace=live, pace_directory=directory, retry_s=retry_s)


def _pool() -> Transport:
    from pytest_flymachines._http import PoolTransport

    return PoolTransport()


def _address(settings: Settings, info: RunInfo | None) -> tuple[str, str, str]:
    """Base URL of the API, its token, and the front of the emulator's proxy."""
    if info is None:
        return "http://replay.invalid", "", ""
    if info.emulator is not None:
        return info.emulator.api_url, info.emulator.token, info.emulator.proxy_url
    return settings.api_url, settings.token, settings.proxy_url
