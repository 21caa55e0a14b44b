from __future__ import annotations

import base64
import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.emulator.conftest import App, Fly, eventually
from tests.emulator.fidelity import shows


@shows("POST A/machines", "200 with the machine in state `created`; it starts by itself", "docs")
@shows("GET M", "the machine with config, events and checks; 404 names what is missing", "docs")
def test_machine_is_created_and_started(app: App) -> None:
    body = {
        "name": "sbx-01",
        "region": "fra",
        "config": {
            "image": "registry-1.docker.io/library/python:3.12-slim",
            "init": {"exec": ["sleep", "inf"]},
            "guest": {"cpu_kind": "shared", "cpus": 1, "memory_mb": 512},
            "metadata": {"sandbox": "pytest"},
        },
    }
    made = app.fly.ok("POST", app.machines, body)
    assert (made["state"], made["name"], made["region"]) == ("created", "sbx-01", "fra")
    assert made["instance_id"] == made["version"]
    assert made["image_ref"]["registry"] == "registry-1.docker.io"
    assert made["image_ref"]["repository"] == "library/python"
    assert made["image_ref"]["tag"] == "3.12-slim"
    assert made["config"] == {**body["config"], "dns": {}}  # type: ignore[dict-item]
    assert [event["type"] for event in made["events"]] == ["launch"]
    path = f"{app.machines}/{made['id']}"
    reached = app.fly.ok("GET", f"{path}/wait", params={"version": made["version"]})
    assert (reached["state"], reached["version"]) == ("started", made["version"])
    shown = app.fly.ok("GET", path)
    assert shown["state"] == "started"
    assert [(event["type"], event["status"]) for event in shown["events"]] == [
        ("start", "started"),
        ("launch", "created"),
    ]
    status, text = app.fly.error("GET", f"{app.machines}/00000000000000")
    assert status == 404
    assert "machine not found" in text


@shows("POST A/machines", "without a name one is made: two words and a number", "docs")
@shows("POST A/machines", "without a guest it is `shared-cpu-1x` with 256 MB", "docs")
def test_defaults_are_filled_in(app: App) -> None:
    shown = app.create("sleep", "inf").get()
    assert re.fullmatch(r"[a-z]+-[a-z]+-\d+", shown["name"])
    assert shown["config"]["guest"] == {"cpu_kind": "shared", "cpus": 1, "memory_mb": 256}
    assert shown["region"] == "ord"
    assert "metadata" not in shown["config"]


@shows("POST A/machines", "a service without `protocol` is a tcp service", "openapi")
def test_service_needs_no_protocol(app: App) -> None:
    service = {"internal_port": 50051, "ports": [{"port": 51000}]}
    shown = app.create("sleep", "inf", services=[service]).get()
    assert shown["config"]["services"][0]["protocol"] == "tcp"


@shows("POST A/machines", "`skip_launch` prepares it and leaves it `stopped`", "seen")
def test_skip_launch_leaves_it_stopped(app: App) -> None:
    machine = app.create("sleep", "inf", skip_launch=True, wait="stopped")
    assert [event["type"] for event in machine.events()] == ["launch"]
    machine.post("start")
    machine.wait("started")


@shows("POST A/machines", "`skip_service_registration` reads back as `cordoned`", "guess")
@shows("POST M/cordon", "takes it out of routing, idempotent, in any live state", "docs")
@shows("POST M/uncordon", "puts it back", "docs")
def test_cordon(app: App) -> None:
    machine = app.create("sleep", "inf", skip_service_registration=True)
    assert machine.get()["cordoned"] is True
    for _ in range(2):
        machine.post("uncordon")
        assert machine.get()["cordoned"] is False
    machine.post("stop")
    machine.post("cordon")
    assert machine.get()["cordoned"] is True


@shows(
    "POST A/machines",
    "409 for a name that a machine has that is not destroyed; it has the id",
    "seen",
)
def test_names_are_unique_among_live_machines(app: App) -> None:
    machine = app.create("sleep", "inf", name="only")
    body = {"name": "only", "config": {"image": "alpine"}}
    text = (
        "already_exists: unique machine name violation, "
        f'machine ID {machine.id} already exists with name "only"'
    )
    assert app.fly.error("POST", app.machines, body) == (409, text)
    machine.post("stop")
    machine.wait("stopped")
    assert app.fly.error("POST", app.machines, body) == (409, text)
    machine.destroy()
    assert app.fly.ok("POST", app.machines, body)["name"] == "only"


