"""The router: OpenAI's routes over a service, whatever its engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from mmgen import __version__
from mmgen.errors import MmgenError
from mmgen.generate.service import Service
from mmgen.serve.desk import Desk
from mmgen.serve.fetching import Fetcher
from mmgen.serve.gate import Gate
from mmgen.serve.refusals import Refusal, refusal_of
from mmgen.serve.replies import refusal_response
from mmgen.serve.routes import (
    chat_routes,
    image_routes,
    model_routes,
    state_routes,
)
from mmgen.serve.settings import ServerConfig

__all__ = ["create_app"]

DESCRIPTION = """\
Pictures from words and words from pictures, in the shapes of OpenAI's API. Fields that are not
known are refused. What was applied to an answer stands in its `mmgen` object.
"""


def create_app(
    service: Service,
    config: ServerConfig,
    *,
    fetcher: Fetcher | None = None,
    report: Callable[[int], None] = lambda turns: None,
) -> FastAPI:
    """Return an application that serves a service until the latter is closed.

    Args:
        fetcher: gets pictures from addresses; without it, one that follows the configuration.
        report: told how many turns are in the works, whenever that changes.
    """
    fetcher = fetcher or Fetcher(config.allowed_url_hosts, config.limits)
    desk = Desk(service, config, fetcher, report)
    # The pages with forms would be loaded from elsewhere; the description itself is served.
    app = FastAPI(
        title="mmgen",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
    )
    app.state.desk = desk
    for routes in (chat_routes, image_routes, model_routes, state_routes):
        app.include_router(routes(desk))
    app.add_middleware(Gate, config=config, admission=desk.admission, metrics=desk.metrics)
    app.add_exception_handler(MmgenError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _web_error)
    app.add_exception_handler(Exception, _bug)
    _describe_errors(app)
    return app


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, MmgenError)
    return refusal_response(refusal_of(error))


async def _invalid(request: Request, error: Exception) -> Response:
    """Answer a body that is not what the description says, with its first fault."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return refusal_response(Refusal("the body is not JSON", code="invalid_json"))
    given = request.headers.get("content-type", "")
    place = first["loc"][1:]
    if not place:
        if "json" not in given:
            return refusal_response(
                Refusal(f"the body must be JSON with Content-Type: application/json, got {given!r}")
            )
        return refusal_response(Refusal("the body must be an object of JSON with some fields"))
    name = _dotted(place)
    if first["type"] == "extra_forbidden":
        message, code = f"{name} is not a field that this server knows", "unknown_parameter"
    elif first["type"] == "missing":
        message, code = f"{name} is missing", "missing_required_parameter"
    else:
        message, code = f"{name}: {first['msg']}", "invalid_value"
    return refusal_response(Refusal(message, param=name, code=code))


async def _web_error(request: Request, error: Exception) -> Response:
    """Answer unknown routes and methods, and bodies that could not be read."""
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, Refusal):
        return refusal_response(error.__cause__)
    if error.status_code == 404:
        what = f"there is no {request.url.path} here; see /openapi.json"
    elif error.status_code == 405:
        what = f"{request.url.path} takes no {request.method}; see /openapi.json"
    else:
        what = str(error.detail)
    response = refusal_response(Refusal(what, status=error.status_code))
    response.headers.update(error.headers or {})
    return response


async def _bug(request: Request, error: Exception) -> Response:
    """Answer for what must not happen; the server's log has the details."""
    return refusal_response(Refusal("an internal error; the server's log says more", status=500))


def _dotted(place: Sequence[Any]) -> str:
    name = ""
    for part in place:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else str(part)
    return name


def _describe_errors(app: FastAPI) -> None:
    """Make the description tell that invalid bodies get 400 like all else that is refused."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        described = original()
        for operations in described["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            described.get("components", {}).get("schemas", {}).pop(name, None)
        return described

    app.openapi = openapi  # type: ignore[method-assign]
