"""Files, environment, secrets of a machine (reference, section 10)."""

from __future__ import annotations

import base64

from pytest_flymachines.probe.guest import KEPT
from pytest_flymachines.probe.registry import check
from pytest_flymachines.probe.trial import Trial

_SIZES = (100_000, 500_000, 1_000_000, 2_000_000, 3_000_000)


@check(
    "Fly's variables are in the environment, and the host name is the machine's id", "docs", "10.2"
)
def variables(trial: Trial) -> None:
    guest = trial.guest()
    lines = guest.output("env; hostname").splitlines()
    found = dict(line.partition("=")[::2] for line in lines)
    expected = {
        "FLY_APP_NAME": trial.ground.app,
        "FLY_MACHINE_ID": guest.id,
        "FLY_ALLOC_ID": guest.id,
        "FLY_MACHINE_VERSION": guest.made["instance_id"],
        "FLY_REGION": guest.made["region"],
        "FLY_PRIVATE_IP": guest.made["private_ip"],
        "FLY_VM_MEMORY_MB": "256",
    }
    trial.same("values", {name: found.get(name) for name in expected}, expected)
    trial.true("FLY_IMAGE_REF", found.get("FLY_IMAGE_REF"))
    trial.same("hostname", lines[-1], guest.id)
    trial.note("names that begin with FLY", sorted(n for n in found if n.startswith("FLY")))
    trial.exchanges.clear()


@check(
    "`files` are there before the main process, with mode, owner root, parents made", "docs", "10.1"
)
def files(trial: Trial) -> None:
    content = base64.b64encode(b"from the config\n").decode()
    files = [{"guest_path": "/srv/ptfm/deep/file", "raw_value": content, "mode": 0o640}]
    guest = trial.make(config={"files": files}).ready()
    said = guest.output("cat $R/srv/ptfm/deep/file; stat -c '%a %u' $R/srv/ptfm/deep/file")
    trial.same("content, mode, owner", said.splitlines(), ["from the config", "640 0"])


@check("which sizes of `config.files`, and of a whole config, are taken", "unknown", "10.1")
def sizes(trial: Trial) -> None:
    guest = trial.make(skip_launch=True, config=KEPT)
    guest.wait("stopped", within_s=120)

    def taken(what: str, size: int, **config: object) -> bool:
        answer = guest.update(trial.ground.config(**config, **KEPT))
        trial.exchanges.pop()
        fits = answer.status < 300
        trial.note(
            f"{what} of {size} bytes", "taken" if fits else f"{answer.status} {answer.error[:200]}"
        )
        return fits

    for size in _SIZES:
        content = base64.b64encode(bytes(size)).decode()
        if not taken("a file", size, files=[{"guest_path": "/srv/large", "raw_value": content}]):
            break
    for size in _SIZES:
        if not taken("a variable", size, env={"PTFM_LARGE": "x" * size}):
            break


@check(
    "secrets: written, listed by digest, in the environment of the next start",
    "docs",
    "10.3",
    own_app=True,
)
def secrets(trial: Trial) -> None:
    path = f"{trial.ground.path}/secrets"
    value = base64.b64encode(b"from the secret\n").decode()
    written = trial.send("POST", f"{path}/PTFM_SECRET", {"value": value})
    trial.same("set", written.status, 201)
    trial.true("version", written.field("version") or written.field("Version"))
    listed = trial.send("GET", path)
    names = [secret.get("name") for secret in listed.field("secrets") or []]
    trial.true("listed", "PTFM_SECRET" in names, names)
    trial.true("without its value", value not in listed.text)
    version = written.field("version") or written.field("Version")
    files = [{"guest_path": "/srv/secret", "secret_name": "PTFM_SECRET"}]
    env = {"PTFM_SECRET": "from env"}
    guest = trial.make(config={"files": files, "env": env}, min_secrets_version=version).ready()
    trial.same("as a file", guest.output("cat $R/srv/secret").strip(), "from the secret")
    said = guest.output("echo $PTFM_SECRET").strip()
    trial.note(
        "`env` against a secret of the same name",
        "env" if said == "from env" else "secret" if said == value else said,
    )
    without = trial.make(skip_secrets=True).ready()
    trial.same("with skip_secrets", without.output("echo $PTFM_SECRET").strip(), "")
    deleted = trial.send("DELETE", f"{path}/PTFM_SECRET")
    trial.same("deleted", deleted.status, 200)
