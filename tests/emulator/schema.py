"""The shapes of the API's answers, written down once more and by hand: what clients may rely on.

Every answer that the test client gets is checked against its shape, and against Fly's document.
"""

from __future__ import annotations

import re
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]  # it has no stubs of its own

from tests.emulator.openapi import validate_answer

JSON = dict[str, Any]

STRING: JSON = {"type": "string"}
INTEGER: JSON = {"type": "integer"}
NUMBER: JSON = {"type": "number"}
BOOLEAN: JSON = {"type": "boolean"}
ANY: JSON = {}
STRINGS: JSON = {"type": "array", "items": STRING}
STRING_MAP: JSON = {"type": "object", "additionalProperties": STRING}
TIME = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"}
TIME_MS = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"}
ULID = {"type": "string", "pattern": r"^[0-9A-HJKMNP-TV-Z]{26}$"}
MACHINE_ID = {"type": "string", "pattern": r"^[0-9a-f]{14}$"}
VOLUME_ID = {"type": "string", "pattern": r"^vol_[0-9a-z]{16}$"}
DURATION = {"type": "string", "pattern": r"^-?(\d+(\.\d+)?(h|m|s|ms|µs|ns))+$"}


def an(**fields: JSON) -> JSON:
    """An object without other fields; one whose name ends in `__` may be missing."""
    names = {name.removesuffix("__"): shape for name, shape in fields.items()}
    return {
        "type": "object",
        "properties": names,
        "required": [name for name in fields if not name.endswith("__")],
        "additionalProperties": False,
    }


def many(shape: JSON) -> JSON:
    return {"type": "array", "items": shape}


def null_or(shape: JSON) -> JSON:
    return {"anyOf": [{"type": "null"}, shape]}


def one_of(*values: object) -> JSON:
    return {"enum": list(values)}


