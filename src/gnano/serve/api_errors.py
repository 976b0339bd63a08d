"""Errors of the API, in OpenAI's form.

    {"error": {"message": "…", "type": "invalid_request_error", "param": "top_p", "code": null}}

OpenAI's clients repeat a request after 408, 409, 429 and 5xx, so a mistake of the client is never
one of these.
"""

from typing import Any

from starlette.responses import JSONResponse

ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
}


class ApiError(Exception):
    """A request that is answered with an error."""

    def __init__(
        self,
        message: str,
        param: str | None = None,
        code: str | None = None,
        status: int = 400,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.param, self.code, self.status, self.headers = param, code, status, headers

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object of the error."""
        other = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = ERROR_TYPES.get(self.status, other)
        detail = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": detail}

    def to_response(self) -> JSONResponse:
        """Return the error as a response."""
        return JSONResponse(self.body, self.status, self.headers)


def not_found(message: str, code: str = "not_found") -> ApiError:
    """Return the error for something that is not here."""
    return ApiError(message, code=code, status=404)


def server_error(message: str, code: str = "internal_error") -> ApiError:
    """Return the error for a fault of the server."""
    return ApiError(message, code=code, status=500)
