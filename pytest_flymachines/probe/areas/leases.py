"""Leases (reference, section 7)."""

from __future__ import annotations

import time

from pytest_flymachines.probe.guest import Guest
from pytest_flymachines.probe.registry import check
from pytest_flymachines.probe.trial import Trial
from pytest_flymachines.probe.wire import Answer

_HEADER = "fly-machine-lease-nonce"
_HELD = "lease currently held by"


def _lease(
    trial: Trial, method: str, guest: Guest, nonce: str = "", body: object = None, **query: object
) -> Answer:
    headers = {_HEADER: nonce} if nonce else {}
    return trial.send(method, f"{guest.path}/lease", body, query=query, headers=headers)


def _nonce(answer: Answer) -> str:
    return str(answer.field("data", "nonce") or answer.field("nonce") or "")


def _expiry(answer: Answer) -> float:
    return float(answer.field("data", "expires_at") or answer.field("expires_at") or 0)


def _drop(trial: Trial, guest: Guest, nonce: str) -> None:
    _lease(trial, "DELETE", guest, nonce)


@check("404 ` lease not found` where there is none", "flyctl", "7.1")
def none(trial: Trial) -> None:
    guest = trial.guest()
    trial.refused(_lease(trial, "GET", guest), 404, " lease not found")
    trial.refused(_lease(trial, "DELETE", guest, "0123456789ab"), 404, "lease not found")


@check("acquire: 201 with nonce, expiry, owner and version, in an envelope", "docs", "7.1")
def acquire(trial: Trial) -> None:
    guest = trial.guest()
    answer = _lease(trial, "POST", guest, ttl=30)
    trial.same("status", answer.status, 201)
    trial.same("envelope", answer.field("status"), "success")
    trial.matches("nonce", answer.field("data", "nonce"), "[0-9a-f]{12}")
    left = _expiry(answer) - time.time()
    trial.true("expires_at in Unix seconds", 10 < left < 60, round(left))
    trial.true("owner", answer.field("data", "owner"))
    trial.same("version", answer.field("data", "version"), guest.made["instance_id"])
    looked = _lease(trial, "GET", guest)
    trial.same("GET", (looked.status, _nonce(looked)), (200, _nonce(answer)))
    released = _lease(trial, "DELETE", guest, _nonce(answer))
    trial.same("released", (released.status, released.field("status")), (200, "success"))
    trial.same("gone", _lease(trial, "GET", guest).status, 404)


@check("the ttl may come in the body", "docs", "7.1")
def ttl_in_body(trial: Trial) -> None:
    guest = trial.guest()
    answer = _lease(trial, "POST", guest, body={"ttl": 40, "description": "probe"})
    trial.same("status", answer.status, 201)
    left = _expiry(answer) - time.time()
    trial.true("as asked", 20 < left < 60, round(left))
    trial.same("description", answer.field("data", "description"), "probe")
    _drop(trial, guest, _nonce(answer))


@check("refresh with the nonce: the same nonce, a later expiry; 409 for others", "flyctl", "7.2")
def refresh(trial: Trial) -> None:
    guest = trial.guest()
    first = _lease(trial, "POST", guest, ttl=20)
    again = _lease(trial, "POST", guest, _nonce(first), ttl=60)
    trial.same("status", again.status, 201)
    trial.same("nonce", _nonce(again), _nonce(first))
    trial.true("later", _expiry(again) > _expiry(first))
    other = _lease(trial, "POST", guest, ttl=20)
    trial.refused(other, 409, _HELD)
    _drop(trial, guest, _nonce(first))


@check("changes without the nonce are refused; exec, wait and metadata need none", "seen", "7.2")
def others(trial: Trial) -> None:
    guest = trial.guest()
    nonce = _nonce(_lease(trial, "POST", guest, ttl=60))
    refusal = guest.post("cordon")
    trial.true("refused", refusal.status in (403, 409, 412, 423), refusal.status)
    trial.contains("error", refusal.error, _HELD)
    trial.note_answer("cordon without nonce", refusal)
    trial.ok(guest.post("cordon", headers={_HEADER: nonce}))
    trial.ok(guest.post("uncordon", headers={_HEADER: nonce}))
    trial.same("exec", guest.exec("true").status, 200)
    trial.same(
        "metadata", trial.send("POST", f"{guest.path}/metadata/k", {"value": "v"}).status, 204
    )
    _drop(trial, guest, nonce)


@check("what a wrong nonce is answered", "unknown", "7.2")
def wrong_nonce(trial: Trial) -> None:
    guest = trial.guest()
    nonce = _nonce(_lease(trial, "POST", guest, ttl=60))
    wrong = "0123456789ab"
    trial.note_answer("cordon", guest.post("cordon", headers={_HEADER: wrong}))
    trial.note_answer("refresh", _lease(trial, "POST", guest, wrong, ttl=60))
    trial.note_answer("release", _lease(trial, "DELETE", guest, wrong))
    _drop(trial, guest, nonce)
    trial.note_answer("cordon, nobody holds it", guest.post("cordon", headers={_HEADER: wrong}))
    guest.post("uncordon")


@check("how long a lease holds when no ttl is given", "unknown", "7.1")
def default_ttl(trial: Trial) -> None:
    guest = trial.guest()
    answer = _lease(trial, "POST", guest)
    trial.note(
        "seconds", round(_expiry(answer) - time.time()) if _expiry(answer) else answer.text[:200]
    )
    _drop(trial, guest, _nonce(answer))


@check("a lease ends by itself", "docs", "7.2")
def expiry(trial: Trial) -> None:
    guest = trial.guest()
    trial.same("acquired", _lease(trial, "POST", guest, ttl=3).status, 201)
    over = trial.until(lambda: _lease(trial, "GET", guest).status == 404, within_s=20, every_s=1)
    trial.true("over", over)
    trial.ok(guest.post("uncordon"))


@check("`lease_ttl` at create acquires one: the answer has its `nonce`", "docs", "7.1")
def at_create(trial: Trial) -> None:
    guest = trial.make(lease_ttl=5, skip_launch=True)
    nonce = guest.made.get("nonce")
    trial.matches("nonce", nonce, "[0-9a-f]{12}")
    _drop(trial, guest, str(nonce))
