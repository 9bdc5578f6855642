"""From turns of a conversation to what a checkpoint reads: documents with pictures as codes.

A drawn picture is its codes, as long as the model has the tokenizer that they belong to; any other
picture is looked at, once.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mmgen.document import Document, Image, Segment, Text
from mmgen.document import Turn as DocumentTurn
from mmgen.visual_tokenizer import Codes
from mmgen_chat.backend import ChatRequest
from mmgen_chat.conversation import Picture, Turn, Words
from mmgen_chat.dialogue import fitting, shown
from mmgen_chat.errors import BackendError, NoRoomError

if TYPE_CHECKING:
    from mmgen.checkpoint import Checkpoint
    from mmgen.document import DocumentCodec

__all__ = ["Encoder", "FittedDialogue"]

MAX_KEPT = 512
"""Pictures whose codes are remembered."""

MARKS_PER_TURN = 2
"""Ids that open and close a turn."""

LONGEST_ANSWER = 256
"""Ids of words that an answer may have where nothing else is wanted."""

WORDS_TO_LEAVE = 24
"""Ids for words beside a picture, or of a short answer, for which room is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedDialogue:
    """A dialogue as the model will read it."""

    document: Document
    encoded: tuple[Picture, ...]
    """Attached pictures that got codes."""
    left_out: tuple[str, ...]
    """Ids of the oldest turns, which did not fit."""
    num_ids: int
    max_text_ids: int
    """Ids of words that may follow."""


