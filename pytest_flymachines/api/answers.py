"""Answers of the API: into models, or into errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from pytest_flymachines._http import Response
from pytest_flymachines.errors import (
    ApiError,
    ApiUnreachable,
    CapacityError,
    Conflict,
    NotFound,
    RateLimited,
    Unauthorized,
)

__all__ = ["api_error", "decode", "lease_data", "snake_case_keys"]

T = TypeVar("T")

# A config goes back as it came, nulls included.
_AS_SENT = frozenset({"config", "incomplete_config", "user_config"})

# https://github.com/superfly/flyctl/blob/master/internal/flapsutil and answers seen live
_CAPACITY_STATUS = frozenset({"insufficient_capacity", "volume_placement_capacity"})
_CAPACITY_TEXT = re.compile(
    "could not reserve resource for machine|insufficient (resources|memory|CPUs|IPs) "
    "|aborted: no capacity|could not find a candidate host"
)
_BY_STATUS: dict[int, type[ApiError]] = {
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    409: Conflict,
    412: Conflict,
    429: RateLimited,
}


class _ErrorBody(msgspec.Struct):
    error: str | None = None
    message: str | None = None
    status: str | None = None


def api_error(method: str, path: str, response: Response) -> ApiError:
    """The error for an answer that is none of the 2xx, whatever its body looks like."""
    try:
        body = msgspec.json.decode(response.content, type=_ErrorBody)
    except msgspec.DecodeError:
        body = _ErrorBody()
    message = body.message or body.error or ""
    status = response.status_code
    kind = _BY_STATUS.get(status, ApiError)
    if status in (409, 412, 422) and (
        body.status in _CAPACITY_STATUS or _CAPACITY_TEXT.search(message)
    ):
        kind = CapacityError
    elif status == 422 and body.status == "name_taken":
        kind = Conflict
    request_id = response.headers.get("fly-request-id", "")
    return kind(method, path, status, response.text, request_id, message)


def decode(response: Response, kind: type[T], *, fold: Callable[[Any], Any] | None = None) -> T:
    """The body as a model; null fields count as missing.

    Args:
        response: A 2xx, read.
        kind: The model.
        fold: Applied to the plain data first.

    Raises:
        ApiUnreachable: The body is not JSON of that shape.
    """
    try:
        data = _without_nulls(msgspec.json.decode(response.content))
        return msgspec.convert(fold(data) if fold else data, type=kind, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        request = response.request
        name = getattr(kind, "__name__", str(kind))
        raise ApiUnreachable(
            f"{request.method} {request.url.path} answered {response.status_code} with a body "
            f"that cannot be read as {name} ({error}): {response.text[:200]!r}; "
            "a proxy in between may have answered in the API's place",
            ambiguous=request.method != "GET",
        ) from None


def _without_nulls(data: Any) -> Any:
    if isinstance(data, list):
        return [_without_nulls(item) for item in data]
    if isinstance(data, dict):
        return {
            key: value if key in _AS_SENT else _without_nulls(value)
            for key, value in data.items()
            if value is not None
        }
    return data


def lease_data(data: Any) -> Any:
    """A lease out of its envelope; some servers send it flat."""
    return data["data"] if isinstance(data, dict) and "data" in data else data


def snake_case_keys(data: Any) -> Any:
    """`GatewayAvailable` to `gateway_available`, at every level: Fly sends both spellings."""
    if isinstance(data, list):
        return [snake_case_keys(item) for item in data]
    if isinstance(data, dict):
        return {
            re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).lower(): snake_case_keys(value)
            for key, value in data.items()
        }
    return data
