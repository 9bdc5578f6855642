"""Documents: what users, training examples and sessions hold, and their way to ids and back.

A document is made of turns, or of bare segments. An image in it may be a picture or codes; once
encoded, the codes are what counts. The codec joins the vocabulary, the grammar, the text
tokenizer and the visual tokenizers, after checking that they belong together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mmgen.errors import GrammarError, PluginError, SettingsError, VocabularyError
from mmgen.grammar import Grammar, Ids, ImageSpan, MarkKind, MarkSpan, Role, Span, TextSpan
from mmgen.pictures import PictureSource, open_picture, to_array
from mmgen.text_tokenizer import TextTokenizer
from mmgen.visual_tokenizer import AbstractVisualTokenizer, Codes, Layout, Ordered, Picture
from mmgen.vocabulary import Vocabulary

__all__ = [
    "Document",
    "DocumentCodec",
    "EncodedDocument",
    "Image",
    "Segment",
    "Text",
    "Turn",
]


@dataclass(frozen=True, slots=True)
class Text:
    """Some text."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A picture, its codes, or both; then the codes are taken."""

    picture: PictureSource | None = None
    codes: Codes | None = None
    tokenizer: str
    """Name of the visual tokenizer whose codes these are or shall be."""

    def __post_init__(self) -> None:
        if self.picture is None and self.codes is None:
            raise SettingsError("an image needs a picture or codes")


