"""The routes: each reads its body, makes requests of it and says in which shape to answer."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.responses import Response

from mmgen.serve.chat_input import chat_requests, picture_urls
from mmgen.serve.chat_wire import ChatAnswer, ChatChunks
from mmgen.serve.choices import check_model
from mmgen.serve.desk import Desk
from mmgen.serve.fields import ChatBody, EditFields, GenerationBody
from mmgen.serve.image_input import checked_format, draw_requests, edit_requests, num_previews
from mmgen.serve.images_wire import ImageEvents, ImagesAnswer
from mmgen.serve.metrics import Metrics
from mmgen.serve.refusals import Refusal
from mmgen.serve.rendering import PictureFormat
from mmgen.serve.replies import json_response
from mmgen.serve.response_fields import ResponsesBody
from mmgen.serve.response_input import image_tool, item_urls, response_request, tool_format
from mmgen.serve.responses_wire import ResponseAnswer, ResponseEvents

__all__ = ["ERRORS", "chat_routes", "image_routes", "model_routes", "state_routes"]

DONE = "data: [DONE]\n\n"
"""By which chat clients know the end of a stream."""

MAX_FIELD_BYTES = 2**20
"""Longest text field of a form."""


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(BaseModel):
    """The body of every error."""

    error: ErrorDetail


ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorReply, "description": "The request is refused."},
    "5XX": {"model": ErrorReply, "description": "The server failed."},
}


def chat_routes(desk: Desk) -> APIRouter:
    """Return the routes of dialogues."""
    router = APIRouter(responses=ERRORS)

    @router.post("/v1/chat/completions", summary="The next turn of a dialogue")
    async def complete(body: ChatBody, request: Request) -> Response:
        limits = desk.config.limits
        check_model(body.model, desk.config.model_name)
        if body.stream_options is not None and not body.stream:
            raise Refusal("stream_options needs stream=true", param="stream_options")
        partial_images = num_previews(body.partial_images, body.stream, limits)
        pictures = await desk.reader.from_urls(picture_urls(body))
        turns = chat_requests(body, pictures, desk.defaults, desk.sizes, limits)
        format_, head = PictureFormat(), desk.new_head("chatcmpl-")
        if not body.stream:
            return await desk.whole(request, turns, format_, ChatAnswer(head, turns))
        has_usage = bool(body.stream_options and body.stream_options.include_usage)
        chunks = ChatChunks(head, turns, format_, has_usage=has_usage)
        return await desk.stream(
            request, turns, format_, chunks, partial_images=partial_images, last_line=DONE
        )

    @router.post("/v1/responses", summary="The next turn, as items")
    async def respond(body: ResponsesBody, request: Request) -> Response:
        limits = desk.config.limits
        check_model(body.model, desk.config.model_name)
        tool = image_tool(body)
        asked = None if tool is None else tool.partial_images
        partial_images = num_previews(asked, body.stream, limits)
        pictures = await desk.reader.from_urls(item_urls(body))
        turn = response_request(body, pictures, desk.defaults, desk.sizes, limits)
        format_ = tool_format(tool)
        events = ResponseEvents(desk.new_head("resp_"), body, turn, format_)
        if not body.stream:
            return await desk.whole(request, [turn], format_, ResponseAnswer(events))
        return await desk.stream(request, [turn], format_, events, partial_images=partial_images)

    return router


def image_routes(desk: Desk) -> APIRouter:
    """Return the routes that draw."""
    router = APIRouter(responses=ERRORS)

    @router.post("/v1/images/generations", summary="Pictures from words")
    async def generate(body: GenerationBody, request: Request) -> Response:
        limits = desk.config.limits
        check_model(body.model, desk.config.model_name)
        partial_images = num_previews(body.partial_images, body.stream, limits)
        turns = draw_requests(body, desk.defaults, limits)
        format_, created = (
            checked_format(body.output_format, body.output_compression),
            int(time.time()),
        )
        if not body.stream:
            return await desk.whole(request, turns, format_, ImagesAnswer(created))
        events = ImageEvents("image_generation", created, format_)
        return await desk.stream(request, turns, format_, events, partial_images=partial_images)

    @router.post(
        "/v1/images/edits",
        summary="Pictures from pictures and words",
        openapi_extra={"requestBody": _form_description()},
    )
    async def edit(request: Request) -> Response:
        limits = desk.config.limits
        async with request.form(
            max_files=limits.max_pictures + 1, max_fields=64, max_part_size=MAX_FIELD_BYTES
        ) as form:
            body, files = await _read_form(form)
        check_model(body.model, desk.config.model_name)
        partial_images = num_previews(body.partial_images, body.stream, limits)
        pictures = await desk.reader.from_uploads(files, "image")
        defaults = desk.defaults
        turns = edit_requests(body, pictures, defaults, limits)
        format_, created = (
            checked_format(body.output_format, body.output_compression),
            int(time.time()),
        )
        if not body.stream:
            return await desk.whole(request, turns, format_, ImagesAnswer(created))
        events = ImageEvents("image_edit", created, format_)
        return await desk.stream(request, turns, format_, events, partial_images=partial_images)

    return router


def model_routes(desk: Desk) -> APIRouter:
    """Return the routes that tell what is served."""
    router = APIRouter(responses=ERRORS)

    def described() -> dict[str, Any]:
        session = desk.service.session
        checkpoint = session.checkpoint
        name = checkpoint.generation.tokenizer
        return {
            "id": desk.config.model_name,
            "object": "model",
            "created": int((checkpoint.path / "mmgen.json").stat().st_mtime),
            "owned_by": "mmgen",
            "mmgen": {
                "fingerprint": checkpoint.fingerprint,
                "context_length": session.engine.context_length,
                "trained_length": checkpoint.generation.trained_length,
                "tokenizer": name,
                "tokenizers": list(checkpoint.visual_tokenizers),
                "sizes": [f"{width}x{height}" for height, width in session.codec.sizes(name)],
                "guidance_scale": checkpoint.generation.guidance_scale,
                "caption_prompt": checkpoint.generation.caption_prompt,
            },
        }

    @router.get("/v1/models", summary="The model that is served, as a list")
    async def list_models() -> Response:
        return json_response({"object": "list", "data": [described()]})

    @router.get("/v1/models/{name:path}", summary="One model")
    async def show_model(name: str) -> Response:
        check_model(name, desk.config.model_name)
        return json_response(described())

    return router


def state_routes(desk: Desk) -> APIRouter:
    """Return the routes for whoever watches the server."""
    router = APIRouter(responses=ERRORS)

    @router.get("/health", summary="Whether the server can answer")
    async def health() -> Response:
        fault = desk.service.fault
        if fault is not None:
            raise Refusal(str(fault), status=503, code="engine_stopped")
        return json_response({"status": "ok"})

    @router.get("/metrics", summary="Counters for Prometheus")
    async def metrics() -> Response:
        return Response(desk.metrics.text(), headers={"content-type": Metrics.CONTENT_TYPE})

    return router


async def _read_form(form: FormData) -> tuple[EditFields, list[bytes]]:
    """Return the fields of an edit and the files of its pictures."""
    files: list[UploadFile] = []
    fields: dict[str, str] = {}
    for name, value in form.multi_items():
        if name in ("image", "image[]"):
            if isinstance(value, str):
                raise Refusal("image must be a file of the form", param="image")
            files.append(value)
        elif name in ("mask", "mask[]"):
            raise Refusal(
                "masks are not supported: the model reads the whole picture and draws anew; say "
                "in the prompt what to change",
                param="mask",
                code="unsupported_parameter",
            )
        elif not isinstance(value, str):
            raise Refusal(f"{name} is a file, which only image may be", param=name)
        elif name in fields:
            raise Refusal(f"{name} is given twice", param=name)
        else:
            fields[name] = value
    if not files:
        raise Refusal("image is missing; send a picture as a file of the form", param="image")
    try:
        body = EditFields.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        is_unknown = first["type"] == "extra_forbidden"
        what = "not a field that this server knows" if is_unknown else first["msg"]
        raise Refusal(f"{name}: {what}", param=name, code="invalid_value") from error
    return body, [await file.read() for file in files]


def _form_description() -> dict[str, Any]:
    """Return what the description says of the form of edits."""
    schema = EditFields.model_json_schema()
    schema["properties"] = {
        "image": {
            "type": "array",
            "items": {"type": "string", "format": "binary"},
            "minItems": 1,
            "description": "One picture or several.",
        },
        **schema["properties"],
    }
    schema["required"] = ["image", "prompt"]
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
