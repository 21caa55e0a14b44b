"""What the emulator asks of an engine: run one machine, get into it, end it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal, Protocol

__all__ = [
    "GATEWAY",
    "Door",
    "Engine",
    "EngineError",
    "ExecOutcome",
    "ExitStatus",
    "GuestFile",
    "GuestMount",
    "GuestProcess",
    "ImageNotFound",
    "ImageNotPulled",
    "MachineConfigForEngine",
    "Probe",
    "Program",
    "RunningMachine",
]


GATEWAY = "fdaa::3"
"""Where machines find what the emulator serves them; on Fly it is the name server."""


class EngineError(Exception):
    """An engine could not do what was asked; the text is fit for an API answer."""


class ImageNotFound(EngineError):
    """The image has no such tag or digest."""


class ImageNotPulled(EngineError):
    """The registry cannot be reached, or does not give the image to us."""


@dataclass(frozen=True)
class Probe:
    """Whether an engine can run machines on this computer, found by really starting one.

    Attributes:
        works: It started a machine and ran a command in it.
        why: If not: what failed and what to change. Else: empty.
        notes: What a user of this engine should know (what is not enforced or isolated).
    """

    works: bool
    why: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class GuestFile:
    """A file of `config.files`, written before the main process of each boot."""

    path: str
    content: bytes
    mode: int = 0o644


@dataclass(frozen=True)
class GuestMount:
    """A volume: a directory of this computer that appears in the machine.

    Attributes:
        source: The directory.
        path: Where it appears.
        device: A block device with ext4 that the machine has mounted there, if it is one; the
            directory is empty then, and has the name of the volume.
    """

    source: Path
    path: str
    device: str = ""


@dataclass(frozen=True)
class Door:
    """A server of the emulator's that machines find in their private network.

    Attributes:
        kind: What its socket is.
        port: Where it is found.
        serve: Called with the socket, which it owns from there on: it listens if `kind` is tcp,
            and is bound if it is udp. Gives what ends the server.
        address: Where it is found.
        network: Of the machines that find it; empty for all.
    """

    kind: Literal["tcp", "udp"]
    port: int
    serve: Callable[[socket.socket], Callable[[], None]]
    address: str = GATEWAY
    network: str = ""


@dataclass(frozen=True, kw_only=True)
class Program:
    """A main process.

    Attributes:
        argv: `init.exec`, or None; see `entrypoint` and `cmd`.
        entrypoint: `init.entrypoint`; None takes the image's.
        cmd: `init.cmd`; None takes the image's.
        env: The whole environment that the emulator wants for it (config, secrets, Fly's own
            variables); the image's goes beneath it.
        user: Whom it runs as; None takes the image's.
    """

    argv: Sequence[str] | None = None
    entrypoint: Sequence[str] | None = None
    cmd: Sequence[str] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None


@dataclass(frozen=True, kw_only=True)
class MachineConfigForEngine(Program):
    """One boot of one machine, or of one of its containers; it is its own first main process.

    Attributes:
        id: Machine id.
        app: App name.
        directory: Private directory of the machine on this computer; exists, kept over
            suspend, emptied by the emulator when the root file system must be fresh.
        image: As in the config; engines that do not honour images ignore it.
        others: More main processes; the machine ends with the first of all that ends.
        hollow: The machine is there for its containers: whatever the image, its own main process
            only waits.
        beside: The hollow machine in which this one is a container: what is in it shares network,
            host name and limits, and has files and processes of its own.
        tty: Give each main process a terminal.
        hostname: The machine id, or `dns.hostname`.
        cpus: Of the guest.
        memory_mb: Of the guest.
        swap_mb: Of this computer's swap, on top of that.
        private_ip: 6PN address, also as `fly-local-6pn` in /etc/hosts.
        names: What others of its network find it by, where the engine has a name server.
        nameservers: For /etc/resolv.conf; none means the engine's choice.
        searches: Domains for /etc/resolv.conf.
        resolver_options: Options for /etc/resolv.conf, such as `ndots:2`.
        files: Written at each boot.
        mounts: A volume, and what containers share.
        root_disk: Where what the machine writes on its root file system goes, if that has a size;
            only of engines that size it.
        network: Whose machines reach each other: organization and name.
        log: File that gets stdout and stderr of the main process, appended.
    """

    id: str
    app: str
    directory: Path
    image: str
    others: Sequence[Program] = ()
    hollow: bool = False
    beside: RunningMachine | None = None
    tty: bool = False
    hostname: str
    cpus: int = 1
    memory_mb: int = 256
    swap_mb: int = 0
    private_ip: str = "::1"
    names: Sequence[str] = ()
    nameservers: Sequence[str] = ()
    searches: Sequence[str] = ()
    resolver_options: Sequence[str] = ()
    files: Sequence[GuestFile] = ()
    mounts: Sequence[GuestMount] = ()
    root_disk: GuestMount | None = None
    network: str = "default"
    log: Path


@dataclass(frozen=True, kw_only=True)
class ExitStatus:
    """How the main process ended: a code, or the signal that killed it (then code is 128+n)."""

    exit_code: int
    signal: int | None = None
    oom_killed: bool = False


@dataclass(frozen=True, kw_only=True)
class ExecOutcome:
    """How an exec ended. With `timed_out` the process goes on in the machine, as on Fly."""

    exit_code: int | None = None
    signal: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    timed_out: bool = False


@dataclass(frozen=True, kw_only=True)
class GuestProcess:
    """One process for `GET .../ps`; field meanings are those of the API's ProcessStat."""

    pid: int
    command: str
    directory: str = ""
    stime: int = 0
    rtime: int = 0
    cpu: int = 0
    rss: int = 0
    listen_sockets: Sequence[tuple[str, str]] = ()


