"""A tokenizer of greys, and documents of words and its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
from hypothesis import strategies as st

from mmgen.document import Document, DocumentCodec, Image, Text, Turn
from mmgen.text_tokenizer import train_bpe
from mmgen.visual_tokenizer import (
    AbstractVisualTokenizer,
    Codes,
    FixedPixels,
    Grid,
    GridPixels,
    Layout,
    Ordered,
    Picture,
    Scales,
    Segments,
    VisualTokenizerSpec,
)
from mmgen.vocabulary import Vocabulary

BPE = train_bpe(["draw a red apple", "a small green car"] * 3, num_ids=280)

SIZES = (Grid(2, 2), Grid(2, 3), Grid(3, 2), Grid(4, 4))


class Grey(AbstractVisualTokenizer):
    """Every square of 4 pixels becomes its brightness, in 16 steps."""

    def __init__(self, layouts: tuple[Layout, ...] = SIZES, num_codes: int = 16) -> None:
        self._spec = VisualTokenizerSpec(
            codebook_sizes=(num_codes,), layouts=layouts, pixels=GridPixels(4)
        )
        self.calls: list[int] = []

    @property
    def spec(self) -> VisualTokenizerSpec:
        return self._spec

    @property
    def fingerprint(self) -> str:
        return "grey"

    def encode(
        self,
        images: Sequence[Picture],
        *,
        length: int | None = None,
        quality: float | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Codes]:
        self.calls.append(len(images))
        encoded = []
        for image in images:
            rows, columns = image.shape[0] // 4, image.shape[1] // 4
            means = image.reshape(rows, 4, columns, 4, 3).mean(axis=(1, 3, 4))
            codes = np.minimum((means * 16).astype(np.int64), 15)
            encoded.append(Codes(codes.reshape(-1, 1), Grid(rows, columns)))
        return encoded

    def decode(
        self,
        codes: Sequence[Codes],
        *,
        seed: int | None = None,
        steps: int | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Picture]:
        raise NotImplementedError


class Lengths(Grey):
    """Any picture becomes as many positions as asked; records what it was asked."""

    def __init__(self, default: int | None = None) -> None:
        layouts = tuple(Ordered(length) for length in range(1, 9))
        self._spec = VisualTokenizerSpec(
            codebook_sizes=(16, 4),
            layouts=layouts,
            pixels=FixedPixels(8, 8),
            captions_used=frozenset({"encode", "decode"}),
        )
        self._default = default
        self.asked: list[Any] = []

    def encode(
        self,
        images: Sequence[Picture],
        *,
        length: int | None = None,
        quality: float | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Codes]:
        self.asked.append((length, quality, captions))
        positions = self._default or length or 8
        return [Codes(np.zeros((positions, 2), dtype=np.int64), Ordered(positions)) for _ in images]

    def decode(
        self,
        codes: Sequence[Codes],
        *,
        seed: int | None = None,
        steps: int | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Picture]:
        self.asked.append(captions)
        return [np.zeros((8, 8, 3), dtype=np.float32) for _ in codes]


def made_vocabulary() -> Vocabulary:
    kinds: dict[str, tuple[tuple[int, ...], tuple[Layout, ...]]] = {
        "grey": ((16,), SIZES),
        "lengths": ((16, 4), (Ordered(4), Ordered(8), Ordered(2))),
        "one": ((3, 2), (Grid(1, 2),)),
        "scales": ((5,), (Scales(((1, 1), (2, 2))), Scales(((1, 1), (3, 3))))),
        "mixed": (
            (2, 2),
            (Segments((Ordered(2), Grid(1, 1))), Segments((Ordered(2), Grid(1, 2)))),
        ),
    }
    vocabulary = Vocabulary.build(num_text_ids=BPE.num_ids, text_fingerprint=BPE.fingerprint)
    for name, (sizes, layouts) in kinds.items():
        vocabulary = vocabulary.extend(name, codebook_sizes=sizes, layouts=layouts)
    return vocabulary


VOCABULARY = made_vocabulary()


def made_codec() -> DocumentCodec:
    return DocumentCodec(VOCABULARY, BPE, {"grey": Grey(), "lengths": Lengths()})


CODEC = made_codec()


def picture(height: int, width: int, level: float = 0.5) -> PIL.Image.Image:
    return PIL.Image.new("RGB", (width, height), (round(level * 255),) * 3)


def grey_codes(value: int, layout: Layout = SIZES[0]) -> Codes:
    return Codes(np.full((layout.num_positions, 1), value), layout)


@st.composite
def images(draw: st.DrawFn) -> Image:
    ranges = VOCABULARY.tokenizer(draw(st.sampled_from(list(VOCABULARY.tokenizers))))
    layout = draw(st.sampled_from(ranges.layouts))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    shape = (layout.num_positions, ranges.num_codebooks)
    codes = Codes(random.integers(0, ranges.codebook_sizes, shape), layout)
    return Image(codes=codes, tokenizer=ranges.name)


TEXTS = st.text(alphabet="ab <|user>é🍎\n\x00", max_size=8).map(Text)

SEGMENTS = st.lists(st.one_of(TEXTS, images()), max_size=5).map(tuple)

TURNS = st.builds(Turn, st.sampled_from(["user", "assistant"]), SEGMENTS)

DOCUMENTS = st.one_of(
    st.lists(TURNS, min_size=1, max_size=3).map(lambda turns: Document(turns=tuple(turns))),
    SEGMENTS.filter(lambda segments: any(segment != Text("") for segment in segments)).map(
        lambda segments: Document(segments=segments)
    ),
)
