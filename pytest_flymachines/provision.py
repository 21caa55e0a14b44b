"""From a spec to a sandbox that is ready: launch, wait, agent, workspace.

What can travel in the machine's config does, so that the usual launch is three requests:
create, wait for `started`, and one exec that fills the workspace.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from msgspec import structs

from pytest_flymachines import foreign_agent, repository
from pytest_flymachines.agent.channel import AgentChannel
from pytest_flymachines.api import Machine
from pytest_flymachines.attempts import Created, Note
from pytest_flymachines.backend import Backend
from pytest_flymachines.creation import create
from pytest_flymachines.deadline import renew
from pytest_flymachines.errors import (
    AgentUnavailable,
    CommandFailed,
    CommandTimeout,
    FlyMachinesError,
    MachineStartFailed,
)
from pytest_flymachines.machine_config import GUEST_DIR, Identity
from pytest_flymachines.progress import Progress, silent
from pytest_flymachines.sandbox import Attachment, Sandbox
from pytest_flymachines.sandbox.api_channel import ApiChannel
from pytest_flymachines.sandbox.channel import Channel
from pytest_flymachines.sandbox.ports import EmulatorPorts, PortAccess
from pytest_flymachines.sandbox.workspace import PRISTINE
from pytest_flymachines.sharing import Launched
from pytest_flymachines.spec import SandboxSpec

__all__ = ["attach", "existing", "launch"]

PREPARE_TIMEOUT_S = 1800.0
#: What `guest/init.sh` writes into the agent's log.
_NO_PYTHON = "python3 is not on PATH"
_SETUP_FAILED = "the setup command ended"  # what prepare.sh writes
_PACK = b".pytest-flymachines.pack"
_ON_VOLUME = 3
# After a start. A machine counts as started before its init has made the workspace.
_LOOK = f"""
mkdir -p "$1" && cd "$1" || exit 1
dir="${{PYTEST_FLYMACHINES_ROOT:-}}{GUEST_DIR}"
[ ! -e "$dir/prepared" ] || exit 0
[ -e .git/pytest-flymachines-ready ] || exit 1
: >"$dir/prepared"
exit {_ON_VOLUME}
"""


def launch(
    backend: Backend,
    spec: SandboxSpec,
    identity: Identity,
    *,
    rootdir: Path,
    note: Note = lambda _: None,
    progress: Progress = silent,
) -> Launched:
    """Make a sandbox.

    Args:
        backend: Where.
        spec: What.
        identity: Name, metadata and time to live of the machine.
        rootdir: What a relative local `spec.repo` is relative to.
        note: Told of every machine and volume that may exist from now on.
        progress: Told each step.

    Raises:
        SettingsError: `spec.repo` cannot be cloned.
        MachineStartFailed: A step failed; the message has its output and what to do, and the
            machine is destroyed.
    """
    files = None
    if backend.mode != "replay":
        if spec.repo:
            repository.check_source(spec.repo, rootdir)
        foreign_agent.check(spec)
        files = foreign_agent.config_files(spec)
    progress(f"creating {identity.name} in {spec.regions[0]}", 1)
    return create(
        backend,
        spec,
        identity,
        lambda created: _ready(backend, spec, created, rootdir, progress),
        files=files,
        note=note,
        progress=progress,
    )


def _ready(
    backend: Backend,
    spec: SandboxSpec,
    created: Created,
    rootdir: Path,
    progress: Progress,
) -> Launched:
    """Make a started machine reachable, and fill its workspace."""
    machine = created.machine
    _make_reachable(backend, spec)
    launched = Launched(
        app=spec.app,
        machine_id=machine.id,
        name=created.name,
        region=machine.region,
        private_ip=machine.private_ip or "",
        workdir=spec.workdir,
        channel="api" if spec.agent == "off" else "agent",
        volume_id=created.volume_id,
    )
    progress(f"preparing the workspace of machine {machine.id}", 1)
    return _prepared(backend, spec, launched, created, rootdir)


def attach(
    backend: Backend,
    spec: SandboxSpec,
    launched: Launched,
    *,
    rootdir: Path,
    borrowed: bool = False,
) -> Sandbox:
    """The handle of a sandbox that is ready.

    Args:
        backend: Where it is.
        spec: What it was asked to be.
        launched: What the launch said of it.
        rootdir: What a relative local `spec.repo` is relative to.
        borrowed: It was there before the run, which never destroys it.
    """
    agent = launched.channel == "agent"
    return Sandbox(
        Attachment(
            client=backend.client,
            channel=_channel(backend, spec, launched, borrowed=borrowed),
            clock=backend.clock,
            app=launched.app,
            machine_id=launched.machine_id,
            region=launched.region,
            private_ip=launched.private_ip,
            spec=spec,
            workdir=launched.workdir,
            agent_url=backend.agent_address(launched.app).url if agent else None,
            # what was there before the run is not ours to fill
            revive=None if borrowed else partial(_revive, backend, spec, launched, rootdir),
            extend=partial(renew, backend.client, launched.app, launched.machine_id),
            borrowed=borrowed,
            ports=_ports(backend, launched),
            recorded=backend.recorded,
            frames=backend.frames,
            replayed=backend.mode == "replay",
        )
    )


def existing(backend: Backend, spec: SandboxSpec, machine: Machine) -> Launched:
    """A machine that was there before: with our agent if it has one, else over the API."""
    launched = Launched(
        app=spec.app,
        machine_id=machine.id,
        name=machine.name,
        region=machine.region,
        private_ip=machine.private_ip or "",
        workdir=spec.workdir,
        channel="agent" if _has_our_agent(machine) else "api",
    )
    find = (
        f'for dir in "${{PYTEST_FLYMACHINES_ROOT:-}}{spec.workdir}" "$HOME" /; do '
        'cd "$dir" 2>/dev/null && break; done; pwd'
    )
    outcome = backend.client.exec(launched.app, launched.machine_id, ["/bin/sh", "-c", find])
    tools = _tools(_channel(backend, spec, launched, borrowed=True))
    return structs.replace(launched, workdir=(outcome.stdout or "/").rstrip("\n"), tools=tools)


def _has_our_agent(machine: Machine) -> bool:
    files = (machine.config or {}).get("files") or []
    return any(file.get("guest_path") == f"{GUEST_DIR}/agent.pyz" for file in files)


def _revive(backend: Backend, spec: SandboxSpec, launched: Launched, rootdir: Path) -> str:
    """After a start: wait for the agent, and fill the workspace again where it was lost.

    A stop loses everything outside a volume, because Fly's root file system is fresh at each
    start (https://fly.io/docs/machines/overview/).
    """
    backend.patience.forget(launched.machine_id)
    argv = ["/bin/sh", "-c", _LOOK, "sh", launched.workdir]
    found = backend.client.exec(launched.app, launched.machine_id, argv).exit_code
    if found == 0:
        return ""
    if found == _ON_VOLUME:
        _complete(backend, spec, attach(backend, spec, launched, rootdir=rootdir))
        return (
            "everything written outside a volume, checkpoints too; the workspace, on a volume, is "
            "as it was, and fly_workspace copies what is there now"
        )
    _fill(backend, spec, launched, rootdir, wait=False)
    return "everything written outside a volume; the workspace was filled anew"


def _ports(backend: Backend, launched: Launched) -> PortAccess | None:
    """The emulator opens ports itself, with or without agent; else the agent's channel does."""
    if not backend.control_url:
        return None
    return EmulatorPorts(
        backend.control_transport,
        backend.control_url,
        backend.token,
        launched.app,
        launched.machine_id,
    )


def _channel(backend: Backend, spec: SandboxSpec, launched: Launched, *, borrowed: bool) -> Channel:
    """The way in; paths are relative to the workspace, which a borrowed machine may lack."""
    base = launched.workdir.encode() if borrowed else b""
    if launched.channel == "api":
        workdir = "/" if borrowed else spec.workdir
        return ApiChannel(
            backend.client,
            launched.app,
            launched.machine_id,
            backend.clock,
            workdir=workdir,
            base=base,
            tools=launched.tools,
        )
    address = backend.agent_address(launched.app)
    return AgentChannel(
        backend.agent_transport,
        base_url=address.url,
        host=address.host,
        app=launched.app,
        machine_id=launched.machine_id,
        token=backend.agent_token(launched.name),
        clock=backend.clock,
        base=base,
    )


def _make_reachable(backend: Backend, spec: SandboxSpec) -> None:
    """Give the app public addresses where it has none; the API makes apps without.

    Source: https://fly.io/docs/networking/services/.
    """
    if backend.mode != "live" or backend.proxy_url or (spec.agent == "off" and not spec.ports):
        return
    with backend.aside():
        if not backend.client.list_ips(spec.app):
            for kind in ("shared_v4", "v6"):
                backend.client.assign_ip(spec.app, kind)


def _prepared(
    backend: Backend, spec: SandboxSpec, launched: Launched, created: Created, rootdir: Path
) -> Launched:
    """Fill the workspace, over the agent when it can be reached, else over the API."""
    hopeless = partial(_without_python, backend, launched)
    try:
        with backend.patience.unless(launched.machine_id, hopeless):
            return _fill(backend, spec, launched, rootdir, wait=created.adopted)
    except AgentUnavailable as error:
        fallback = structs.replace(launched, channel="api")
        _explain_missing_agent(backend, fallback, error)
        return _fill(backend, spec, fallback, rootdir, wait=created.adopted)


def _without_python(backend: Backend, launched: Launched) -> bool:
    """Whether the machine has said so already; no cassette knows that it was asked."""
    with backend.aside(), suppress(FlyMachinesError):
        return _NO_PYTHON in _agent_log(backend, launched)
    return False


def _agent_log(backend: Backend, launched: Launched) -> str:
    show = f'cat "${{PYTEST_FLYMACHINES_ROOT:-}}{GUEST_DIR}/agent.log"'
    outcome = backend.client.exec(launched.app, launched.machine_id, ["/bin/sh", "-c", show])
    return (outcome.stdout or "").strip()


def _explain_missing_agent(backend: Backend, launched: Launched, error: AgentUnavailable) -> None:
    """Warn where the sandbox is good without agent, raise with the agent's log where not."""
    log = _agent_log(backend, launched)
    if _NO_PYTHON in log:
        reason = "the image has no python3, which the bundled cook-agent needs"
    elif "listening on" in log:
        reason = f"cook-agent runs, but cannot be reached from here ({error})"
    else:
        raise MachineStartFailed(
            f"cook-agent did not come up on machine {launched.machine_id}: {error}\n"
            f"--- its log ---\n{log or '(empty)'}\n"
            "--fly-agent=off does without it; commands then go through the Machines API."
        ) from error
    warnings.warn(
        f"machine {launched.machine_id}: {reason}; commands go through the Machines API "
        "instead, which is slower (one request a second on Fly)",
        stacklevel=2,
    )


def _fill(
    backend: Backend, spec: SandboxSpec, launched: Launched, rootdir: Path, *, wait: bool
) -> Launched:
    sandbox = attach(backend, spec, launched, rootdir=rootdir)
    env: dict[str, str] = {}
    submodules = "yes" if spec.submodules else ""
    if spec.repo is None:
        script = ["", "", "", "", ""]
    elif repository.is_local(spec.repo):
        if not wait:
            _send_bundle(backend, spec, sandbox, rootdir)
        script = ["unbundle.sh", "", "", "", submodules]
    else:
        env = repository.credentials(spec.repo) if backend.mode != "replay" else {}
        script = ["clone.sh", spec.repo, spec.ref or "", str(spec.depth or ""), submodules]
    mode = "wait" if wait else "fill"
    run = f'. "${{PYTEST_FLYMACHINES_ROOT:-}}{GUEST_DIR}/prepare.sh"'
    argv = ["/bin/sh", "-c", run, "prepare.sh", mode, *script, *spec.setup]
    with _told(spec, launched):
        printed = sandbox.exec(argv, env=env, timeout=PREPARE_TIMEOUT_S).stdout
        if not wait:
            _complete(backend, spec, sandbox)
    tools = _tools(sandbox.attachment.channel)
    return structs.replace(launched, workdir=printed.rstrip("\n"), tools=tools)


def _complete(backend: Backend, spec: SandboxSpec, sandbox: Sandbox) -> None:
    """What is beside the workspace: a copy of it, and the user's own agent."""
    sandbox.attachment.channel.save_checkpoint(PRISTINE)
    foreign_agent.deliver(sandbox, spec, replayed=backend.mode == "replay")


def _tools(channel: Channel) -> str:
    """Found out while provisioning, so that no test has to, which may not be the first to ask."""
    return channel.tools if isinstance(channel, ApiChannel) else ""


@contextmanager
def _told(spec: SandboxSpec, launched: Launched) -> Iterator[None]:
    """A failure of the workspace's preparation, in the user's terms."""
    what = f"cloning {spec.repo}" if spec.repo else "preparing the workspace"
    if spec.ref:
        what += f" at {spec.ref}"
    todo = (
        "Check --fly-repo and --fly-ref; a private repository needs FLY_GIT_TOKEN (or "
        "GITHUB_TOKEN for github.com) in the environment, or a local path. The image needs git."
    )
    try:
        yield
    except (CommandFailed, CommandTimeout) as error:
        if _SETUP_FAILED in str(error.stderr):
            what, todo = "a setup command", f"Check setup={spec.setup!r} of the sandbox's spec."
        raise MachineStartFailed(
            f"{what} failed ({error.outcome}) on machine {launched.machine_id}, which was "
            f"destroyed:{error.shown_output}\n{todo}"
        ) from error


def _send_bundle(backend: Backend, spec: SandboxSpec, sandbox: Sandbox, rootdir: Path) -> None:
    """Pack the local repository and upload it; a replay has nothing to pack."""
    write = partial(sandbox.attachment.channel.write, _PACK, mode=0o600, parents=False)
    if backend.mode == "replay":
        write(iter(()))
        return
    path = (rootdir / Path(spec.repo or ".").expanduser()).resolve()
    with repository.pack(path, ref=spec.ref, depth=spec.depth) as bundle:
        write(bundle.pieces())