@shows("POST A/machines", "unknown fields are ignored, null means not given", "fly-go")
@shows(
    "POST A/machines",
    "durations: Go's text, or a number of nanoseconds; answers have text",
    "fly-go",
)
@shows("POST A/machines", "`autostop` reads back as a boolean unless it is `suspend`", "fly-go")
def test_config_reads_back_as_fly_go_writes_it(app: App) -> None:
    service = {
        "protocol": "tcp",
        "internal_port": 8080,
        "autostart": False,
        "force_instance_key": None,
        "ports": [{"port": 443, "handlers": ["tls", "http"]}, {"start_port": 1, "end_port": 9}],
        "checks": [{"type": "http", "interval": 15_000_000_000, "timeout": "1m30s"}],
        "concurrency": {"type": "requests", "soft_limit": 20, "hard_limit": 25},
        "invented": 1,
    }
    services = [{**service, "autostop": value} for value in ("off", "stop", "suspend", True)]
    machine = app.create(
        "sleep", "inf", services=services, restart={"policy": "no"}, env=None, invented={"a": []}
    )
    config = machine.get()["config"]
    assert [item["autostop"] for item in config["services"]] == [False, True, "suspend", True]
    assert config["services"][0]["force_instance_key"] is None
    assert config["services"][0]["checks"] == [
        {"type": "http", "interval": "15s", "timeout": "1m30s"}
    ]
    assert "invented" not in config
    assert "invented" not in config["services"][0]


@shows(
    "POST A/machines", "an image is `image_ref` in parts; a bare name is one of Docker Hub", "docs"
)
@pytest.mark.parametrize(
    ("image", "registry", "repository", "tag"),
    [
        ("alpine", "registry-1.docker.io", "library/alpine", "latest"),
        ("flyio/app:v1", "registry-1.docker.io", "flyio/app", "v1"),
        ("docker.io/a/b", "registry-1.docker.io", "a/b", "latest"),
        ("registry.fly.io/app:deployment-1", "registry.fly.io", "app", "deployment-1"),
        ("localhost:5000/x/y:z", "localhost:5000", "x/y", "z"),
        ("ghcr.io/o/r@sha256:" + "a" * 64, "ghcr.io", "o/r", ""),
    ],
)
def test_image_ref(app: App, image: str, registry: str, repository: str, tag: str) -> None:
    made = app.fly.ok("POST", app.machines, {"skip_launch": True, "config": {"image": image}})
    ref = made["image_ref"]
    assert (ref["registry"], ref["repository"], ref["tag"]) == (registry, repository, tag)
    if "@" in image:
        assert ref["digest"] == image.partition("@")[2]


@shows(
    "POST A/machines",
    "400 with the registry's MANIFEST_UNKNOWN for an image that is not there",
    "seen",
)
def test_missing_image_is_refused_at_create(app: App) -> None:
    image = "registry.fly.io/app:missing"
    status, text = app.fly.error("POST", app.machines, {"config": {"image": image}})
    assert status == 400
    assert text.startswith(
        f"failed to get manifest {image}: request failed: not found [http 404]: "
    )
    assert "MANIFEST_UNKNOWN" in text
    assert text.endswith("\n")


BAD_GUESTS = [
    ({"cpus": 1, "memory_mb": 256}, "cpu_kind"),
    ({"cpu_kind": "fast", "cpus": 1, "memory_mb": 256}, "cpu_kind"),
    ({"cpu_kind": "shared", "cpus": 3, "memory_mb": 1024}, "cpus, must be one of [1 2 4 6 8]"),
    (
        {"cpu_kind": "shared", "cpus": 4, "memory_mb": 512},
        "memory_mb, minimum required 1024 MiB",
    ),
    (
        {"cpu_kind": "shared", "cpus": 1, "memory_mb": 4096},
        "memory_mb, cannot exceed 2048 MiB",
    ),
    (
        {"cpu_kind": "performance", "cpus": 8, "memory_mb": 8192},
        "memory_mb, minimum required 16384 MiB",
    ),
    ({"cpu_kind": "shared", "cpus": 2, "memory_mb": 700}, "memory_mb, must be a multiple"),
]


