"""What a client is told when it gets no answer: OpenAI's error object and an HTTP status."""

from __future__ import annotations

from typing import Any

from mmgen.errors import EngineError, MmgenError, OutputError, PluginError, TransientError

__all__ = ["Refusal", "error_body", "refusal_of"]

_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class Refusal(MmgenError):
    """A request that gets an error for an answer."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        """Say what is wrong.

        Args:
            status: HTTP status.
            param: the field of the request that is to blame.
            code: one word for programs.
            retry_after: seconds after which the same request may succeed.
        """
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        """Headers that belong to the status."""
        headers = {}
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        if self.retry_after is not None:
            headers["retry-after"] = str(self.retry_after)
        return headers


def error_body(refusal: Refusal) -> dict[str, Any]:
    """Return the JSON of a refusal."""
    is_ours = refusal.status >= 500
    kind = "server_error" if is_ours else _TYPES.get(refusal.status, "invalid_request_error")
    message = " ".join(str(refusal).split())
    found = {"message": message, "type": kind, "param": refusal.param, "code": refusal.code}
    return {"error": found}


def refusal_of(error: MmgenError) -> Refusal:
    """Return how an error of the library is told: the request is at fault, or the server."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, TransientError):
        return Refusal(str(error), status=503, retry_after=1)
    if isinstance(error, EngineError | PluginError | OutputError):
        return Refusal(str(error), status=500)
    return Refusal(str(error))
