"""The command line of the emulator."""

from __future__ import annotations

import argparse
import ipaddress
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_flymachines.emulator.faults import KINDS, Fault, FaultError, parse_fault
from pytest_flymachines.emulator.regions import REGIONS

__all__ = ["LOOPBACK", "Options", "parse"]

LOOPBACK = "127.0.0.1"
ENGINES = ("auto", "bubblewrap", "docker", "process")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What an emulator is asked to be; see the help texts of `parse`."""

    host: str = LOOPBACK
    allow_hosts: tuple[str, ...] = ()
    port: int = 0
    control_port: int = 0
    proxy_port: int = 0
    engine: str = "auto"
    rate_limits: bool = True
    latency_s: float = 0.0
    list_delay_s: float = 0.0
    state: Path | None = None
    faults: tuple[Fault, ...] = ()
    apps: tuple[str, ...] = ()
    org: str = "personal"
    region: str = "ord"
    owner_pid: int | None = None
    ready_fd: int | None = None
    log: Path | None = None
    token: str = ""


def parse(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> Options:
    """Read the command line; a wrong value ends the program with a message.

    The token is `FLY_API_TOKEN` of the environment, else one is made.
    """
    parser = argparse.ArgumentParser(
        prog="pytest-flymachines emulator",
        description="Serve Fly's Machines API on loopback; every machine really runs.",
    )
    add = parser.add_argument
    add(
        "--host",
        type=_address,
        default=LOOPBACK,
        metavar="ADDRESS",
        help="where everything listens; 0.0.0.0 is every address of this computer: whoever has the "
        "token can then run programs here",
    )
    add(
        "--allow-host",
        type=_host_name,
        action="append",
        default=[],
        metavar="NAME",
        help="a name by which clients call this computer, beside loopback's and addresses",
    )
    add("--port", type=_port, default=0, help="of the API; 0 takes a free one")
    add("--control-port", type=_port, default=0, help="of the control interface")
    add("--proxy-port", type=_port, default=0, help="of the HTTP proxy in front of services")
    add("--engine", choices=ENGINES, default="auto", help="what runs the machines")
    add("--rate-limits", choices=("on", "off"), default="on", help="Fly's limits of frequency")
    add("--latency", type=_milliseconds, default=0.0, metavar="MS", help="added to every answer")
    add(
        "--list-delay",
        type=_milliseconds,
        default=0.0,
        metavar="MS",
        help="lists show the machines as they were this long ago",
    )
    add("--state", type=Path, metavar="DIR", help="keep apps, machines and volumes here")
    add(
        "--fault",
        type=_fault,
        action="append",
        default=[],
        metavar="SPEC",
        help=f"kind[=value][,key=value]...; kinds: {', '.join(KINDS)}",
    )
    add("--app", type=_app, action="append", default=[], metavar="NAME", help="make this app")
    add("--org", default="personal", metavar="SLUG", help="organization of the token")
    add("--region", choices=sorted(REGIONS), default="ord", help="the nearest region")
    add("--owner-pid", type=int, metavar="PID", help="end when this process has ended")
    add("--ready-fd", type=int, metavar="FD", help="write the ready line here")
    add("--log", type=Path, metavar="FILE", help="append the request log to this file")
    given = parser.parse_args(argv)
    return Options(
        host=given.host,
        allow_hosts=tuple(given.allow_host),
        port=given.port,
        control_port=given.control_port,
        proxy_port=given.proxy_port,
        engine=given.engine,
        rate_limits=given.rate_limits == "on",
        latency_s=given.latency,
        list_delay_s=given.list_delay,
        state=given.state,
        faults=tuple(given.fault),
        apps=tuple(given.app),
        org=given.org,
        region=given.region,
        owner_pid=given.owner_pid,
        ready_fd=given.ready_fd,
        log=given.log,
        token=environ.get("FLY_API_TOKEN", "").strip() or f"emu-{secrets.token_hex(16)}",
    )


def _address(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an IPv4 address of this computer, such as {LOOPBACK}; "
            "0.0.0.0 is all of them"
        ) from None


def _host_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name of a host, without a port")
    return text.lower()


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def _milliseconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 600_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of milliseconds")
    return value / 1000


def _fault(text: str) -> Fault:
    try:
        return parse_fault(text)
    except FaultError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _app(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9-]{1,63}", text):
        raise argparse.ArgumentTypeError(
            f"app name {text!r} is not up to 63 of a-z, 0-9 and dashes"
        )
    return text
