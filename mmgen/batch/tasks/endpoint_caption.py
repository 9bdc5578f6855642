"""Words about pictures from a server with OpenAI's chat route."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from PIL import ExifTags
from PIL import Image as PilImage

from mmgen.batch.endpoint import Endpoint
from mmgen.batch.fields import integer, text
from mmgen.batch.results import Result
from mmgen.batch.rows import Row
from mmgen.batch.tasks.abstract import ColumnKind
from mmgen.batch.tasks.caption import CaptionSettings, as_found
from mmgen.batch.tasks.endpoint import AbstractEndpointTask, first_of
from mmgen.errors import EngineError, SettingsError
from mmgen.pictures import open_picture, png_bytes

__all__ = ["EndpointCaptionTask", "check_served_captions"]

_ROUTE = "/v1/chat/completions"
_COMMON_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
"""Formats that servers read; other pictures are sent as PNG."""
_ENDS = {"stop": "end"}
"""Reasons for which an answer ends, as results call them; others keep their names."""


def check_served_captions(settings: CaptionSettings) -> None:
    """Refuse what a server cannot be asked for.

    Raises:
        SettingsError: the settings want to look into the model, or to steer it id by id.
    """
    controls = settings.controls
    wanted = {
        "a beginning (--prefix)": bool(controls.prefix),
        "words (--include, --avoid, --min-words, --max-words)": not controls.words.is_free,
        "a form (--json-schema, --choices, --regex, --grammar)": controls.form is not None,
        "likelihoods (--scores, --score-field, --best-of)": controls.needs_scores,
        "a visual tokenizer (--tokenizer)": settings.tokenizer is not None,
    }
    for what, is_wanted in wanted.items():
        if is_wanted:
            raise SettingsError(
                f"{what} cannot be asked of a server; leave it out, or run the model here, "
                "without --endpoint"
            )


class EndpointCaptionTask(AbstractEndpointTask):
    """Asks a server about the picture of each row."""

    def __init__(
        self, settings: CaptionSettings, endpoint: Endpoint, *, keep_pictures: bool = False
    ) -> None:
        """Take what a task needs.

        Args:
            keep_pictures: whether results have the picture that was looked at, as it was found.

        Raises:
            SettingsError: the settings want what a server cannot be asked for.
        """
        check_served_captions(settings)
        self._settings = settings
        self._endpoint = endpoint
        self._keep_pictures = keep_pictures

    @property
    def name(self) -> str:
        return "caption"

    @property
    def settings(self) -> Mapping[str, Any]:
        return {**asdict(self._settings), "omitted": self._endpoint.omitted}

    @property
    def columns(self) -> Mapping[str, ColumnKind]:
        return {
            "caption": "str",
            "prompt": "str",
            "end": "str",
            "tokens": "int",
            "seed": "int",
            "captions": "json",
        }

    @property
    def words(self) -> str:
        return "caption"

    def check(self, row: Row) -> None:
        self._settings.check(row)
        if row.fields.get("tokenizer") is not None:
            raise SettingsError(
                "a row's tokenizer cannot be asked of a server; leave it out, or run the model here"
            )
        if not self._settings.controls.prompts and self._usual(row) is None:
            raise SettingsError(
                "there is nothing to ask: this server does not tell what is usual; give --prompt "
                "or --ask, or rows with a prompt"
            )

    def answer(self, row: Row) -> Result:
        self.check(row)
        assert row.picture is not None
        data = row.picture.read()
        uri = _data_uri(data)
        controls = self._settings.controls
        questions = controls.questions(row, self._usual(row) or "")
        answers = [
            self._ask(row, uri, question, self._settings.row_seed(row, place))
            for place, question in enumerate(questions.values())
        ]
        first = answers[0]
        fields: dict[str, Any] = {
            "caption": first.caption,
            "prompt": next(iter(questions.values())),
        }
        if first.end is not None:
            fields["end"] = first.end
        counts = [item.num_tokens for item in answers if item.num_tokens is not None]
        if len(counts) == len(answers):
            fields["tokens"] = sum(counts)
        if "seed" not in self._endpoint.omitted:
            fields["seed"] = self._settings.row_seed(row, 0)
        if len(answers) > 1:
            named = zip(questions, answers, strict=True)
            fields["captions"] = {name: item.caption for name, item in named}
        return Result(
            fields=fields,
            label=row.id,
            pictures=(as_found(data, row.picture.name),) if self._keep_pictures else (),
        )

    def _usual(self, row: Row) -> str | None:
        """Return what is asked where no template says it."""
        told = self._endpoint.model.caption_prompt
        return text(row, "prompt") or self._settings.prompt or told

    def _ask(self, row: Row, uri: str, question: str, seed: int) -> _Answer:
        content = [
            {"type": "image_url", "image_url": {"url": uri}},
            {"type": "text", "text": question},
        ]
        body: dict[str, Any] = {
            "messages": [{"role": "user", "content": content}],
            "max_tokens": integer(row, "max_tokens") or self._settings.max_tokens,
            "seed": seed,
            **self._settings.sampling.given(row),
        }
        if self._endpoint.model.is_mmgen:
            # A model that draws could answer with a picture.
            body["modalities"] = ["text"]
        return _Answer.of(self._endpoint.ask(_ROUTE, body))


@dataclass(frozen=True, slots=True)
class _Answer:
    caption: str
    end: str | None
    num_tokens: int | None

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> _Answer:
        """Return what a completion says."""
        choice = first_of(body, "choices")
        message = choice.get("message")
        if not isinstance(message, dict):
            raise EngineError("the server's answer has no message")
        reason = choice.get("finish_reason")
        words = _words(message.get("content"))
        if words is None:
            refusal = message.get("refusal")
            why = (
                f"the server's model refuses: {refusal}"
                if refusal
                else (f"the server's answer has no text (it ended with {reason!r})")
            )
            raise EngineError(why)
        usage = body.get("usage")
        count = usage.get("completion_tokens") if isinstance(usage, dict) else None
        return cls(
            caption=words.strip(),
            end=_ENDS.get(reason, reason) if isinstance(reason, str) else None,
            num_tokens=count if isinstance(count, int) else None,
        )


def _words(content: Any) -> str | None:
    """Return the text of a message: a string, or the parts of a list that are text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    texts = [item.get("text") for item in content if isinstance(item, dict)]
    found = [item for item in texts if isinstance(item, str)]
    return "".join(found) if found else None


def _data_uri(data: bytes) -> str:
    """Return a picture as an address that holds it, as it was found where servers can read that.

    Raises:
        PictureError: it is no usable picture; then nobody is asked.
    """
    picture = open_picture(data)
    with PilImage.open(io.BytesIO(data)) as found:
        media_type = _COMMON_TYPES.get(found.format or "")
        # Not every server turns pictures as they say.
        is_upright = found.getexif().get(ExifTags.Base.Orientation, 1) == 1
    if media_type is None or not is_upright:
        media_type, data = _COMMON_TYPES["PNG"], png_bytes(picture)
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"
