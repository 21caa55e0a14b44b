"""Create, read, list, metadata, cordon (reference, sections 2.2 and 3)."""

from __future__ import annotations

import time

from pytest_flymachines.probe.registry import check
from pytest_flymachines.probe.trial import Trial

_ULID = r"[0-9A-HJKMNP-TV-Z]{26}"


@check(
    "create: 200 and the machine in state `created`, with the config that was sent", "docs", "3.2"
)
def created(trial: Trial) -> None:
    checks = [{"type": "tcp", "port": 8080, "interval": 15_000_000_000, "timeout": "2s"}]
    service = {
        "protocol": "tcp",
        "internal_port": 8080,
        "autostop": "off",
        "autostart": False,
        "ports": [{"port": 8080, "handlers": ["tls"]}],
        "checks": checks,
    }
    guest = trial.make(config={"services": [service], "env": {"A": "1"}}, skip_launch=True)
    made = guest.answer
    trial.same("status", made.status, 200)
    trial.same("state", made.field("state"), "created")
    trial.matches("id", made.field("id"), "[0-9a-f]{14,15}")
    trial.matches("instance_id", made.field("instance_id"), _ULID)
    trial.matches("private_ip", made.field("private_ip"), "fdaa:[0-9a-f:]+")
    trial.matches("region", made.field("region"), "[a-z]{3}")
    trial.matches("created_at", made.field("created_at"), r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
    trial.same("config.env", made.field("config", "env"), {"A": "1"})
    trial.same("config.guest.cpu_kind", made.field("config", "guest", "cpu_kind"), "shared")
    trial.true("image_ref.repository", made.field("image_ref", "repository"))
    events = made.field("events") or []
    trial.true("a `launch` event", [e for e in events if e.get("type") == "launch"], events)
    shown = made.field("config", "services", 0) or {}
    trial.same("autostop reads back as a boolean", shown.get("autostop"), False)
    given = (shown.get("checks") or [{}])[0]
    trial.same("a number of nanoseconds reads back as text", given.get("interval"), "15s")


@check("`skip_launch` prepares a machine and leaves it `stopped`", "seen", "4.2")
def skip_launch(trial: Trial) -> None:
    guest = trial.make(skip_launch=True)
    guest.wait("stopped", within_s=120)
    trial.same("state", guest.get().field("state"), "stopped")


@check("without name and guest: two words and a number, shared-cpu-1x with 256 MB", "docs", "3.1")
def defaults(trial: Trial) -> None:
    guest = trial.make(name=None, config={"guest": None}, skip_launch=True)
    trial.matches("name", guest.made.get("name"), r"[a-z]+-[a-z]+-\d+")
    expected = {"cpu_kind": "shared", "cpus": 1, "memory_mb": 256}
    given = guest.made["config"].get("guest") or {}
    trial.same("guest", {key: given.get(key) for key in expected}, expected)


@check("409 for a name that a machine has; the text has that machine's id", "seen", "7.3")
def unique_name(trial: Trial) -> None:
    guest = trial.make(skip_launch=True)
    answer = trial.create(name=guest.made["name"], skip_launch=True)
    trial.refused(answer, 409, "already_exists: unique machine name violation")
    trial.contains("the id", answer.error, guest.id)


@check("how long a name stays taken after the destroy", "unknown", "7.3")
def name_after_destroy(trial: Trial) -> None:
    guest = trial.make(skip_launch=True)
    guest.wait("stopped", within_s=120)
    trial.send("DELETE", guest.path, query={"force": "true"})
    began = time.monotonic()
    answer = trial.create(name=guest.made["name"], skip_launch=True)
    trial.note("at once", f"{answer.status} {answer.error[:200] if answer.status >= 300 else ''}")
    while answer.status == 409 and time.monotonic() - began < 45:
        trial.sleep(3)
        answer = trial.create(name=guest.made["name"], skip_launch=True)
    trial.note("free after at most (s)", round(time.monotonic() - began, 1))


@check("400 with Fly's words for sizes that there are not", "seen", "3.6")
def bad_guest(trial: Trial) -> None:
    for wrong, text in (
        ({"cpus": 1, "memory_mb": 256}, "invalid config.guest.cpu_kind"),
        ({"cpu_kind": "shared", "cpus": 3, "memory_mb": 1024}, "invalid config.guest.cpus"),
        (
            {"cpu_kind": "shared", "cpus": 4, "memory_mb": 512},
            "invalid config.guest.memory_mb, minimum required 1024 MiB",
        ),
        (
            {"cpu_kind": "shared", "cpus": 1, "memory_mb": 4096},
            "invalid config.guest.memory_mb, cannot exceed 2048 MiB",
        ),
    ):
        answer = trial.create(config={"guest": wrong}, skip_launch=True)
        trial.refused(answer, 400, text)


@check("400 for a config without an image, and for a body without a config", "docs", "3.4")
def no_image(trial: Trial) -> None:
    trial.refused(trial.create(config={"image": None}, skip_launch=True), 400)
    trial.refused(trial.send("POST", trial.machines, {"name": trial.ground.name()}), 400)


@check("what an unknown region is answered", "unknown", "3.4")
def unknown_region(trial: Trial) -> None:
    trial.note_answer("answer", trial.create(region="xyz", skip_launch=True))


@check("what an over-long machine name is answered", "unknown", "3.4")
def long_name(trial: Trial) -> None:
    trial.note_answer("300 characters", trial.create(name="n" * 300, skip_launch=True))


@check(
    "400 with the registry's MANIFEST_UNKNOWN for an image that is not there",
    "seen",
    "3.6",
    images=True,
)
def unknown_image(trial: Trial) -> None:
    image = "registry-1.docker.io/library/alpine:there-is-no-such-tag"
    answer = trial.create(config={"image": image}, skip_launch=True)
    trial.refused(answer, 400, "failed to get manifest", "MANIFEST_UNKNOWN")


@check("lists: `state`, `region` and `metadata.KEY` filter; `summary` is short", "docs", "2.2")
def list_filters(trial: Trial) -> None:
    guest = trial.guest()
    region = guest.made["region"]
    run = {
        f"metadata.{key}": value for key, value in trial.ground.metadata().items() if "run" in key
    }

    def ids(**query: str) -> list[str]:
        answer = trial.send("GET", trial.machines, query={**run, **query}, private=True)
        return [machine["id"] for machine in answer.json or []]

    trial.true("the machine is listed", trial.until(lambda: guest.id in ids()))
    trial.true("by its region", guest.id in ids(region=region))
    trial.true(
        "not by another one", guest.id not in ids(region="nrt" if region != "nrt" else "syd")
    )
    trial.true("by its state", trial.until(lambda: guest.id in ids(state="started")))
    trial.true("not by another one", guest.id not in ids(state="suspended"))
    trial.true("not by other metadata", guest.id not in ids(**{"metadata.ptfm": "none"}))
    short = trial.send("GET", trial.machines, query={**run, "summary": "true"}, private=True)
    found = [machine for machine in short.json or [] if machine["id"] == guest.id]
    trial.true(
        "`summary` has no config",
        found and not found[0].get("config"),
        sorted(found[0]) if found else None,
    )


@check("how soon a list shows a new machine", "unknown", "7.4")
def list_lag(trial: Trial) -> None:
    began = time.monotonic()
    guest = trial.make(skip_launch=True)

    def listed() -> bool:
        answer = trial.send("GET", trial.machines, private=True)
        return any(machine.get("id") == guest.id for machine in answer.json or [])

    seen = trial.until(listed, within_s=30)
    trial.note(
        "seconds after the create was sent", round(time.monotonic() - began, 2) if seen else "> 30"
    )


@check("metadata: one key, several, null removes; a `%2F` is part of a key", "openapi", "2.2")
def metadata(trial: Trial) -> None:
    path = f"{trial.guest().path}/metadata"
    trial.same("POST key", trial.send("POST", f"{path}/team%2Fenv", {"value": "x"}).status, 204)
    answer = trial.send("GET", f"{path}/team%2Fenv")
    trial.same("GET key", (answer.status, answer.field("value")), (200, "x"))
    trial.same("all", (trial.send("GET", path).json or {}).get("team/env"), "x")
    changes = {"metadata": {"team/env": None, "a": "1"}}
    trial.same("PATCH", trial.send("PATCH", path, changes).status, 204)
    after = trial.send("GET", path).json or {}
    trial.same("removed and set", (after.get("team/env"), after.get("a")), (None, "1"))
    trial.same("GET of a removed key", trial.send("GET", f"{path}/team%2Fenv").status, 404)
    trial.same("DELETE key", trial.send("DELETE", f"{path}/a").status, 204)


@check("412 for metadata with a stale `machine_version`", "openapi", "2.2")
def metadata_version(trial: Trial) -> None:
    stale = {"metadata": {"a": "1"}, "machine_version": "01HQ73A7BFFDF1B6WMGHFZZ4E7"}
    trial.same("status", trial.send("PATCH", f"{trial.guest().path}/metadata", stale).status, 412)


@check("cordon and uncordon are idempotent and show in `cordoned`", "docs", "4.3")
def cordon(trial: Trial) -> None:
    guest = trial.guest()
    trial.ok(guest.post("cordon"))
    trial.ok(guest.post("cordon"))
    trial.same("cordoned", guest.get().field("cordoned"), True)
    trial.ok(guest.post("uncordon"))
    trial.same("uncordoned", bool(guest.get().field("cordoned")), False)


@check("versions and events, newest first; `limit` counts", "openapi", "2.2")
def history(trial: Trial) -> None:
    guest = trial.guest()
    versions = trial.send("GET", f"{guest.path}/versions")
    trial.same("version", versions.field(0, "version"), guest.made["instance_id"])
    trial.true("user_config", isinstance(versions.field(0, "user_config"), dict))
    events = guest.events()
    times = [int(event.get("timestamp") or 0) for event in events]
    trial.same("newest first", times, sorted(times, reverse=True))
    kinds = [event.get("type") for event in events]
    trial.true("`start` above `launch`", "start" in kinds and kinds[-1] == "launch", kinds)
    limited = trial.send("GET", f"{guest.path}/events", query={"limit": 1})
    trial.same("with limit=1", len(limited.json or []), 1)


@check("processes have pid, command, rss and their sockets", "fly-go", "2.2")
def processes(trial: Trial) -> None:
    answer = trial.send("GET", f"{trial.guest().path}/ps")
    trial.same("status", answer.status, 200)
    keys = {"pid", "command", "directory", "rss", "cpu", "rtime", "stime", "listen_sockets"}
    trial.true("keys", keys <= set(answer.field(0) or ()), sorted(answer.field(0) or ()))


@check("what `memory` answers", "unknown", "2.2")
def memory(trial: Trial) -> None:
    trial.note_answer("answer", trial.send("GET", f"{trial.guest().path}/memory"))


@check("what the start of a machine with a `schedule` is answered", "unknown", "3.5")
def scheduled(trial: Trial) -> None:
    guest = trial.make(config={"schedule": "monthly"}, skip_launch=True)
    trial.until(lambda: guest.get().field("state") == "stopped", within_s=60)
    trial.note_answer("answer", guest.post("start"))