class Encoder:
    """Encodes pictures and dialogues for one checkpoint. Slow; not for an event loop."""

    def __init__(self, checkpoint: Checkpoint, codec: DocumentCodec) -> None:
        self._checkpoint = checkpoint
        self._codec = codec
        self._kept: OrderedDict[tuple[str, str], Picture] = OrderedDict()

    @property
    def context_length(self) -> int:
        """Ids that a dialogue should have at most: no more than training ever showed."""
        most = self._checkpoint.config.context_length
        return min(self._checkpoint.generation.trained_length or most, most)

    def picture(self, picture: Picture, tokenizer: str | None = None) -> Picture:
        """Return a picture with codes that this checkpoint knows.

        Raises:
            PictureError: it cannot be read.
            BackendError: it has codes of another tokenizer and no rendering.
        """
        name = tokenizer or self._checkpoint.generation.tokenizer
        if self._knows(picture, tokenizer):
            return picture
        key = (picture.id, name)
        if key not in self._kept:
            if picture.png is None:
                raise BackendError(
                    f"a picture of this conversation has codes of the visual tokenizer "
                    f"{picture.tokenizer!r}, which this model does not have, and no pixels; "
                    "go on with the model that drew it"
                )
            [codes] = self._codec.encode_images([picture.png], name)
            self._kept[key] = replace(
                picture, codes=codes, tokenizer=name, fingerprint=self._fingerprint(name)
            )
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        kept = self._kept[key]
        return replace(
            picture, codes=kept.codes, tokenizer=kept.tokenizer, fingerprint=kept.fingerprint
        )

    def begun(self, picture: Picture) -> Codes:
        """Return the codes that a picture to be refined begins with.

        Raises:
            BackendError: it was not drawn with a tokenizer of this model.
        """
        entry = self._checkpoint.visual_tokenizers.get(picture.tokenizer or "")
        if picture.codes is None or entry is None or entry.fingerprint != picture.fingerprint:
            raise BackendError(
                "only a picture that this model drew can be refined; open the model that drew it"
            )
        return picture.codes

    def question(
        self, picture: Picture, prompt: str | None, tokenizer: str | None
    ) -> tuple[Document, Picture]:
        """Return the document that asks about a picture, and the picture with codes."""
        encoded = self.picture(picture, tokenizer)
        question = self._checkpoint.generation.caption_prompt if prompt is None else prompt
        turn = DocumentTurn("user", (_image(encoded), Text(question)))
        return Document(turns=(turn,)), encoded

    def dialogue(self, request: ChatRequest) -> FittedDialogue:
        """Return the dialogue, or its end where not all of it fits.

        Raises:
            NoRoomError: it does not fit, and nothing may be left out or the last turn is too long.
        """
        turns = shown(request.turns)
        known: dict[str, Picture] = {}
        for turn in turns:
            for picture in turn.pictures:
                known[picture.id] = self.picture(picture, request.settings.tokenizer)
        settings = request.settings
        max_text_ids = settings.max_text_ids or LONGEST_ANSWER
        image_ids = self._image_ids() if settings.max_images else 0
        reserve = image_ids + min(WORDS_TO_LEAVE, max_text_ids)
        room = self.context_length - reserve - 2

        def cost(turn: Turn) -> int:
            return MARKS_PER_TURN + sum(
                len(self._codec.text_tokenizer.encode(item.text))
                if isinstance(item, Words)
                else self._num_ids(known[item.id])
                for item in turn.segments
            )

        kept, num_ids = fitting(turns, cost, room)
        left_out = tuple(turn.id for turn in turns[: len(turns) - len(kept)])
        num_ids += 2
        self._check_room(num_ids, reserve, left_out, request.may_leave_out)
        document = Document(turns=tuple(self._turn(turn, known) for turn in kept))
        encoded = [
            known[picture.id]
            for turn in turns
            for picture in turn.pictures
            if not picture.is_drawn and picture.codes != known[picture.id].codes
        ]
        limit = self.context_length
        if num_ids >= limit:
            limit = self._checkpoint.config.context_length
        return FittedDialogue(
            document=document,
            encoded=tuple(encoded),
            left_out=left_out,
            num_ids=num_ids,
            max_text_ids=max(1, min(max_text_ids, limit - num_ids)),
        )

    def _check_room(
        self, num_ids: int, reserve: int, left_out: tuple[str, ...], may_leave_out: bool
    ) -> None:
        most = self._checkpoint.config.context_length
        if num_ids + reserve > most:
            raise NoRoomError(
                f"the last message takes {num_ids} tokens and {reserve} are needed for an answer, "
                f"but {most} fit in all; shorten it or attach fewer pictures"
            )
        if left_out and not may_leave_out:
            raise NoRoomError(
                f"the dialogue no longer fits the {self.context_length} tokens that the model "
                f"can follow; leave out its {len(left_out)} oldest turns, or begin a new one",
                turn_ids=left_out,
            )

    def _turn(self, turn: Turn, known: dict[str, Picture]) -> DocumentTurn:
        segments: list[Segment] = [
            Text(item.text) if isinstance(item, Words) else _image(known[item.id])
            for item in turn.segments
        ]
        return DocumentTurn(turn.role, tuple(segments))

    def _knows(self, picture: Picture, tokenizer: str | None) -> bool:
        """Return whether the codes of a picture are whole and those of the right tokenizer."""
        if picture.codes is None or not picture.codes.is_complete or picture.tokenizer is None:
            return False
        if tokenizer is not None and picture.tokenizer != tokenizer and not picture.is_drawn:
            return False
        entry = self._checkpoint.visual_tokenizers.get(picture.tokenizer)
        layouts = self._codec.vocabulary.tokenizers
        return (
            entry is not None
            and entry.fingerprint == picture.fingerprint
            and picture.codes.layout in layouts[picture.tokenizer].layouts
        )

    def _fingerprint(self, tokenizer: str) -> str:
        return self._checkpoint.visual_tokenizers[tokenizer].fingerprint

    def _num_ids(self, picture: Picture) -> int:
        assert picture.codes is not None and picture.tokenizer is not None
        ranges = self._codec.vocabulary.tokenizer(picture.tokenizer)
        return ranges.num_image_ids(picture.codes.layout)

    def _image_ids(self) -> int:
        """Return how many ids a picture may take."""
        return max(
            ranges.num_image_ids(layout)
            for ranges in self._codec.vocabulary.tokenizers.values()
            for layout in ranges.layouts
        )


def _image(picture: Picture) -> Image:
    assert picture.codes is not None and picture.tokenizer is not None
    return Image(codes=picture.codes, tokenizer=picture.tokenizer)