STATES = one_of(
    *("created", "starting", "started", "stopping", "stopped", "suspending", "suspended"),
    *("restarting", "replacing", "destroying", "destroyed", "failed", "launch_failed"),
)
GUEST = an(
    cpu_kind=one_of("shared", "performance"),
    cpus=INTEGER,
    memory_mb=INTEGER,
    kernel_args__=STRINGS,
    persist_rootfs__=STRING,
)
HEADERS = many(an(name=STRING, values__=STRINGS))
CHECK = an(
    type__=one_of("tcp", "http"),
    port__=INTEGER,
    kind__=one_of("informational", "readiness"),
    interval__=DURATION,
    timeout__=DURATION,
    grace_period__=DURATION,
    method__=STRING,
    path__=STRING,
    protocol__=STRING,
    tls_skip_verify__=BOOLEAN,
    tls_server_name__=STRING,
    headers__=HEADERS,
)
PORT = an(
    port__=INTEGER,
    start_port__=INTEGER,
    end_port__=INTEGER,
    handlers__=STRINGS,
    force_https__=BOOLEAN,
    http_options__={"type": "object"},
    tls_options__={"type": "object"},
    proxy_proto_options__={"type": "object"},
)
SERVICE = an(
    protocol=one_of("tcp", "udp"),
    internal_port=INTEGER,
    autostop__=one_of(True, False, "suspend"),
    autostart__=BOOLEAN,
    min_machines_running__=INTEGER,
    ports__=many(PORT),
    checks__=many(CHECK),
    concurrency__=an(type=STRING, soft_limit__=INTEGER, hard_limit__=INTEGER),
    force_instance_key=null_or(STRING),
    force_instance_description__=STRING,
)
CONTAINER = an(
    name=STRING,
    image=STRING,
    exec__=STRINGS,
    entrypoint__=STRINGS,
    cmd__=STRINGS,
    user__=STRING,
    env__=STRING_MAP,
    env_from__=many(an(env_var=STRING, field_ref=STRING)),
    secrets__=many(an(env_var=STRING, name__=STRING)),
    files__=many({"type": "object"}),
    restart__=an(policy__=STRING, max_retries__=INTEGER),
    stop__=an(signal__=STRING, timeout__=DURATION),
    depends_on__=many(
        an(name=STRING, condition=one_of("exited_successfully", "healthy", "started"))
    ),
    healthchecks__=many({"type": "object"}),
    mounts__=many(an(name=STRING, path=STRING)),
)
CONFIG = an(
    image__=STRING,
    init=an(
        exec__=STRINGS,
        entrypoint__=STRINGS,
        cmd__=STRINGS,
        tty__=BOOLEAN,
        swap_size_mb__=INTEGER,
        kernel_args__=STRINGS,
    ),
    guest=GUEST,
    dns=an(
        skip_registration__=BOOLEAN,
        nameservers__=STRINGS,
        searches__=STRINGS,
        options__=many(an(name=STRING, value=STRING)),
        hostname__=STRING,
    ),
    env__=STRING_MAP,
    size__=STRING,
    metadata__=STRING_MAP,
    mounts__=many(
        an(volume=VOLUME_ID, path=STRING, name=STRING, size_gb=INTEGER, encrypted__=BOOLEAN)
    ),
    services__=many(SERVICE),
    checks__={"type": "object", "additionalProperties": CHECK},
    files__=many(
        an(
            guest_path=STRING,
            raw_value__=STRING,
            secret_name__=STRING,
            image_config__=STRING,
            mode__=INTEGER,
        )
    ),
    schedule__=one_of("hourly", "daily", "weekly", "monthly"),
    auto_destroy__=BOOLEAN,
    restart__=an(policy__=STRING, max_retries__=INTEGER),
    stop_config__=an(signal__=STRING, timeout__=DURATION),
    processes__=many({"type": "object"}),
    containers__=many(CONTAINER),
    volumes__=many({"type": "object"}),
    standbys__=STRINGS,
    metrics__=an(port=INTEGER, path__=STRING, https__=BOOLEAN),
    statics__=many(
        an(
            guest_path=STRING,
            url_prefix=STRING,
            tigris_bucket__=STRING,
            index_document__=STRING,
        )
    ),
    rootfs__=an(persist__=STRING, size_gb__=INTEGER),
)
EXIT_EVENT = an(
    exit_code=INTEGER,
    guest_exit_code=INTEGER,
    guest_signal=INTEGER,
    signal=INTEGER,
    oom_killed=BOOLEAN,
    requested_stop=BOOLEAN,
    restarting=BOOLEAN,
    exited_at=TIME_MS,
)
EVENT: JSON = {
    "oneOf": [
        an(
            id=ULID,
            type=one_of("exit"),
            status=one_of("stopped"),
            source=one_of("flyd"),
            timestamp=INTEGER,
            request=an(exit_event=EXIT_EVENT, restart_count=INTEGER),
        ),
        an(
            id=ULID,
            type=one_of("launch", "start", "restart", "stop", "suspend", "update", "destroy"),
            status=STATES,
            source=one_of("user", "flyd", "proxy"),
            timestamp=INTEGER,
            request__={"type": "object"},
        ),
    ]
}
IMAGE_REF = an(
    registry=STRING,
    repository=STRING,
    tag=STRING,
    digest={"type": "string", "pattern": r"^sha256:[0-9a-f]{64}$"},
    labels=STRING_MAP,
)
MACHINE = an(
    id=MACHINE_ID,
    name=STRING,
    state=STATES,
    region={"type": "string", "pattern": "^[a-z]{3}$"},
    image_ref=IMAGE_REF,
    instance_id=ULID,
    version=ULID,
    private_ip={"type": "string", "pattern": "^fdaa:"},
    created_at=TIME,
    updated_at=TIME,
    cordoned=BOOLEAN,
    config__=null_or(CONFIG),
    incomplete_config__=CONFIG,
    events__=many(EVENT),
    host_status__=one_of("ok", "unreachable"),
    checks__=many(
        an(
            name=STRING,
            status=one_of("passing", "warning", "critical"),
            output=STRING,
            updated_at=TIME,
        )
    ),
    containers__=many(an(name=STRING, state=one_of("created", "started", "stopped"))),
    nonce__={"type": "string", "pattern": "^[0-9a-f]{12}$"},
)
ORG = an(name=STRING, slug=STRING, internal_numeric_id=INTEGER)
APP = an(
    id={"type": "string", "pattern": "^[0-9a-z]{16}$"},
    internal_numeric_id=INTEGER,
    name=STRING,
    network=STRING,
    status=one_of("pending", "deployed"),
    machine_count=INTEGER,
    volume_count=INTEGER,
    organization=ORG,
    cname_target=STRING,
    app_role=STRING,
    created_at__=INTEGER,
)
LISTED_APP = an(id=STRING, name=STRING, machine_count=INTEGER, volume_count=INTEGER, network=STRING)
VOLUME_FIELDS = {
    "id": VOLUME_ID,
    "name": STRING,
    "state": one_of("created", "pending_destroy"),
    "size_gb": INTEGER,
    "region": STRING,
    "zone": {"type": "string", "pattern": "^[0-9a-f]{4}$"},
    "encrypted": BOOLEAN,
    "attached_machine_id": null_or(MACHINE_ID),
    "attached_alloc_id": null_or(STRING),
    "created_at": TIME_MS,
    "blocks__": INTEGER,
    "block_size__": INTEGER,
    "blocks_free__": INTEGER,
    "blocks_avail__": INTEGER,
    "bytes_used__": INTEGER,
    "bytes_total__": INTEGER,
    "fstype__": STRING,
    "snapshot_retention__": INTEGER,
    "auto_backup_enabled__": BOOLEAN,
    "host_dedication_key__": STRING,
    "type__": one_of("local"),
    "host_status__": one_of("ok", "unreachable"),
}
VOLUME = an(**VOLUME_FIELDS)
SNAPSHOT = an(
    id={"type": "string", "pattern": "^vs_[0-9a-z]{22}$"},
    size=INTEGER,
    volume_size=INTEGER,
    digest=STRING,
    created_at=TIME,
    status=one_of("pending", "created"),
    retention_days=INTEGER,
)
OK = an(ok=one_of(True))
LEASE = an(
    nonce={"type": "string", "pattern": "^[0-9a-f]{12}$"},
    expires_at=INTEGER,
    owner=STRING,
    description=STRING,
    version=ULID,
)
SECRET = an(name=STRING, digest=STRING, created_at=TIME, updated_at=TIME, value__=STRING)
VERSION = {"version": INTEGER, "Version": INTEGER}
IP = an(ip=STRING, region=STRING, service_name=STRING, shared=BOOLEAN, created_at=TIME)
ORG_MACHINE = an(
    app_name=STRING,
    id=MACHINE_ID,
    name=STRING,
    state=STATES,
    region=STRING,
    version=ULID,
    instance_id=ULID,
    private_ip=STRING,
    created_at=TIME,
    updated_at=TIME,
    config__=an(guest=GUEST, image=STRING, metadata=STRING_MAP),
)
REGION = an(
    code=STRING,
    name=STRING,
    latitude=NUMBER,
    longitude=NUMBER,
    gateway_available=BOOLEAN,
    requires_paid_plan=BOOLEAN,
    deprecated=BOOLEAN,
    geo_region=STRING,
)
PROCESS = an(
    pid=INTEGER,
    stime=INTEGER,
    rtime=INTEGER,
    command=STRING,
    directory=STRING,
    cpu=INTEGER,
    rss=INTEGER,
    listen_sockets=many(an(proto=STRING, address=STRING)),
)
MEMORY = an(available_mb=INTEGER, limit_mb=INTEGER)
BACKUP = an(
    id=STRING, app_id=STRING, volume_id=VOLUME_ID, state=STRING, type=STRING, created_at=TIME
)
TOKEN = an(
    token_id=STRING,
    organization=STRING,
    org_slug=STRING,
    apps=STRINGS,
    user=STRING,
    source_machine_id=STRING,
    restricted_to_machine=STRING,
)
ERROR = an(
    error=STRING,
    status__=one_of("unknown", "insufficient_capacity", "name_taken", "volume_placement_capacity"),
)
GRAPHQL: JSON = {"type": "object", "required": ["data"]}

