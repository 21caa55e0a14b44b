"""The emulator as a process: sockets, engine, ready line, owner, signals, clean ending."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from pytest_flymachines.emulator.api import api
from pytest_flymachines.emulator.apps import create_app
from pytest_flymachines.emulator.auth import Hosts, Tokens
from pytest_flymachines.emulator.config import encode
from pytest_flymachines.emulator.control import Control
from pytest_flymachines.emulator.emulator import Emulator
from pytest_flymachines.emulator.engines.base import Engine, EngineError, Probe
from pytest_flymachines.emulator.engines.egress import Policy
from pytest_flymachines.emulator.faults import Faults
from pytest_flymachines.emulator.flyd import Flyd, Timings
from pytest_flymachines.emulator.greeting import greeting
from pytest_flymachines.emulator.nameserver import NameServer
from pytest_flymachines.emulator.options import LOOPBACK, Options
from pytest_flymachines.emulator.owner import OwnerGone, watch
from pytest_flymachines.emulator.proxied import serve_proxy
from pytest_flymachines.emulator.proxy.inside import Inside
from pytest_flymachines.emulator.proxy.listener import dialled
from pytest_flymachines.emulator.ratelimit import RateLimits
from pytest_flymachines.emulator.requestlog import RequestLog
from pytest_flymachines.emulator.rundir import (
    RunDirectory,
    StateLocked,
    dead_directories,
    lock_state,
)
from pytest_flymachines.emulator.store import StateError, Store

__all__ = ["CannotServe", "Chooser", "serve"]

Chooser = Callable[[str, Path], Awaitable[tuple[Engine, Probe, list[str]]]]

DATABASE = "emulator.sqlite3"
CLOSE_S = 10.0
DESCRIPTORS = 10240  # as Fly's init gives them to a machine


class CannotServe(Exception):
    """The emulator cannot start; the text says why and what to change."""


class _Protocol(H11Protocol):
    """Lets the application reach the connection, to break it when a fault says so."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio does this for sockets made as IPPROTO_TCP only; without it each answer, sent
        # in two parts, waits 40 ms for the client's delayed acknowledgement.
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)  # type: ignore[arg-type]  # of asyncio's own making
        self.app_state = {**self.app_state, "transport": transport}


