"""Codes in the place of the pictures of documents, each picture encoded once and many at a time.

Where a vocabulary has pictures of several lengths, a document's are of one of them, so that a model
learns all: whoever asks for a picture may then ask for its length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import TypeAlias

from PIL import Image as PilImage

from mmgen.document import Document, DocumentCodec, Image, Segment
from mmgen.visual_tokenizer import Codes, Ordered

__all__ = ["choose_length", "lengths_of", "with_codes"]

_Key: TypeAlias = tuple[int, str, int | None]


def lengths_of(codec: DocumentCodec, name: str) -> tuple[int, ...]:
    """Return the lengths that pictures can be asked for; none where there is no choice."""
    if codec.visual_tokenizers[name].spec.chooses_length:
        return ()
    layouts = codec.vocabulary.tokenizer(name).layouts
    lengths = dict.fromkeys(item.length for item in layouts if isinstance(item, Ordered))
    return tuple(lengths) if len(lengths) > 1 else ()


def choose_length(lengths: Sequence[int], name: str) -> int | None:
    """Return one of the lengths, each as likely, that depends on a name alone; none of none."""
    return Random(name).choice(lengths) if lengths else None


def with_codes(
    documents: Sequence[Document],
    lengths: Sequence[int | None],
    codec: DocumentCodec,
    tokenizer: str,
    *,
    batch_size: int,
) -> list[Document]:
    """Return documents whose pictures are codes.

    Args:
        lengths: positions of each document's pictures; None for the tokenizer's default.
        batch_size: pictures that are encoded at once.
    """
    pictures: dict[_Key, PilImage.Image] = {}
    for document, length in zip(documents, lengths, strict=True):
        for image, caption in document.captioned_images:
            assert isinstance(image.picture, PilImage.Image)
            pictures[_key(codec, image, caption, length)] = image.picture
    codes: dict[_Key, Codes] = {}
    for length in dict.fromkeys(key[2] for key in pictures):
        keys = [key for key in pictures if key[2] == length]
        for start in range(0, len(keys), batch_size):
            part = keys[start : start + batch_size]
            captions = [caption for _, caption, _ in part]
            shown = [pictures[key] for key in part]
            encoded = codec.encode_images(shown, tokenizer, length=length, captions=captions)
            codes.update(zip(part, encoded, strict=True))
    return [
        _spelled(
            document,
            (
                codes[_key(codec, image, caption, length)]
                for image, caption in document.captioned_images
            ),
        )
        for document, length in zip(documents, lengths, strict=True)
    ]


def _key(codec: DocumentCodec, image: Image, caption: str, length: int | None) -> _Key:
    """Return the identity of a picture, with its caption if the tokenizer reads captions."""
    spec = codec.visual_tokenizers[image.tokenizer].spec
    return id(image.picture), caption if "encode" in spec.captions_used else "", length


def _spelled(document: Document, codes: Iterator[Codes]) -> Document:
    def spelled(segments: Sequence[Segment]) -> tuple[Segment, ...]:
        return tuple(
            Image(codes=next(codes), tokenizer=item.tokenizer) if isinstance(item, Image) else item
            for item in segments
        )

    # In the order of `captioned_images`.
    loose = spelled(document.segments)
    turns = tuple(replace(turn, segments=spelled(turn.segments)) for turn in document.turns)
    return Document(turns=turns, segments=loose)