A = "/v1/apps/{app}"
M = A + "/machines/{machine}"
V = A + "/volumes/{volume}"

#: Method and path of every operation, the status of its success, and the shape of its answer;
#: None is an answer without a body.
PROMETHEUS = an(status=one_of("success"), data={"type": "object"})
OPERATIONS: dict[tuple[str, str], tuple[int, JSON | None]] = {
    ("GET", "/v1/apps"): (200, an(total_apps=INTEGER, apps=many(LISTED_APP))),
    ("POST", "/v1/apps"): (201, APP),
    ("GET", A): (200, APP),
    ("DELETE", A): (202, None),
    ("POST", A + "/deploy_token"): (200, an(token=STRING)),
    ("GET", A + "/machines"): (200, many(MACHINE)),
    ("POST", A + "/machines"): (200, MACHINE),
    ("GET", M): (200, MACHINE),
    ("POST", M): (200, MACHINE),
    ("DELETE", M): (200, OK),
    ("POST", M + "/start"): (
        200,
        an(previous_state=STATES, migrated=BOOLEAN, new_host=STRING),
    ),
    ("POST", M + "/stop"): (200, OK),
    ("POST", M + "/restart"): (200, OK),
    ("POST", M + "/suspend"): (200, OK),
    ("POST", M + "/signal"): (200, OK),
    ("POST", M + "/cordon"): (200, OK),
    ("POST", M + "/uncordon"): (200, OK),
    ("GET", M + "/wait"): (
        200,
        an(ok=one_of(True), state=STATES, version=ULID, event_id=ULID),
    ),
    ("POST", M + "/exec"): (
        200,
        an(exit_code__=INTEGER, exit_signal=INTEGER, stdout=STRING, stderr=STRING),
    ),
    ("GET", M + "/ps"): (200, many(PROCESS)),
    ("GET", M + "/events"): (200, many(EVENT)),
    ("GET", M + "/versions"): (200, many(an(version=ULID, user_config=CONFIG))),
    ("GET", M + "/metadata"): (200, STRING_MAP),
    ("PUT", M + "/metadata"): (204, None),
    ("PATCH", M + "/metadata"): (204, None),
    ("GET", M + "/metadata/{key:path}"): (200, an(value=STRING)),
    ("POST", M + "/metadata/{key:path}"): (204, None),
    ("DELETE", M + "/metadata/{key:path}"): (204, None),
    ("GET", M + "/lease"): (200, an(status=one_of("success"), data=LEASE)),
    ("POST", M + "/lease"): (201, an(status=one_of("success"), data=LEASE)),
    ("DELETE", M + "/lease"): (200, an(status=one_of("success"), data=OK)),
    ("GET", M + "/memory"): (200, MEMORY),
    ("PUT", M + "/memory"): (200, MEMORY),
    ("POST", M + "/memory/reclaim"): (200, an(actual_mb=INTEGER)),
    ("GET", A + "/volumes"): (200, many(VOLUME)),
    ("POST", A + "/volumes"): (200, VOLUME),
    ("GET", V): (200, VOLUME),
    ("PUT", V): (200, VOLUME),
    ("DELETE", V): (200, VOLUME),
    ("PUT", V + "/extend"): (200, an(volume=VOLUME, needs_restart=BOOLEAN)),
    ("GET", V + "/snapshots"): (200, many(SNAPSHOT)),
    ("POST", V + "/snapshots"): (200, an(Msg=an(backup=BACKUP))),
    ("GET", A + "/secrets"): (200, an(secrets=many(SECRET))),
    ("POST", A + "/secrets"): (200, an(secrets=many(SECRET), **VERSION)),
    ("GET", A + "/secrets/{secret}"): (200, SECRET),
    ("POST", A + "/secrets/{secret}"): (
        201,
        an(name=STRING, digest=STRING, created_at=TIME, updated_at=TIME, **VERSION),
    ),
    ("DELETE", A + "/secrets/{secret}"): (200, an(**VERSION)),
    ("GET", A + "/ip_assignments"): (200, an(ips=many(IP))),
    ("POST", A + "/ip_assignments"): (200, IP),
    ("DELETE", A + "/ip_assignments/{ip}"): (204, None),
    ("GET", "/v1/orgs/{org}/machines"): (
        200,
        an(
            machines=many(ORG_MACHINE),
            last_machine_id=STRING,
            next_cursor=STRING,
            last_updated_at=STRING,
            error_regions=STRINGS,
        ),
    ),
    ("GET", "/v1/orgs/{org}/volumes"): (
        200,
        an(
            volumes=many(an(app_name=STRING, updated_at=TIME_MS, **VOLUME_FIELDS)),
            last_volume_id=STRING,
            next_cursor=STRING,
            last_updated_at=STRING,
        ),
    ),
    ("GET", "/v1/platform/regions"): (200, an(Nearest=STRING, Regions=many(REGION))),
    ("POST", "/v1/platform/placements"): (
        200,
        an(Regions=many(an(Region=STRING, Count=INTEGER, Concurrency=INTEGER))),
    ),
    ("GET", "/v1/tokens/current"): (200, an(tokens=many(TOKEN))),
    ("POST", "/graphql"): (200, GRAPHQL),
    ("GET", "/api/v1/organizations"): (200, an(organizations=many({"type": "object"}))),
    ("GET", "/api/v1/organizations/{org}"): (200, an(organization={"type": "object"})),
    ("POST", "/api/v1/builds"): (
        200,
        an(id=INTEGER, status=STRING, wallclock_time_ms=INTEGER),
    ),
    ("GET", "/prometheus/{org}/federate"): (200, None),
    ("GET", "/prometheus/{org}/api/v1/query"): (200, PROMETHEUS),
    ("POST", "/prometheus/{org}/api/v1/query"): (200, PROMETHEUS),
    ("GET", "/prometheus/{org}/api/v1/targets"): (200, PROMETHEUS),
    ("POST", "/api/v1/builds/finish"): (
        200,
        an(id=INTEGER, status=STRING, wallclock_time_ms=INTEGER),
    ),
}

