"""The API as a machine reaches it, at `/.fly/api` (reference, section 10.4)."""

from __future__ import annotations

import json

from pytest_flymachines.probe.guest import Guest
from pytest_flymachines.probe.registry import check
from pytest_flymachines.probe.trial import Trial
from pytest_flymachines.probe.wire import CannotTell

_ASK = r"""
import http.client, json, socket, sys
out = []
for line in sys.argv[1:]:
    method, path = line.split(" ", 1)
    connection = http.client.HTTPConnection("flaps", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.connect("/.fly/api")
        connection.request(method, path)
        answer = connection.getresponse()
        out.append([answer.status, answer.read(300).decode("utf-8", "replace")])
    except (OSError, http.client.HTTPException) as error:
        out.append([0, repr(error)])
print(json.dumps(out))
"""


def _ask(trial: Trial, guest: Guest, *requests: str) -> list[tuple[int, str]]:
    """Status and the beginning of the body of each request, sent from within."""
    answer = guest.exec("python3", "-c", _ASK, *requests, timeout=40)
    trial.exchanges.pop()
    if answer.status != 200 or answer.field("exit_code"):
        told = str(answer.field("stderr") or answer.error)[-300:]
        raise CannotTell(f"python3 in the machine (it has to be in --image): {told}")
    return [(int(status), str(body)) for status, body in json.loads(answer.field("stdout"))]


@check("without a token a machine can act on itself there", "docs", "10.4")
def itself(trial: Trial) -> None:
    guest = trial.guest()
    [(status, body)] = _ask(trial, guest, f"GET {guest.path}")
    trial.same("GET of itself", status, 200)
    trial.contains("the body", body, guest.id)


@check("what else a machine can do there without a token", "unknown", "10.4")
def others(trial: Trial) -> None:
    guest = trial.guest()
    asked = {
        "the app": f"GET {trial.ground.path}",
        "its machines": f"GET {trial.machines}",
        "its volumes": f"GET {trial.ground.path}/volumes",
        "its secrets": f"GET {trial.ground.path}/secrets",
        "metadata of itself": f"GET {guest.path}/metadata",
        "tokens/current": "GET /v1/tokens/current",
        "regions": "GET /v1/platform/regions",
    }
    for what, (status, body) in zip(asked, _ask(trial, guest, *asked.values()), strict=True):
        trial.note(what, status if 200 <= status < 300 else f"{status} {body[:200]}")
