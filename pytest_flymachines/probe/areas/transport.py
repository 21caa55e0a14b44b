"""Tokens, headers, errors of form (reference, sections 1, 2 and 8)."""

from __future__ import annotations

from pytest_flymachines.probe.registry import check
from pytest_flymachines.probe.trial import Trial

_REQUEST_ID = r"[0-9A-HJKMNP-TV-Z]{26}-[a-z]{3}"


@check("every answer has a `fly-request-id`: a ULID and a region", "seen", "1.4")
def request_id(trial: Trial) -> None:
    for path in (trial.ground.path, f"{trial.machines}/00000000000000"):
        answer = trial.send("GET", path)
        trial.matches("fly-request-id", answer.headers.get("fly-request-id"), _REQUEST_ID)


@check("bodies are `application/json; charset=utf-8`", "seen", "1.4")
def content_type(trial: Trial) -> None:
    for path in (trial.ground.path, f"{trial.machines}/00000000000000"):
        answer = trial.send("GET", path)
        trial.same(
            "content-type", answer.headers.get("content-type"), "application/json; charset=utf-8"
        )


@check("which other headers an answer has", "unknown", "1.4")
def headers(trial: Trial) -> None:
    answer = trial.send("GET", trial.ground.path)
    known = {"content-type", "fly-request-id", "date", "content-length", "transfer-encoding"}
    trial.note("headers", {k: v for k, v in answer.headers.items() if k not in known})


@check("401 without a token, and for a wrong one", "seen", "1.2")
def wrong_token(trial: Trial) -> None:
    for auth in ("", "Bearer fo1_this-token-was-never-given-out"):
        answer = trial.send("GET", trial.ground.path, auth=auth)
        trial.refused(answer, 401)
        trial.true("error is a text", isinstance(answer.field("error"), str))


@check("what a missing and a wrong token are told", "unknown", "1.2")
def wrong_token_text(trial: Trial) -> None:
    trial.note_answer("none", trial.send("GET", trial.ground.path, auth=""))
    wrong = trial.send("GET", trial.ground.path, auth="Bearer fo1_this-token-was-never-given-out")
    trial.note_answer("wrong", wrong)


@check("an unknown path is the plain text `404 page not found`", "seen", "2")
def unknown_path(trial: Trial) -> None:
    answer = trial.send("GET", "/v1/there-is-no-such-path")
    trial.same("status", answer.status, 404)
    trial.same("body", answer.text.strip(), "404 page not found")


@check("404 for an app that does not exist; the text says that it was not found", "flyctl", "8.3")
def unknown_app(trial: Trial) -> None:
    answer = trial.send("GET", "/v1/apps/ptfm-probe-there-is-no-such-app")
    trial.refused(answer, 404, "app not found", "Could not find App")


@check("404 `machine not found` for an unknown machine", "flyctl", "8.3")
def unknown_machine(trial: Trial) -> None:
    for method, action in (("GET", ""), ("POST", "/start"), ("POST", "/exec")):
        body = {"command": ["true"]} if action == "/exec" else None
        answer = trial.send(method, f"{trial.machines}/00000000000000{action}", body)
        trial.refused(answer, 404, "machine not found")


@check("400 in the words of Go's decoder for a body of the wrong type", "seen", "2")
def wrong_type(trial: Trial) -> None:
    answer = trial.send("POST", trial.machines, [])
    trial.refused(answer, 400, "json: cannot unmarshal array into Go value of type")


@check("400 for a body that is no JSON", "seen", "2")
def no_json(trial: Trial) -> None:
    trial.refused(trial.send("POST", trial.machines, b'{"config": '), 400)


@check("what a method that a path does not have is answered", "unknown", "2")
def wrong_method(trial: Trial) -> None:
    trial.note_answer("DELETE .../machines", trial.send("DELETE", trial.machines))
