"""The part of Fly's GraphQL API that flyctl asks for beside the Machines API.

There is no GraphQL engine here: a query is read as far as its fields, and each field is
answered with all that flyctl might select in it.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from starlette.responses import Response

from pytest_flymachines.emulator.answers import Problem, answer
from pytest_flymachines.emulator.call import Call, Routes
from pytest_flymachines.emulator.queries import QueryError, parse_query
from pytest_flymachines.emulator.resolvers import RESOLVERS, NotFound

__all__ = ["routes"]

routes = Routes()

MAX_QUERY = 64 * 1024


class Query(Struct):
    """Body of a query."""

    query: str = ""
    variables: dict[str, Any] | None = None


@routes.on("POST", "/graphql")
async def graphql(call: Call) -> Response:
    """Answer a query or mutation; errors have status 200, as GraphQL has it."""
    body = call.body(Query, "graphql.request")
    if len(body.query) > MAX_QUERY:
        raise Problem(413, "query too large")
    data: dict[str, Any] = {}
    try:
        for field in parse_query(body.query, body.variables or {}):
            resolver = RESOLVERS.get(field.name)
            if resolver is None:
                text = f"Field '{field.name}' is not part of this emulator"
                return _error(text, "undefinedField")
            data[field.key] = await resolver(call, field)
    except QueryError as error:
        return _error(str(error), "parseError")
    except NotFound as error:
        return _error(str(error), "NOT_FOUND")
    except Problem as problem:
        return _error(problem.text, "NOT_FOUND" if problem.status == 404 else "UNPROCESSABLE")
    return answer({"data": data})


def _error(message: str, code: str) -> Response:
    return answer({"data": None, "errors": [{"message": message, "extensions": {"code": code}}]})
