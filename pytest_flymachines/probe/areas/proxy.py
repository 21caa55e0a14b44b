"""Services, and the proxy in front of them (reference, sections 9.1 to 9.4)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from pytest_flymachines.probe.guest import KEPT, Guest
from pytest_flymachines.probe.registry import check
from pytest_flymachines.probe.trial import Trial
from pytest_flymachines.probe.wire import Answer, CannotTell, NoAnswer

# what it was asked, as JSON; an emulator's engine without walls says where to listen
_SERVER = """
import http.server, json, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        told = {"id": os.environ["FLY_MACHINE_ID"], "headers": dict(self.headers)}
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
where = os.environ.get("PYTEST_FLYMACHINES_BIND", "0.0.0.0"), 8080
http.server.ThreadingHTTPServer(where, Handler).serve_forever()
"""
_START = 'exec timeout 600 python3 "${PYTEST_FLYMACHINES_ROOT:-}/srv/server.py"'
#: New names and addresses take tens of seconds to be known.
_KNOWN_S = 150.0


def _visit(trial: Trial, **headers: str) -> Answer:
    """A visitor's request; what cannot be asked now is a status of 0."""
    ground = trial.ground
    named = {"host": f"{ground.app}.fly.dev"} | {k.replace("_", "-"): v for k, v in headers.items()}
    try:
        answer = ground.wire.visit(ground.proxy_url, headers=named)
    except NoAnswer as error:
        answer = Answer("GET", "/", "", 0, {}, str(error), 0.0)
    trial.exchanges.append(answer)
    return answer


def _served(trial: Trial, guest: Guest, within_s: float = 30.0, **headers: str) -> Answer:
    """A visitor's answer from this machine, once there is one."""
    last = Answer("GET", "/", "", 0, {}, "", 0.0)

    def served() -> bool:
        nonlocal last
        last = _visit(trial, **headers)
        return bool(last.field("id") == guest.id)

    trial.until(served, within_s=within_s, every_s=0.5)
    return last


def _serving(trial: Trial, **service: Any) -> Guest:
    """A machine with a service that the proxy knows."""
    ground = trial.ground
    if not ground.proxy_url:
        raise CannotTell("where the proxy is has to be said: --proxy-url")
    if not trial.send("GET", f"{ground.path}/ip_assignments", private=True).field("ips"):
        for kind in ("shared_v4", "v6"):
            trial.send("POST", f"{ground.path}/ip_assignments", {"type": kind}, private=True)
    content = base64.b64encode(_SERVER.encode()).decode()
    ports = [
        {"port": 443, "handlers": ["tls", "http"]},
        {"port": 80, "handlers": ["http"]},
    ]
    config: Mapping[str, Any] = {
        "init": {"exec": ["/bin/sh", "-c", _START]},
        "files": [{"guest_path": "/srv/server.py", "raw_value": content}],
        "services": [{"protocol": "tcp", "internal_port": 8080, "ports": ports, **service}],
        **KEPT,
    }
    guest = trial.make(config=config).ready()
    if _served(trial, guest, _KNOWN_S, fly_force_instance_id=guest.id).field("id") != guest.id:
        raise CannotTell(f"no visitor reached the machine: {trial.exchanges[-1].text[:200]}")
    return guest


@check("an app has no public address until one is given", "docs", "9.3", own_app=True)
def no_address(trial: Trial) -> None:
    answer = trial.send("GET", f"{trial.ground.path}/ip_assignments")
    trial.same("status", answer.status, 200)
    trial.same("ips", answer.field("ips"), [])


@check(
    "`<app>.fly.dev` leads to the machine, with the headers that the proxy adds",
    "docs",
    "9.4",
    own_app=True,
)
def visitors(trial: Trial) -> None:
    guest = _serving(trial, autostop="off", autostart=False)
    answer = _served(trial, guest)
    trial.same("machine", answer.field("id"), guest.id)
    seen = {name.lower(): value for name, value in (answer.field("headers") or {}).items()}
    added = {
        *("fly-client-ip", "fly-forwarded-port", "fly-region", "fly-request-id", "via"),
        *("x-forwarded-for", "x-forwarded-port", "x-forwarded-proto"),
    }
    trial.same("missing request headers", sorted(added - seen.keys()), [])
    trial.note("request headers", sorted(seen))
    trial.true(
        "answers have `via`", "fly.io" in answer.headers.get("via", ""), answer.headers.get("via")
    )
    trial.true("answers have `fly-request-id`", answer.headers.get("fly-request-id"))
    other = _visit(trial, fly_force_instance_id="00000000000000")
    trial.true("a forced machine that is not there is an error", other.status >= 400, other.status)
    trial.note_answer("it is", other)


@check("a cordoned machine gets no traffic, an uncordoned one does", "docs", "9.2", own_app=True)
def cordoned(trial: Trial) -> None:
    guest = _serving(trial, autostop="off", autostart=False)
    trial.ok(guest.post("cordon"))
    cut = trial.until(lambda: _visit(trial).status in (0, 502, 503), within_s=60, every_s=1)
    trial.true("no traffic", cut, trial.exchanges[-1].status)
    trial.note_answer("a visitor gets", trial.exchanges[-1])
    trial.ok(guest.post("uncordon"))
    trial.same("traffic again", _served(trial, guest, 60).field("id"), guest.id)


@check("`autostart` wakes a stopped and a suspended machine", "docs", "9.1", own_app=True)
def autostart(trial: Trial) -> None:
    guest = _serving(trial, autostop="off", autostart=True)
    for action, state in (("stop", "stopped"), ("suspend", "suspended")):
        trial.ok(guest.post(action))
        guest.wait(state)
        trial.same(
            f"a visitor of a {state} machine", _served(trial, guest, 60).field("id"), guest.id
        )
        guest.wait("started")


@check(
    "without `autostart` a stopped machine stays so, and visitors are refused",
    "docs",
    "9.2",
    own_app=True,
)
def no_autostart(trial: Trial) -> None:
    guest = _serving(trial, autostop="off", autostart=False)
    trial.ok(guest.post("stop"))
    guest.wait("stopped")
    trial.sleep(2)
    answer = _visit(trial)
    trial.among("status", answer.status, 0, 502, 503)
    trial.note_answer("a visitor gets", answer)
    trial.same("state", guest.get().field("state"), "stopped")