Segment: TypeAlias = Text | Image


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says; neighbouring texts become one and empty ones vanish."""

    role: Role
    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        if self.role not in ("user", "assistant"):
            raise SettingsError(f"a turn's role is 'user' or 'assistant', got {self.role!r}")
        object.__setattr__(self, "segments", _joined(self.segments))


@dataclass(frozen=True, slots=True)
class Document:
    """Turns of a dialogue, or segments without any; texts are joined as in a turn."""

    turns: tuple[Turn, ...] = ()
    segments: tuple[Segment, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "turns", tuple(self.turns))
        object.__setattr__(self, "segments", _joined(self.segments))
        if bool(self.turns) == bool(self.segments):
            raise SettingsError("a document has turns or segments: one of the two, and not empty")

    @property
    def captioned_images(self) -> list[tuple[Image, str]]:
        """Every image in order, with its caption for visual tokenizers that read one.

        What the assistant draws has the words of the user's last turn; other images have none.
        """
        found = [(item, "") for item in self.segments if isinstance(item, Image)]
        asked = ""
        for turn in self.turns:
            if turn.role == "user":
                asked = "".join(item.text for item in turn.segments if isinstance(item, Text))
            caption = asked if turn.role == "assistant" else ""
            found += [(item, caption) for item in turn.segments if isinstance(item, Image)]
        return found


@dataclass(frozen=True, slots=True, eq=False)
class EncodedDocument:
    """A document in ids, with what they are."""

    ids: npt.NDArray[np.int32]
    spans: list[Span]
    roles: list[Role | None]
    """Whose turn each span belongs to, the marks around the turn included; None outside turns."""


class DocumentCodec:
    """Documents to ids and back."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        text_tokenizer: TextTokenizer,
        visual_tokenizers: Mapping[str, AbstractVisualTokenizer],
    ) -> None:
        """Check that the parts belong together.

        Args:
            visual_tokenizers: those that are loaded, by name; pictures of others cannot be
                encoded, while codes of any tokenizer in the vocabulary can.
        """
        if text_tokenizer.fingerprint != vocabulary.text_fingerprint:
            raise VocabularyError(
                f"the vocabulary was made for the text tokenizer {vocabulary.text_fingerprint}, "
                f"but this one is {text_tokenizer.fingerprint}"
            )
        for name, tokenizer in visual_tokenizers.items():
            _check_tokenizer(vocabulary, name, tokenizer)
        self.vocabulary = vocabulary
        self.text_tokenizer = text_tokenizer
        self.visual_tokenizers = dict(visual_tokenizers)
        self.grammar = Grammar(vocabulary)

    def encode(self, document: Document) -> EncodedDocument:
        """Return the ids of a whole document, its pictures encoded."""
        writer = self._write(document)
        writer.add_mark("eos", self.vocabulary.eos_id, None)
        return EncodedDocument(np.array(writer.ids, dtype=np.int32), writer.spans, writer.roles)

    def encode_prompt(self, document: Document) -> list[int]:
        """Return the ids after which a model goes on.

        After a user's turn the assistant's is opened; an assistant's last turn, and a document
        without turns, are left open.
        """
        writer = self._write(document)
        if document.turns and document.turns[-1].role == "user":
            return [*writer.ids, self.vocabulary.assistant_id]
        return writer.ids[:-1] if document.turns else writer.ids

    def decode(self, ids: Ids) -> Document:
        """Return the document that ids spell, images as codes.

        A dropped condition has no text, so ids with nulls are refused.
        """
        turns: list[Turn] = []
        segments: list[Segment] = []
        role: Role | None = None
        for span in self.grammar.parse(ids):
            match span:
                case TextSpan():
                    segments.append(Text(self._decode_text(span)))
                case ImageSpan():
                    segments.append(Image(codes=span.codes, tokenizer=span.name))
                case MarkSpan(kind="user" | "assistant" as kind):
                    role = kind
                case MarkSpan(kind="end"):
                    assert role is not None
                    turns.append(Turn(role, tuple(segments)))
                    segments = []
        return Document(turns=tuple(turns), segments=tuple(segments))

    def sizes(self, name: str) -> dict[tuple[int, int], Layout]:
        """Return the picture sizes `(height, width)` in pixels that documents may have.

        The default comes first. Each has its layout, the first where several have one size.
        """
        spec = self._loaded(name).spec
        sizes: dict[tuple[int, int], Layout] = {}
        for layout in self.vocabulary.tokenizer(name).layouts:
            sizes.setdefault(spec.pixels.size_of(layout), layout)
        return sizes

    def encode_images(
        self,
        pictures: Sequence[PictureSource],
        name: str,
        *,
        size: tuple[int, int] | None = None,
        length: int | None = None,
        quality: float | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Codes]:
        """Return the codes of pictures of any size.

        Args:
            size: `(height, width)` in pixels for all of them; without it, each gets the size
                that is nearest in aspect and then in area.
            length: positions, for tokenizers of variable length; without it and without
                `quality`, that of the default layout, unless the tokenizer chooses lengths itself.
            quality: 0..1, from which such a tokenizer takes the length.
            captions: one text per picture; a tokenizer that reads none is not given them.
        """
        tokenizer = self._loaded(name)
        sizes = list(self.sizes(name))
        if size is not None and size not in sizes:
            known = ", ".join(f"{height}x{width}" for height, width in sizes)
            raise SettingsError(
                f"{name!r} has no pictures of {size[0]}x{size[1]} pixels (height x width); "
                f"choose one of {known}"
            )
        layouts = self.vocabulary.tokenizer(name).layouts
        default, spec = layouts[0], tokenizer.spec
        is_left_open = length is None and quality is None and not spec.chooses_length
        if is_left_open and len(spec.layouts) > 1:
            length = default.length if isinstance(default, Ordered) else None
        arrays = []
        for source in pictures:
            picture = open_picture(source)
            target = size or _nearest((picture.height, picture.width), sizes)
            arrays.append(to_array(picture, target, spec.resize))
        said = captions if "encode" in spec.captions_used else None
        encoded = tokenizer.encode(arrays, length=length, quality=quality, captions=said)
        for codes in encoded:
            if codes.layout not in layouts or not codes.is_complete:
                raise PluginError(
                    f"visual tokenizer {name!r} gave {len(codes.array)} positions of "
                    f"{codes.layout}; the vocabulary has {', '.join(map(str, layouts[:8]))}"
                )
        return encoded

    def decode_image(self, codes: Codes, name: str, *, caption: str = "") -> Picture:
        """Return the picture of codes; a tokenizer that reads no captions is not given this one."""
        tokenizer = self._loaded(name)
        said = [caption] if "decode" in tokenizer.spec.captions_used else None
        return tokenizer.decode([codes], captions=said)[0]

    def caption_after(self, prompt_ids: Ids) -> str:
        """Return the caption of what the assistant draws next, as `captioned_images` would say."""
        ids = list(map(int, prompt_ids))
        vocabulary = self.vocabulary
        if vocabulary.user_id not in ids:
            return ""
        start = len(ids) - ids[::-1].index(vocabulary.user_id)
        stop = ids.index(vocabulary.end_id, start) if vocabulary.end_id in ids[start:] else len(ids)
        words = [id_ for id_ in ids[start:stop] if id_ < vocabulary.num_text_ids]
        return self.text_tokenizer.decode(words)

    def _write(self, document: Document) -> _Writer:
        """Write all but the closing mark of a document."""
        codes = iter(self._all_codes(document))
        writer = _Writer(self.grammar)
        writer.add_mark("bos", self.vocabulary.bos_id, None)
        self._write_segments(writer, document.segments, codes, None)
        for turn in document.turns:
            is_user = turn.role == "user"
            opening = self.vocabulary.user_id if is_user else self.vocabulary.assistant_id
            writer.add_mark(turn.role, opening, turn.role)
            self._write_segments(writer, turn.segments, codes, turn.role)
            writer.add_mark("end", self.vocabulary.end_id, turn.role)
        if len(writer.ids) == 1:
            raise SettingsError("the text tokenizer has no ids for this document's text")
        return writer

    def _write_segments(
        self,
        writer: _Writer,
        segments: Iterable[Segment],
        codes: Iterator[Codes],
        role: Role | None,
    ) -> None:
        for segment in segments:
            if isinstance(segment, Text):
                writer.add_text(self.text_tokenizer.encode(segment.text), role)
            else:
                writer.add_image(segment.tokenizer, next(codes), role)

    def _all_codes(self, document: Document) -> list[Codes]:
        """Return the codes of all images of a document in order, encoding what is not yet."""
        images = document.captioned_images
        codes = [image.codes for image, _ in images]
        for name in dict.fromkeys(image.tokenizer for image, _ in images):
            pending = {
                index: (image.picture, caption)
                for index, (image, caption) in enumerate(images)
                if image.tokenizer == name and image.codes is None and image.picture is not None
            }
            if pending:
                pictures, captions = zip(*pending.values(), strict=True)
                encoded = self.encode_images(pictures, name, captions=captions)
                for index, item in zip(pending, encoded, strict=True):
                    codes[index] = item
        return [item for item in codes if item is not None]

    def _loaded(self, name: str) -> AbstractVisualTokenizer:
        self.vocabulary.tokenizer(name)
        if name not in self.visual_tokenizers:
            loaded = ", ".join(map(repr, self.visual_tokenizers)) or "none"
            raise PluginError(
                f"visual tokenizer {name!r} is not loaded (loaded: {loaded}); load it, or give "
                "codes in place of pictures"
            )
        return self.visual_tokenizers[name]

    def _decode_text(self, span: TextSpan) -> str:
        null_id = self.vocabulary.null_id
        if null_id in span.ids:
            raise GrammarError(
                f"found {self.grammar.describe(null_id)}, where a condition was dropped; such ids "
                "can be parsed, but they are no document",
                position=span.start + span.ids.index(null_id),
            )
        return self.text_tokenizer.decode(span.ids)


