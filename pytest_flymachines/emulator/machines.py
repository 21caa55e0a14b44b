"""Machines: create, get, list, update, destroy."""

from __future__ import annotations

from starlette.responses import Response

from pytest_flymachines.emulator import fields, ids, leases
from pytest_flymachines.emulator.answers import Problem, answer, failed_precondition, ok
from pytest_flymachines.emulator.call import APP, MACHINE, Call, Routes, boolean
from pytest_flymachines.emulator.config import CreateRequest, MachineConfig
from pytest_flymachines.emulator.emulator import Emulator
from pytest_flymachines.emulator.faults import cause
from pytest_flymachines.emulator.images import resolve_all
from pytest_flymachines.emulator.model import App, Machine, Version
from pytest_flymachines.emulator.regions import choose_region, regions_of
from pytest_flymachines.emulator.render import machine_json
from pytest_flymachines.emulator.validate import normalize, validate
from pytest_flymachines.emulator.volumes import claim, mount

__all__ = ["routes"]

routes = Routes()

MACHINES = APP + "/machines"
MAX_VERSIONS = 50
MAX_MACHINES = 500


@routes.on("POST", MACHINES)
async def create(call: Call) -> Response:
    """Create a machine, and launch it unless `skip_launch`."""
    app = call.app()
    body = call.body(CreateRequest, "main.createMachineRequest")
    emulator = call.emulator
    config = _checked(body.config)
    fields.name("name", body.name)
    name = body.name or ids.machine_name()
    _unique(emulator, app, name)
    region = choose_region(body.region, emulator.region)
    ttl_s = leases.bounded("lease_ttl", body.lease_ttl)
    machine_id = ids.machine_id()
    # The image is looked up meanwhile; nobody else may take the name.
    emulator.creating[app.name, name] = machine_id
    try:
        digest = await resolve_all(emulator.flyd.engine, config)
    finally:
        del emulator.creating[app.name, name]
    app = call.app()
    version = ids.new_ulid()
    machine = Machine(
        id=machine_id,
        name=name,
        app=app.name,
        region=region,
        instance_id=version,
        config=config,
        private_ip=ids.private_ip(app.org, app.network, machine_id),
        digest=digest,
        cordoned=body.skip_service_registration,
        skip_secrets=body.skip_secrets,
        versions=[Version(version, config)],
    )
    _capacity(emulator, machine)
    claim(emulator, machine, body.region)
    normalize(config)
    lease = leases.grant(call, machine, ttl_s) if ttl_s else None
    emulator.flyd.adopt(machine).launch(skip=body.skip_launch)
    return answer(machine_json(machine, nonce=lease.nonce if lease else None))


@routes.on("GET", MACHINES)
async def list_machines(call: Call) -> Response:
    """The machines of an app, as they were `list_delay_s` ago."""
    app = call.app()
    params = call.request.query_params
    summary = boolean(call.query("summary"), where="summary")
    deleted = boolean(call.query("include_deleted"), where="include_deleted")
    states = {state for text in params.getlist("state") for state in text.split(",") if state}
    regions = regions_of(params["region"]) if params.get("region") else None
    metadata = {
        key.removeprefix("metadata."): value
        for key, value in params.multi_items()
        if key.startswith("metadata.")
    }
    shown = [
        machine_json(machine, summary=summary)
        for machine in call.emulator.flyd.listed(app.name)
        if (machine.state in states if states else deleted or machine.state != "destroyed")
        and (regions is None or machine.region in regions)
        and metadata.items() <= (machine.config.metadata or {}).items()
    ]
    return answer(shown)


@routes.on("GET", MACHINE)
async def get(call: Call) -> Response:
    """One machine."""
    machine = call.life().machine
    lease = leases.held_lease(machine)
    mine = lease and call.header("fly-machine-lease-nonce") == lease.nonce
    return answer(machine_json(machine, nonce=lease.nonce if lease and mine else None))


@routes.on("POST", MACHINE)
async def update(call: Call) -> Response:
    """Replace the config; a machine that runs is stopped and started with the new one."""
    life = call.live()
    machine, emulator = life.machine, call.emulator
    body = call.body(CreateRequest, "main.updateMachineRequest")
    leases.require(call, life)
    _present(machine, body.current_version)
    config = _checked(body.config)
    ttl_s = leases.bounded("lease_ttl", body.lease_ttl)
    mounted = config.mounts[0].volume if config.mounts else ""
    if mounted != machine.volume and mounted != _volume_name(emulator, machine.volume):
        raise Problem(400, "invalid config.mounts, the volume of a machine cannot be changed")
    digest = await resolve_all(emulator.flyd.engine, config)
    call.live()  # Others may have been served while the image was looked up.
    leases.require(call, life)
    _present(machine, body.current_version)
    mount(emulator, machine.app, config)
    normalize(config)

    def apply() -> None:
        machine.config, machine.digest, machine.containers = config, digest, {}
        machine.instance_id = ids.new_ulid()
        machine.skip_secrets = body.skip_secrets
        machine.versions.append(Version(machine.instance_id, config))
        del machine.versions[:-MAX_VERSIONS]

    life.replace(apply, skip_launch=body.skip_launch)
    emulator.flyd.schedules.arm(life)
    lease = leases.held_lease(machine)
    if ttl_s:
        lease = leases.grant(call, machine, ttl_s)
    return answer(machine_json(machine, nonce=lease.nonce if lease else None))


@routes.on("DELETE", MACHINE)
async def destroy(call: Call) -> Response:
    """Destroy a machine; one that runs needs `force` (fly-go says `kill`)."""
    life = call.live()
    force = boolean(call.query("force"), where="force") or boolean(call.query("kill"), where="kill")
    leases.require(call, life)
    life.destroy(force=force)
    return ok()


def _present(machine: Machine, version: str) -> None:
    """Refuse an update that is meant for another version."""
    if version and version != machine.instance_id:
        raise failed_precondition(
            f"machine version mismatch, expected {version}, currently {machine.instance_id}"
        )


def _checked(config: MachineConfig | None) -> MachineConfig:
    if config is None:
        raise Problem(400, "invalid config, must be set")
    validate(config)
    return config


def _unique(emulator: Emulator, app: App, name: str) -> None:
    taken = {
        machine.name: machine.id
        for machine in emulator.store.machines_of(app.name)
        if not machine.destroyed_ms
    }
    holder = taken.get(name) or emulator.creating.get((app.name, name))
    if holder:
        raise Problem(
            409,
            "already_exists: unique machine name violation, "
            f'machine ID {holder} already exists with name "{name}"',
        )


def _capacity(emulator: Emulator, machine: Machine) -> None:
    alive = sum(not other.destroyed_ms for other in emulator.store.machines.values())
    if alive >= MAX_MACHINES or emulator.faults.take("capacity", machine, cause()):
        raise Problem(422, "could not find a candidate host", code="insufficient_capacity")


def _volume_name(emulator: Emulator, volume_id: str) -> str | None:
    volume = emulator.store.volumes.get(volume_id)
    return volume.name if volume else None
