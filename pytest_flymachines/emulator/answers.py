"""What the API answers: JSON bodies, and errors in Fly's shape."""

from __future__ import annotations

from starlette.responses import Response

from pytest_flymachines.emulator.config import encode

__all__ = ["Problem", "answer", "conflict", "empty", "failed_precondition", "not_found", "ok"]


class Problem(Exception):
    """An error answer.

    Attributes:
        status: HTTP status.
        text: The `error` text.
        code: The newer `status` field (`name_taken`, `insufficient_capacity`, ...).
        body: A whole body that replaces `{"error": ...}`.
    """

    def __init__(
        self, status: int, text: str, *, code: str | None = None, body: object | None = None
    ) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.code = code
        self.body = body

    def response(self) -> Response:
        """The answer itself."""
        if self.body is not None:
            return answer(self.body, self.status)
        body = {"error": self.text}
        return answer(body | {"status": self.code} if self.code else body, self.status)


def answer(body: object, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(encode(body), status, media_type="application/json; charset=utf-8")


def ok() -> Response:
    """`{"ok":true}`, the answer of every action."""
    return answer({"ok": True})


def empty(status: int = 204) -> Response:
    """An answer without a body."""
    return Response(status_code=status)


def failed_precondition(text: str) -> Problem:
    """412, flyd's way to refuse what the state does not allow."""
    return Problem(412, f"failed_precondition: {text}")


def conflict(text: str) -> Problem:
    """409, flyd's way to refuse what goes against something under way."""
    return Problem(409, f"aborted: {text}")


def not_found(what: str) -> Problem:
    """404 of flyd."""
    return Problem(404, f"not_found: {what} not found")