class RunningMachine(Protocol):
    """A machine that was started and has not been waited for to its end."""

    async def wait(self) -> ExitStatus:
        """Until a main process has ended and nothing of the machine runs any more."""
        ...

    async def exec(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        timeout_s: float,
    ) -> ExecOutcome:
        """Run argv as root in `/`, inside all walls of the machine, with the machine's env.

        A program that is not there is exit code 127 with a line on stderr. Output is
        complete when every holder of stdout and stderr has closed them.
        """
        ...

    def signal(self, number: int) -> None:
        """Send a signal to every main process."""
        ...

    async def kill(self) -> None:
        """End every process of the machine at once; returns when none is left."""
        ...

    async def suspend(self) -> None:
        """Freeze every process, memory kept."""
        ...

    async def resume(self) -> None:
        """Thaw what `suspend` froze."""
        ...

    async def connect(self, port: int) -> socket.socket:
        """A non-blocking TCP socket connected to this port inside the machine.

        Raises:
            OSError: Nothing listens there.
        """
        ...

    async def open_file(self, path: str) -> IO[bytes] | None:
        """A regular file of the machine, to be read; None if there is none at this path.

        A symbolic link is none.

        Args:
            path: Absolute, without `..`.
        """
        ...

    def mounted(self, mount: GuestMount) -> Path | None:
        """Where this process finds what the machine has mounted of a device; None if nowhere."""
        ...

    async def datagrams(self, port: int) -> socket.socket:
        """A non-blocking UDP socket connected to this port of `fly-global-services` inside.

        Raises:
            OSError: The machine has ended.
        """
        ...

    async def processes(self) -> list[GuestProcess]:
        """The processes of the machine, with pids as seen inside it."""
        ...

    async def memory(self) -> tuple[int, int]:
        """Available and limit, in MiB."""
        ...


class Engine(Protocol):
    """One way to run machines. One instance serves all machines of an emulator."""

    name: str
    honours_image: bool
    takes_devices: bool
    """Whether machines can have block devices of this computer mounted; known after `probe`."""
    sizes_root: bool
    """Whether a root file system can be on such a device, too."""

    async def admit(self, doors: Sequence[Door]) -> None:
        """Have all machines find these servers, where the engine can; before the first starts."""
        ...

    async def open(self, door: Door) -> Callable[[], None] | None:
        """Have machines of a network find one more server, at an address of its own.

        Returns:
            What closes it; None if this engine has nothing of the kind.

        Raises:
            EngineError: The network is broken at the moment.
        """
        ...

    async def peer(self, address: str) -> str:
        """The 6PN address of the machine that is seen at an address; that itself if none is."""
        ...

    async def probe(self) -> Probe:
        """Start a machine for real, run a command in it, end it."""
        ...

    async def resolve_image(self, image: str) -> str:
        """Digest (`sha256:...`) of an image; made up from the name where images are ignored.

        Raises:
            ImageNotFound: It does not exist.
            ImageNotPulled: The registry says no, or nothing.
        """
        ...

    async def image_config(self, image: str) -> bytes:
        """The OCI config of an image, in JSON; only of engines that honour images.

        Raises:
            EngineError: As in `resolve_image`.
        """
        ...

    async def start(self, machine: MachineConfigForEngine) -> RunningMachine:
        """Boot a machine; returns once its main process was executed.

        Raises:
            EngineError: It could not be started.
        """
        ...

    async def discard(self, directory: Path) -> None:
        """Remove a machine's directory with whatever the engine left in it."""
        ...

    async def close(self) -> None:
        """End whatever is left of this engine's machines."""
        ...
