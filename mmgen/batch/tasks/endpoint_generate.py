"""Pictures from words, drawn by a server with OpenAI's images route."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from mmgen.batch.endpoint import Endpoint
from mmgen.batch.results import EncodedPicture, Result
from mmgen.batch.rows import Row
from mmgen.batch.tasks.abstract import ColumnKind
from mmgen.batch.tasks.endpoint import AbstractEndpointTask, first_of
from mmgen.batch.tasks.generate import SUFFIXES, GenerateSettings
from mmgen.errors import EngineError, SettingsError
from mmgen.pictures import encode_picture, open_picture, read_metadata

__all__ = ["EndpointGenerateTask", "check_served_drawings"]

_ROUTE = "/v1/images/generations"


def check_served_drawings(settings: GenerateSettings) -> None:
    """Refuse what a server cannot be asked for.

    Raises:
        SettingsError: the settings want to look into the model.
    """
    if settings.tries > 1:
        raise SettingsError(
            "likelihoods (--best-of) cannot be asked of a server; leave it out, or run the model "
            "here, without --endpoint"
        )


class EndpointGenerateTask(AbstractEndpointTask):
    """Has a server draw one picture per row."""

    def __init__(self, settings: GenerateSettings, endpoint: Endpoint) -> None:
        """Take what a task needs.

        Raises:
            SettingsError: the settings want what a server cannot be asked for.
        """
        check_served_drawings(settings)
        self._settings = settings
        self._endpoint = endpoint

    @property
    def name(self) -> str:
        return "generate"

    @property
    def settings(self) -> Mapping[str, Any]:
        return {**asdict(self._settings), "omitted": self._endpoint.omitted}

    @property
    def columns(self) -> Mapping[str, ColumnKind]:
        return {
            "prompt": "str",
            "revised_prompt": "str",
            "seed": "int",
            "guidance": "float",
            "temperature": "float",
            "top_k": "int",
            "top_p": "float",
            "width": "int",
            "height": "int",
            "tokenizer": "str",
            "negative": "str",
        }

    @property
    def words(self) -> str:
        return "prompt"

    def check(self, row: Row) -> None:
        self._settings.request(row)

    def answer(self, row: Row) -> Result:
        request = self._settings.request(row)
        optional = {
            "size": None if request.size is None else f"{request.size[1]}x{request.size[0]}",
            "guidance_scale": request.guidance_scale,
            "negative_prompt": request.negative_prompt,
            "tokenizer": request.tokenizer,
            **self._settings.sampling.given(row),
        }
        body = {
            "prompt": request.prompt,
            "n": 1,
            "response_format": "b64_json",
            "seed": request.seed,
            **{name: value for name, value in optional.items() if value is not None},
        }
        drawn = first_of(self._endpoint.ask(_ROUTE, body), "data")
        data = _picture_data(drawn)
        picture = open_picture(data)
        asked = {} if "seed" in self._endpoint.omitted else {"seed": request.seed}
        known: dict[str, Any] = {
            "prompt": request.prompt,
            **asked,
            **_told(drawn),
            "width": picture.width,
            "height": picture.height,
        }
        fields = {name: known[name] for name in self.columns if name in known}
        form = self._settings.picture_format
        encoded = encode_picture(
            picture, form, self._metadata(data, fields), quality=self._settings.quality
        )
        return Result(
            fields=fields,
            label=request.prompt,
            pictures=(EncodedPicture(SUFFIXES[form], encoded),),
        )

    def _metadata(self, data: bytes, fields: Mapping[str, Any]) -> dict[str, str]:
        """Return what a picture's file says of it: all that mmgen's own say, else what is known."""
        told = read_metadata(data)
        if "mmgen" in told:
            return told
        known = {name: str(fields[name]) for name in ("prompt", "seed") if name in fields}
        return {**known, "model": self._endpoint.model.name}


def _picture_data(drawn: Mapping[str, Any]) -> bytes:
    """Return the file that an answer holds."""
    encoded = drawn.get("b64_json")
    if not isinstance(encoded, str):
        where = " but an address, which is not fetched" if drawn.get("url") else ""
        raise EngineError(f"the server's answer holds no picture (b64_json){where}")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise EngineError(f"the server's picture is not base64: {error}") from error


def _told(drawn: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the server says of a picture, under the names of results."""
    report = drawn.get("mmgen")
    report = report if isinstance(report, dict) else {}
    sampling = report.get("sampling")
    sampling = sampling if isinstance(sampling, dict) else {}
    told = {
        "revised_prompt": drawn.get("revised_prompt"),
        "seed": report.get("seed"),
        "guidance": report.get("guidance_scale"),
        "temperature": sampling.get("temperature"),
        "tokenizer": report.get("tokenizer"),
        "negative": report.get("negative_prompt"),
    }
    found = {name: value for name, value in told.items() if value is not None}
    # There, None is a value: all ids, the whole probability.
    return found | {name: sampling[name] for name in ("top_k", "top_p") if name in sampling}
