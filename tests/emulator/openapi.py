"""Fly's own OpenAPI document of the Machines API, and whether an answer is in it.

`openapi.json` is the document of 2026-05 without its prose. Where it is known to be wrong about
what servers send and clients read, `CORRECTIONS` says so.
"""

from __future__ import annotations

import copy
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it has no stubs of its own

__all__ = ["document", "validate_answer"]

JSON = dict[str, Any]

NULLABLE_TEXT: JSON = {"type": "string", "nullable": True}
OK: JSON = {"type": "object", "required": ["ok"], "properties": {"ok": {"enum": [True]}}}
MACHINE = "/apps/{app_name}/machines/{machine_id}"


def _ref(name: str) -> JSON:
    return {"$ref": f"#/components/schemas/{name}"}


def _lease(data: JSON) -> JSON:
    return {
        "type": "object",
        "required": ["status", "data"],
        "properties": {"status": {"enum": ["success"]}, "data": data},
    }


#: Fields of schemas that are other than the document says, and why.
CORRECTIONS: dict[tuple[str, str], JSON] = {
    # fly-go's MachineAutostop is false, true or "suspend" on the wire, and always sends a key.
    ("fly.MachineService", "autostop"): {"enum": [False, True, "off", "stop", "suspend"]},
    ("fly.MachineService", "force_instance_key"): NULLABLE_TEXT,
    # Volumes that are attached to nothing say null.
    ("Volume", "attached_machine_id"): NULLABLE_TEXT,
    ("Volume", "attached_alloc_id"): NULLABLE_TEXT,
    ("OrgVolume", "attached_machine_id"): NULLABLE_TEXT,
    ("OrgVolume", "attached_alloc_id"): NULLABLE_TEXT,
    # fly-go: there is none when the host does not answer.
    ("Machine", "config"): {"allOf": [_ref("fly.MachineConfig")], "nullable": True},
    # Two more codes were seen on the live API.
    ("ErrorResponse", "status"): {
        "enum": ["unknown", "insufficient_capacity", "name_taken", "volume_placement_capacity"]
    },
}

#: Bodies of answers that are other than the document says, and why.
ANSWERS: dict[tuple[str, str, str], JSON] = {
    # The document has the bare lease; servers and fly-go put it into an envelope.
    ("GET", f"{MACHINE}/lease", "200"): _lease(_ref("Lease")),
    ("POST", f"{MACHINE}/lease", "201"): _lease(_ref("Lease")),
    ("DELETE", f"{MACHINE}/lease", "200"): _lease(OK),
    # fly-go's flyctl reads an app here; the document has a token that nothing reads.
    ("POST", "/apps", "201"): _ref("App"),
}


@cache
def document() -> JSON:
    """The document as it was published, without prose."""
    found: JSON = json.loads(Path(__file__).with_name("openapi.json").read_text())
    return found


def validate_answer(method: str, path: str, status: int, body: object) -> None:
    """Check an answer against the document; `path` is that of the request, `/v1` included.

    Raises:
        jsonschema.ValidationError: It is not in it.
    """
    operation = _operation(method, path)
    if operation is None:
        return
    key = "error" if status >= 400 else str(status)
    validator = _validators().get((method, operation, key))
    if validator is not None:
        validator.validate(body)


def _operation(method: str, path: str) -> str | None:
    return next(
        (
            template
            for pattern, template in _patterns()
            if pattern.match(path) and method.lower() in document()["paths"][template]
        ),
        None,
    )


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    return [
        (re.compile("/v1" + re.sub(r"\{\w+\}", "[^/]+", template) + "$"), template)
        for template in sorted(document()["paths"], key=lambda path: path.count("{"))
    ]


@cache
def _validators() -> dict[tuple[str, str, str], Any]:
    components = copy.deepcopy(document()["components"])
    for (schema, field), correction in CORRECTIONS.items():
        components["schemas"][schema]["properties"][field] = correction
    found = {}
    for template, operations in document()["paths"].items():
        for method, operation in operations.items():
            shapes = {
                status: response.get("content", {}).get("application/json", {}).get("schema")
                for status, response in operation["responses"].items()
                if int(status) < 400
            }
            shapes["error"] = _ref("ErrorResponse")
            for status, shape in shapes.items():
                shape = ANSWERS.get((method.upper(), template, status), shape)
                if shape is not None:
                    whole = _as_json_schema({**shape, "components": components})
                    found[method.upper(), template, status] = jsonschema.Draft202012Validator(whole)
    return found


def _as_json_schema(value: Any) -> Any:
    """OpenAPI 3.0 in the words of JSON Schema: `nullable`, and types beside `allOf` of others."""
    if isinstance(value, list):
        return [_as_json_schema(item) for item in value]
    if not isinstance(value, dict):
        return value
    changed = {key: _as_json_schema(item) for key, item in value.items()}
    if "allOf" in changed:
        changed.pop("type", None)
    if changed.pop("nullable", None) is True:
        return {"anyOf": [changed, {"type": "null"}]}
    return changed
