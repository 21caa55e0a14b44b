"""Cookies that lead the calls for one app to the same server of Fly's."""

from __future__ import annotations

from pytest_flymachines._http import Cookies, Request, Response, Transport

__all__ = ["AffinityTransport"]


class AffinityTransport(Transport):
    """Keeps a cookie jar, shared by all threads.

    Fly's servers learn of a new app or machine at different times. The cookie that the answer
    to an app's creation sets leads the calls that follow to the server that knows it already
    (https://github.com/superfly/fly-go/pull/224). Cookies stay beneath this transport.
    """

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self._cookies = Cookies()  # its jar has a lock of its own
        self._any = False

    def handle_request(self, request: Request) -> Response:
        """Send with the cookies for this URL, and keep those of the answer."""
        if self._any:
            self._cookies.set_cookie_header(request)
        try:
            response = self._inner.handle_request(request)
        finally:
            if self._any:
                request.headers.pop("cookie", None)
        if "set-cookie" in response.headers:
            response.request = request
            self._cookies.extract_cookies(response)
            self._any = True
            del response.headers["set-cookie"]
        return response

    def close(self) -> None:
        """Close the transport beneath."""
        self._inner.close()