@shows("POST A/machines", "400 for sizes that Fly does not offer, in Fly's words", "seen")
@pytest.mark.parametrize(("guest", "text"), BAD_GUESTS)
def test_bad_guest_is_refused(app: App, guest: dict[str, Any], text: str) -> None:
    status, error = app.fly.error(
        "POST", app.machines, {"config": {"image": "alpine", "guest": guest}}
    )
    assert status == 400
    assert error.startswith(f"invalid config.guest.{text}")


@shows("POST A/machines", "422 `insufficient_capacity` for a guest that no host has", "seen")
def test_impossible_guest_has_no_host(app: App) -> None:
    guest = {"cpu_kind": "performance", "cpus": 8, "memory_mb": 32768, "gpus": 1, "gpu_kind": "a10"}
    response = app.fly("POST", app.machines, {"config": {"image": "alpine", "guest": guest}})
    assert response.status_code == 422
    assert response.json()["status"] == "insufficient_capacity"


BAD_CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"init": {"swap_size_mb": -1}}, "invalid config.init.swap_size_mb"),
    ({"image": ""}, "invalid config.image"),
    (
        {"services": [{"protocol": "sctp", "internal_port": 1}]},
        "invalid config.services[0].protocol",
    ),
    ({"services": [{"protocol": "tcp"}]}, "invalid config.services[0].internal_port"),
    (
        {"services": [{"protocol": "tcp", "internal_port": 1, "autostop": "maybe"}]},
        "invalid config.services[0].autostop",
    ),
    (
        {"services": [{"protocol": "tcp", "internal_port": 1, "ports": [{"port": 70000}]}]},
        "invalid config.services[0].ports[0].port",
    ),
    (
        {"services": [{"protocol": "tcp", "internal_port": 1, "ports": [{"handlers": ["x"]}]}]},
        "invalid config.services[0].ports[0].port",
    ),
    ({"checks": {"c": {"type": "udp", "port": 1}}}, "invalid config.checks.c.type"),
    ({"checks": {"c": {"type": "tcp"}}}, "invalid config.checks.c.port"),
    ({"files": [{"guest_path": "relative"}]}, "invalid config.files[0].guest_path"),
    ({"files": [{"guest_path": "/f", "raw_value": "%"}]}, "invalid config.files[0].raw_value"),
    ({"mounts": [{"path": "/a"}, {"path": "/b"}]}, "invalid config.mounts"),
    ({"mounts": [{"path": "relative", "volume": "v"}]}, "invalid config.mounts[0].path"),
    ({"mounts": [{"path": "/a", "volume": "vol_x"}]}, "invalid config.mounts[0].volume"),
    ({"restart": {"policy": "sometimes"}}, "invalid config.restart.policy"),
    ({"schedule": "yearly"}, "invalid config.schedule"),
    ({"stop_config": {"signal": "SIGWINCH"}}, "invalid config.stop_config.signal"),
    ({"size": "huge"}, "invalid config.size"),
    ({"processes": [{"exec": ["a"]}] * 11}, "invalid config.processes"),
    ({"rootfs": {"persist": "perhaps"}}, "invalid config.rootfs.persist"),
    ({"statics": [{"guest_path": "/srv"}]}, "invalid config.statics[0].url_prefix"),
    (
        {"statics": [{"guest_path": "a/../b", "url_prefix": "/"}]},
        "invalid config.statics[0].guest_path",
    ),
    (
        {"statics": [{"guest_path": "/a", "url_prefix": "/x"}] * 2},
        "invalid config.statics[1].url_prefix",
    ),
    (
        {"statics": [{"guest_path": "/a", "url_prefix": "/x"}] * 11},
        "invalid config.statics, cannot exceed 10 statics",
    ),
    ({"stop_config": {"timeout": f"{10**30}h"}}, "time: invalid duration"),
    ({"stop_config": {"timeout": 10**30}}, "invalid duration"),
]


@shows("POST A/machines", "400 for a config that makes no sense; the text names the field", "guess")
@pytest.mark.parametrize(("config", "text"), BAD_CONFIGS)
def test_bad_config_is_refused(app: App, config: dict[str, Any], text: str) -> None:
    status, error = app.fly.error("POST", app.machines, {"config": {"image": "alpine", **config}})
    assert status == 400
    assert error.startswith(text)
    assert app.fly.ok("GET", app.machines) == []