class _Writer:
    """Ids and spans of a document as it is written."""

    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar
        self.ids: list[int] = []
        self.spans: list[Span] = []
        self.roles: list[Role | None] = []

    def add_mark(self, kind: MarkKind, id_: int, role: Role | None) -> None:
        start = len(self.ids)
        self._add([id_], MarkSpan(start, start + 1, kind), role)

    def add_text(self, ids: list[int], role: Role | None) -> None:
        start = len(self.ids)
        if ids:
            self._add(ids, TextSpan(start, start + len(ids), tuple(ids)), role)

    def add_image(self, name: str, codes: Codes, role: Role | None) -> None:
        start = len(self.ids)
        ids = self._grammar.spell_image(name, codes)
        self._add(ids, ImageSpan(start, start + len(ids), name, codes), role)

    def _add(self, ids: list[int], span: Span, role: Role | None) -> None:
        self.ids += ids
        self.spans.append(span)
        self.roles.append(role)


def _joined(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    """Return segments with neighbouring texts joined and without empty ones."""
    joined: list[Segment] = []
    for segment in segments:
        last = joined[-1] if joined else None
        if isinstance(segment, Text) and isinstance(last, Text):
            joined[-1] = Text(last.text + segment.text)
        elif segment != Text(""):
            joined.append(segment)
    return tuple(joined)


def _check_tokenizer(vocabulary: Vocabulary, name: str, tokenizer: AbstractVisualTokenizer) -> None:
    ranges, spec = vocabulary.tokenizer(name), tokenizer.spec
    if ranges.codebook_sizes != spec.codebook_sizes:
        raise VocabularyError(
            f"visual tokenizer {name!r} has codebooks of {list(spec.codebook_sizes)} codes, but "
            f"the vocabulary was made for {list(ranges.codebook_sizes)}"
        )
    unknown = [layout for layout in ranges.layouts if layout not in spec.layouts]
    if unknown:
        raise VocabularyError(
            f"visual tokenizer {name!r} has no layout {unknown[0]}, which the vocabulary has; "
            "the two do not belong together"
        )


def _nearest(size: tuple[int, int], sizes: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Return the size that is nearest in aspect, and among equals in area."""
    height, width = size

    def distance(other: tuple[int, int]) -> tuple[float, float]:
        aspect = (height * other[1]) / (width * other[0])
        return (abs(math.log(aspect)), abs(math.log(height * width / (other[0] * other[1]))))

    return min(sizes, key=distance)
