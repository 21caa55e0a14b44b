"""From a machine's record to what an engine boots: environment, files, mounts, argv."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_flymachines.emulator.config import DnsOption, File, Init, Process
from pytest_flymachines.emulator.engines.base import (
    EngineError,
    GuestFile,
    GuestMount,
    MachineConfigForEngine,
    Program,
)
from pytest_flymachines.emulator.model import App, Machine
from pytest_flymachines.emulator.names import names_of

__all__ = ["environment", "files_for", "for_engine"]


def for_engine(
    machine: Machine,
    app: App,
    directory: Path,
    mounts: Sequence[GuestMount],
    log: Path,
    image_configs: Mapping[str, bytes],
) -> MachineConfigForEngine:
    """One boot of this machine.

    Args:
        machine: The record.
        app: Its app, for the secrets.
        directory: The machine's own directory.
        mounts: Its volumes.
        log: Gets the output of the main process.
        image_configs: By image, for the files that are such.

    Raises:
        EngineError: A file needs a secret that is not there or is not base64.
    """
    config = machine.config
    first, *others = [
        _program(machine, app, process, config.init) for process in config.processes or [Process()]
    ]
    guest = config.guest
    return MachineConfigForEngine(
        id=machine.id,
        app=machine.app,
        directory=directory,
        image=config.image,
        argv=first.argv,
        entrypoint=first.entrypoint,
        cmd=first.cmd,
        env=first.env,
        user=first.user,
        others=others,
        hollow=bool(config.containers),
        tty=config.init.tty,
        hostname=config.dns.hostname or machine.id,
        cpus=guest.cpus if guest else 1,
        memory_mb=guest.memory_mb if guest else 256,
        swap_mb=config.init.swap_size_mb or 0,
        private_ip=machine.private_ip,
        names=names_of(machine),
        nameservers=config.dns.nameservers or (),
        searches=config.dns.searches or (),
        resolver_options=[_option(option) for option in config.dns.options or ()],
        files=files_for(config.files, app, image_configs),
        mounts=mounts,
        network=f"{app.org}/{app.network}",
        log=log,
    )


def _program(machine: Machine, app: App, process: Process, init: Init) -> Program:
    return Program(
        argv=process.exec or init.exec or None,
        entrypoint=process.entrypoint if process.entrypoint is not None else init.entrypoint,
        cmd=process.cmd if process.cmd is not None else init.cmd,
        env=environment(machine, app, process),
        user=process.user or None,
    )


def _option(option: DnsOption) -> str:
    return f"{option.name}:{option.value}" if option.value else option.name


def environment(machine: Machine, app: App, process: Process) -> dict[str, str]:
    """The environment of a process of this machine.

    An app secret goes over `env` (https://fly.io/docs/reference/configuration/), and Fly's own
    variables over both (https://fly.io/docs/machines/runtime-environment/).
    """
    config = machine.config
    env = dict(config.env or {})
    if not (machine.skip_secrets or process.ignore_app_secrets):
        env |= {secret.name: secret.value for secret in app.secrets.values()}
    env |= process.env or {}
    for wanted in process.secrets or ():
        if secret := app.secrets.get(wanted.name or wanted.env_var):
            env[wanted.env_var] = secret.value
    fields = {
        "id": machine.id,
        "version": machine.instance_id,
        "app_name": machine.app,
        "private_ip": machine.private_ip,
        "region": machine.region,
        "image": machine.image,
    }
    for source in process.env_from or ():
        env[source.env_var] = fields.get(source.field_ref, "")
    memory_mb = config.guest.memory_mb if config.guest else 256
    return env | {
        "FLY_APP_NAME": machine.app,
        "FLY_MACHINE_ID": machine.id,
        "FLY_ALLOC_ID": machine.id,
        "FLY_MACHINE_VERSION": machine.instance_id,
        "FLY_REGION": machine.region,
        "FLY_PRIVATE_IP": machine.private_ip,
        "FLY_PUBLIC_IP": machine.private_ip.replace("fdaa:", "2605:4c40:", 1),
        "FLY_IMAGE_REF": machine.image,
        "FLY_VM_MEMORY_MB": str(memory_mb),
        "FLY_PROCESS_GROUP": (config.metadata or {}).get("fly_process_group", ""),
    }


def files_for(
    given: list[File] | None, app: App, image_configs: Mapping[str, bytes]
) -> list[GuestFile]:
    """Files of a config with their contents.

    Raises:
        EngineError: One needs a secret that is not there or is not base64.
    """
    files = []
    for file in given or ():
        if file.image_config:
            config = image_configs[file.image_config]
            files.append(GuestFile(file.guest_path, config, file.mode or 0o644))
            continue
        if file.secret_name:
            secret = app.secrets.get(file.secret_name)
            if secret is None:
                raise EngineError(f"secret {file.secret_name} for {file.guest_path} does not exist")
            content = secret.value
        else:
            content = file.raw_value or ""
        try:
            raw = base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError):
            raise EngineError(f"content of file {file.guest_path} is not base64") from None
        files.append(GuestFile(file.guest_path, raw, file.mode or 0o644))
    return files