GO_TEXTS = [
    ("[]", "json: cannot unmarshal array into Go value of type main.createMachineRequest"),
    (
        '{"name": 3}',
        (
            "json: cannot unmarshal number into Go struct field "
            "createMachineRequest.name of type string"
        ),
    ),
    (
        '{"config": {"image": 3}}',
        (
            "json: cannot unmarshal number into Go struct field "
            "createMachineRequest.config.image of type string"
        ),
    ),
    (
        '{"config": {"guest": {"cpus": "1"}}}',
        (
            "json: cannot unmarshal string into Go struct field "
            "createMachineRequest.config.guest.cpus of type int"
        ),
    ),
    (
        '{"config": {"init": {"exec": ["a", {}]}}}',
        (
            "json: cannot unmarshal object into Go struct field "
            "createMachineRequest.config.init.exec of type string"
        ),
    ),
    ('{"config": {"stop_config": {"timeout": "soon"}}}', 'time: invalid duration "soon"'),
    ("{", "unexpected EOF"),
    ("hello", "invalid character 'h' looking for beginning of value"),
    ('{"a" 1}', "invalid character '1' after object key"),
    ('{"a": 1} b', "invalid character 'b' after top-level value"),
]


@shows("POST A/machines", "400 with the text of Go's decoder for a body of the wrong type", "seen")
@pytest.mark.parametrize(("body", "text"), GO_TEXTS)
def test_wrong_types_get_gos_text(app: App, body: str, text: str) -> None:
    assert app.fly.error("POST", app.machines, content=body) == (400, text)


@shows(
    "POST A/machines", "`region`: a code, a comma list, or an alias; unknown ones are a 400", "docs"
)
def test_regions(app: App) -> None:
    for asked, got in (
        ("fra", "fra"),
        ("lhr,eu", "lhr"),
        ("apac", "bom"),
        ("any", "ord"),
        ("us", "ord"),
    ):
        assert app.create(skip_launch=True, wait=None, region=asked).get()["region"] == got
    body = {"region": "xyz", "config": {"image": "alpine"}}
    assert app.fly.error("POST", app.machines, body)[0] == 400


@shows(
    "GET A/machines",
    "filters: `state`, `region`, `metadata.KEY=value`, repeated ones together",
    "docs",
)
@shows("GET A/machines", "`[]` when there are none; 404 for an unknown app", "docs")
def test_list_filters(app: App) -> None:
    fly = app.fly
    assert fly.ok("GET", app.machines) == []
    one = app.create("sleep", "inf", metadata={"run": "1", "kind": "a"}, region="fra")
    two = app.create("sleep", "inf", metadata={"run": "1", "kind": "b"})
    off = app.create(skip_launch=True, wait="stopped", metadata={"run": "2"})

    def listed(**query: str) -> list[str]:
        return [item["id"] for item in fly.ok("GET", app.machines, params=query)]

    assert listed() == [one.id, two.id, off.id]
    assert listed(**{"metadata.run": "1"}) == [one.id, two.id]
    assert listed(**{"metadata.run": "1", "metadata.kind": "b"}) == [two.id]
    assert listed(**{"metadata.run": "3"}) == []
    assert listed(state="stopped,suspended") == [off.id]
    assert listed(region="eu") == [one.id]
    # What fly-go's List(app, "started") sends filters nothing.
    assert len(fly.ok("GET", f"{app.machines}?started")) == 3
    assert fly.error("GET", "/v1/apps/unknown/machines")[0] == 404
    assert fly.error("GET", f"{app.machines}?summary=maybe")[0] == 400


@shows("GET A/machines", "`summary` leaves out config, checks, events, host_status", "openapi")
@shows("GET A/machines", "destroyed machines only with `include_deleted`", "openapi")
def test_list_summary_and_deleted(app: App) -> None:
    machine = app.create("sleep", "inf")
    [summary] = app.fly.ok("GET", app.machines, params={"summary": "true"})
    assert {"config", "checks", "events", "host_status"}.isdisjoint(summary)
    machine.destroy()
    assert app.fly.ok("GET", app.machines) == []
    [deleted] = app.fly.ok("GET", app.machines, params={"include_deleted": "true"})
    assert (deleted["id"], deleted["state"]) == (machine.id, "destroyed")