REQUEST_ID = re.compile(r"^[0-9A-HJKMNP-TV-Z]{26}-[a-z]{3}$")


def _pattern(path: str) -> re.Pattern[str]:
    path = re.sub(r"\{\w+:path\}", ".+", path)
    return re.compile("^" + re.sub(r"\{\w+\}", "[^/]+", path) + "$")


VALIDATORS = {
    key: jsonschema.Draft202012Validator(shape)
    for key, (_, shape) in OPERATIONS.items()
    if shape is not None
}
ERROR_VALIDATOR = jsonschema.Draft202012Validator(ERROR)
PATTERNS = [(key, _pattern(key[1])) for key in OPERATIONS]


def operation_of(method: str, path: str) -> tuple[str, str] | None:
    """The operation that a request is for."""
    for key, pattern in PATTERNS:
        if key[0] == method and pattern.match(path):
            return key
    return None


def check(response: httpx.Response) -> None:
    """Fail if an answer has not the shape that it should have."""
    assert REQUEST_ID.match(response.headers["fly-request-id"])
    request = response.request
    if response.status_code >= 400:
        if response.headers.get("content-type", "").startswith("application/json"):
            ERROR_VALIDATOR.validate(response.json())
            validate_answer(request.method, request.url.path, response.status_code, response.json())
        return
    key = operation_of(request.method, request.url.path)
    assert key is not None, f"no operation for {request.method} {request.url.path}"
    status, shape = OPERATIONS[key]
    assert response.status_code == status
    if shape is None:
        assert response.content == b""
    else:
        assert response.headers["content-type"] == "application/json; charset=utf-8"
        VALIDATORS[key].validate(response.json())
        validate_answer(request.method, request.url.path, status, response.json())