class _Server(uvicorn.Server):
    """Leaves the signals of the process alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(options: Options, choose: Chooser, timings: Timings | None = None) -> None:
    """Serve until a signal, `/shutdown` or the end of the owner.

    Raises:
        CannotServe: A port or the state directory is in use, no engine works, the owner is gone.
    """
    _allow_descriptors()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # under nohup, or behind a script's `&`, they are ignored, and machines would inherit that
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    requests = RequestLog(options.log, options.token)
    # Machines must not depend on whose umask it is: theirs is 022, as on Fly. What is the
    # emulator's own is in directories that nobody else may enter; the log has the user's.
    os.umask(0o022)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(requests.close)
        owner = stack.enter_context(contextlib.ExitStack())
        if options.owner_pid is not None:
            try:
                owner.callback(watch(options.owner_pid, stop.set))
            except OwnerGone as error:
                raise CannotServe(str(error)) from None
        sockets = {
            name: stack.enter_context(_bind(option, options.host, port))
            for name, option, port in (
                ("api", "--port", options.port),
                ("control", "--control-port", options.control_port),
            )
        }
        if options.state:
            try:
                stack.enter_context(lock_state(options.state))
            except StateLocked as error:
                raise CannotServe(str(error)) from None
            except OSError as error:
                raise CannotServe(
                    f"--state={options.state}: {error.strerror or error}; it must be a directory "
                    "that you may write to, or one that you may make"
                ) from None
        try:
            policy = Policy.from_environment()
        except ValueError as error:
            raise CannotServe(str(error)) from None
        run = RunDirectory()
        try:
            engine, probe, why_others_failed = await choose(options.engine, run.path)
        except EngineError as error:
            await run.remove(_remove_tree)
            raise CannotServe(str(error)) from None
        stack.push_async_callback(run.remove, engine.discard)
        try:
            emulator = _emulator(options, engine, run.path, timings or Timings(), requests)
        except StateError as error:
            raise CannotServe(f"--state={options.state}: {error}") from None
        stack.push_async_callback(emulator.flyd.close, CLOSE_S)
        try:
            proxy = await serve_proxy(
                emulator, options.host, options.proxy_port, names=options.allow_hosts
            )
        except OSError as error:
            raise _taken("--proxy-port", options.host, options.proxy_port, error) from None
        stack.push_async_callback(proxy.close)
        doors = run.path / "fly"
        doors.mkdir(mode=0o700)
        inside = Inside(sockets["api"].getsockname(), emulator.tokens.token, doors)
        stack.push_async_callback(inside.close)
        emulator.flyd.inside = inside
        names = NameServer(emulator.store, forwards=policy.enabled, who=engine.peer)
        await engine.admit([*names.doors(), inside.at_private_address()])
        about = {
            "api_url": _url(sockets["api"]),
            "proxy_url": proxy.url,
            "control_url": _url(sockets["control"]),
            "token": emulator.tokens.token,
            "pid": os.getpid(),
            "engine": engine.name,
            "notes": [*probe.notes, *why_others_failed],
        }

        def disown() -> None:
            owner.close()
            emulator.flyd.spawn(_until_empty(emulator.store, stop.set), "disowned")

        control = Control(emulator, proxy, about, stop.set, disown)
        apps: dict[socket.socket, ASGIApp] = {
            sockets["api"]: api(emulator),
            sockets["control"]: control,
        }
        await stack.enter_async_context(_serving(apps))
        _say_ready(options, about)
        emulator.flyd.spawn(_sweep(engine), "sweep")
        await stop.wait()


def _allow_descriptors() -> None:
    """Each visitor of the proxy takes two; many users may have 1024 unless they ask for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < DESCRIPTORS:  # -1 is no limit
        wanted = DESCRIPTORS if hard < 0 else min(DESCRIPTORS, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _emulator(
    options: Options, engine: Engine, directory: Path, timings: Timings, requests: RequestLog
) -> Emulator:
    kept = options.state or directory
    store = Store(kept / DATABASE if options.state else None)
    faults = Faults(list(options.faults))
    if options.list_delay_s:
        timings = replace(timings, list_delay_s=options.list_delay_s)
    flyd = Flyd(store, engine, kept, timings=timings, faults=faults, log=requests.say)
    emulator = Emulator(
        store=store,
        flyd=flyd,
        tokens=Tokens(options.token),
        faults=faults,
        limits=RateLimits(enabled=options.rate_limits),
        requests=requests,
        org=options.org,
        region=options.region,
        latency_s=options.latency_s,
        hosts=Hosts(options.host != LOOPBACK, frozenset(options.allow_hosts)),
    )
    flyd.recover()
    for name in options.apps:
        if name not in store.apps:
            create_app(emulator, name, options.org)
    store.flush()
    return emulator


@contextlib.asynccontextmanager
async def _serving(apps: Mapping[socket.socket, ASGIApp]) -> AsyncIterator[None]:
    """Serve each application on its socket."""
    servers = [_Server(_config(app)) for app in apps.values()]
    tasks = [
        asyncio.create_task(server.serve(sockets=[listener]))
        for server, listener in zip(servers, apps, strict=True)
    ]
    while not all(server.started for server in servers):
        await asyncio.sleep(0)
    try:
        yield
    finally:
        for server in servers:
            # Waits that are still open have no answer to come.
            server.should_exit = server.force_exit = True
        await asyncio.gather(*tasks)


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=600,
        limit_concurrency=1000,
    )


def _bind(option: str, host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=512)
    except OSError as error:
        raise _taken(option, host, port, error) from None


def _taken(option: str, host: str, port: int, error: OSError) -> CannotServe:
    why = os.strerror(error.errno) if error.errno else str(error)
    if error.errno == errno.EADDRNOTAVAIL:
        return CannotServe(f"--host={host}: this computer does not have that address ({why})")
    return CannotServe(
        f"{option}={port}: cannot listen on {host}:{port} ({why}); "
        "name another port, or 0 for a free one"
    )


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()
    return f"http://{dialled(host)}:{port}"


def _say_ready(options: Options, about: dict[str, Any]) -> None:
    line = encode(about) + b"\n"
    if options.ready_fd is None:
        person = sys.stdout.isatty()
        sys.stdout.buffer.write(greeting(about).encode() if person else line)
        sys.stdout.buffer.flush()
    else:
        os.write(options.ready_fd, line)
        os.close(options.ready_fd)


async def _until_empty(store: Store, stop: Callable[[], None]) -> None:
    """Stop when the last machine is gone."""
    while any(machine.state != "destroyed" for machine in store.machines.values()):
        await asyncio.sleep(1)
    stop()


async def _remove_tree(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)


async def _sweep(engine: Engine) -> None:
    """Remove what killed emulators of this user left behind."""
    for directory in dead_directories():
        await engine.discard(directory)