@shows(
    "POST M", "replaces the config: new `instance_id`, the old run ends, the new one starts", "docs"
)
@shows("GET M/versions", "the configs by version, newest first", "openapi")
def test_update_replaces_a_running_machine(app: App) -> None:
    machine = app.create("sleep", "inf", env={"A": "1"})
    before = machine.get()
    config = {**before["config"], "env": {"A": "2"}}
    body = {
        "config": config,
        "current_version": before["version"],
        "name": "ignored",
        "region": "fra",
    }
    accepted = app.fly.ok("POST", machine.path, body)
    assert accepted["version"] != before["version"]
    assert accepted["state"] == "replacing"
    machine.wait("started", version=accepted["version"])
    after = machine.get()
    assert (after["name"], after["region"]) == (before["name"], before["region"])
    assert machine.exec("sh", "-c", "echo $A")["stdout"] == "2\n"
    assert [(event["type"], event["status"]) for event in after["events"]] == [
        ("start", "started"),
        ("exit", "stopped"),
        ("update", "replacing"),
        ("start", "started"),
        ("launch", "created"),
    ]
    assert machine.exits()[0]["exit_event"]["requested_stop"] is True
    versions = app.fly.ok("GET", f"{machine.path}/versions")
    assert [item["version"] for item in versions] == [after["version"], before["version"]]
    assert [item["user_config"]["env"]["A"] for item in versions] == ["2", "1"]


@shows("POST M", "a machine that was not started stays stopped", "seen")
@shows("POST M", "`skip_launch` leaves the new version of a running one stopped", "docs")
def test_update_leaves_stopped_machines_stopped(app: App) -> None:
    machine = app.create("sleep", "inf", skip_launch=True, wait="stopped")
    config = machine.get()["config"]
    new = app.fly.ok("POST", machine.path, {"config": config})
    machine.wait("stopped", version=new["version"])
    machine.post("start")
    machine.wait("started")
    new = app.fly.ok("POST", machine.path, {"config": config, "skip_launch": True})
    machine.wait("stopped", version=new["version"])
    assert machine.state == "stopped"


@shows("POST M", "one of several updates of the same version at once is accepted", "docs")
def test_updates_of_one_version_at_once(app: App) -> None:
    """Also where the image takes a while to be looked up."""
    machine = app.create("sleep", "inf", image="slow-to-look-up", skip_launch=True, wait=None)
    machine.wait("stopped")
    before = machine.get()
    body = {"config": before["config"], "current_version": before["version"]}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: app.fly("POST", machine.path, body), range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412]
    assert len(app.fly.ok("GET", f"{machine.path}/versions")) == 2


@shows("POST M", "412 when `current_version` is not the present one", "guess")
@shows("POST M", "409 while another update is under way", "seen")
def test_concurrent_updates_are_refused(app: App) -> None:
    deaf = "trap '' INT; touch ready; while :; do sleep 0.05; done"
    machine = app.create("sh", "-c", deaf).ready()
    config = {**machine.get()["config"], "stop_config": {"timeout": "500ms"}}
    body = {"config": config, "current_version": "01ARZ3NDEKTSV4RRFFQ69G5FAV"}
    assert app.fly.error("POST", machine.path, body)[0] == 412
    app.fly.ok("POST", machine.path, {"config": config})
    assert app.fly.error("POST", machine.path, {"config": config}) == (
        409,
        "aborted: machine update failed due to concurrent update",
    )
    assert app.fly.error("POST", f"{machine.path}/start") == (
        412,
        "failed_precondition: machine getting replaced, refusing to start",
    )


@shows(
    "DELETE M",
    "412 for a started machine without `force`; fly-go's `kill=true` is the same",
    "seen",
)
@shows("DELETE M", "a destroyed machine can be read for a short time, then is a 404", "seen")
@pytest.mark.parametrize("query", ["force=true", "kill=true"])
def test_destroy(app: App, query: str) -> None:
    machine = app.create("sleep", "inf")
    assert app.fly.error("DELETE", f"{machine.path}?kill=false") == (
        412,
        (
            "failed_precondition: unable to destroy machine, "
            "not currently stopped, suspended, failed or created"
        ),
    )
    assert app.fly.ok("DELETE", f"{machine.path}?{query}") == {"ok": True}
    machine.wait("destroyed")
    assert machine.state == "destroyed"
    for action in ("start", "stop", "suspend", "restart", "lease", "cordon"):
        assert app.fly.error("POST", f"{machine.path}/{action}")[0] == 404
    assert app.fly.error("DELETE", machine.path)[0] == 404


@shows("POST A/machines", "`files` are written before the main process, parents made", "docs")
@shows("POST A/machines", "`files.secret_name` is a secret that holds base64", "docs")
def test_files_from_values_and_secrets(app: App) -> None:
    app.fly.ok("POST", f"{app.path}/secrets/BLOB", {"value": base64.b64encode(b"\x00s").decode()})
    machine = app.create(
        "sleep",
        "inf",
        files=[
            {"guest_path": "/etc/sbx/token", "raw_value": "c2VjcmV0", "mode": 384},
            {"guest_path": "/etc/blob", "secret_name": "BLOB"},
        ],
    )
    assert machine.exec("cat", "etc/sbx/token")["stdout"] == "secret"
    assert machine.exec("stat", "-c", "%a", "etc/sbx/token", "etc/blob")["stdout"] == "600\n644\n"
    assert machine.exec("od", "-An", "-tx1", "etc/blob")["stdout"] == " 00 73\n"
    assert machine.get()["config"]["files"][0]["raw_value"] == "c2VjcmV0"


@shows(
    "POST A/machines", "Fly's variables are in the environment; app secrets go over `env`", "docs"
)
@shows("POST A/machines", "`skip_secrets` leaves the secrets out", "docs")
def test_environment(app: App) -> None:
    app.fly.ok("POST", f"{app.path}/secrets", {"values": {"S": "secret", "BOTH": "secret"}})
    machine = app.create(
        "sleep", "inf", env={"BOTH": "env", "E": "env"}, metadata={"fly_process_group": "web"}
    )
    shown = machine.get()
    lines = machine.exec("env")["stdout"].splitlines()
    env = dict(line.split("=", 1) for line in lines)
    assert (env["S"], env["BOTH"], env["E"]) == ("secret", "secret", "env")
    expected = {
        "FLY_APP_NAME": app.name,
        "FLY_MACHINE_ID": machine.id,
        "FLY_ALLOC_ID": machine.id,
        "FLY_MACHINE_VERSION": shown["instance_id"],
        "FLY_REGION": "ord",
        "FLY_PRIVATE_IP": shown["private_ip"],
        "FLY_IMAGE_REF": "alpine",
        "FLY_VM_MEMORY_MB": "256",
        "FLY_PROCESS_GROUP": "web",
    }
    assert {key: env[key] for key in expected} == expected
    plain = app.create("sleep", "inf", skip_secrets=True)
    assert "S=secret" not in plain.exec("env")["stdout"]


@shows("POST A/machines", "a request body above 4 MiB is a 413", "ours")
def test_body_is_bounded(app: App) -> None:
    body = json.dumps({"config": {"image": "alpine", "env": {"A": "x" * 5_000_000}}})
    assert app.fly.error("POST", app.machines, content=body) == (
        413,
        "http: request body too large",
    )


@shows("GET A/machines", "option: lists show the machines as they were some time ago", "seen")
def test_lists_may_lag(serve: Any) -> None:
    with serve("--app", "lag", list_delay_s=0.4) as emulator:
        fly = Fly(emulator)
        machine = App(fly, "lag").create("sleep", "inf")
        assert fly.ok("GET", "/v1/apps/lag/machines") == []
        assert fly.ok("GET", machine.path)["state"] == "started"
        listed = eventually(lambda: fly.ok("GET", "/v1/apps/lag/machines"))
        assert listed[0]["id"] == machine.id
        fly.close()


@shows(
    "POST A/machines",
    "`files.image_config`: the file is the OCI config of that image, with the engine docker",
    "openapi",
)
def test_file_from_the_config_of_an_image(app: App) -> None:
    file = {"guest_path": "/image.json", "image_config": "debian:12"}
    machine = app.create("sleep", "inf", files=[file])
    assert machine.exec("cat", "image.json")["stdout"] == "config of debian:12"
    both = {**file, "raw_value": "aGk="}
    missing = {**file, "image_config": "missing"}
    for wrong, text in ((both, "only one of raw_value"), (missing, "MANIFEST_UNKNOWN")):
        body = {"config": {"image": "alpine", "files": [wrong]}}
        status, error = app.fly.error("POST", app.machines, body)
        assert (status, text in error) == (400, True)
