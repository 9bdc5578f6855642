"""Giving a trained decoder the ids of one more visual tokenizer, and changing nothing it knows.

Every old id keeps its number and its row. New rows are weighted means of old ones, with weights
that are positive and sum to one, so that, but for rounding, no logit of a new id can exceed the
largest of the old: the likeliest id is the one it was, and training goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmgen.model import Decoder
from mmgen.visual_tokenizer import AbstractVisualTokenizer, Layout
from mmgen.vocabulary import Vocabulary

__all__ = ["Extension", "RowStart", "extend_decoder"]

RowStart: TypeAlias = Literal["hull", "vectors"]
"""How rows of new codes begin: at random among the old ones, or laid out like their vectors."""

NUM_MIXED = 8
"""Old rows that one new row is a mean of."""

ROWS_AT_ONCE = 4096

MAX_ANCHORS = 256
"""Codes to which an old row each is given, when rows are laid out like vectors."""


@dataclass(frozen=True, slots=True, eq=False)
class Extension:
    """A vocabulary with one more tokenizer, and a decoder for it."""

    vocabulary: Vocabulary
    decoder: Decoder


def extend_decoder(
    decoder: Decoder,
    vocabulary: Vocabulary,
    name: str,
    tokenizer: AbstractVisualTokenizer,
    layouts: Sequence[Layout],
    *,
    start: RowStart,
    seed: int,
) -> Extension:
    """Return a larger decoder that says what the old one said.

    Args:
        decoder: left as it is.
        name: of the new tokenizer.
        layouts: which of its layouts documents may have, the default first.
        start: how rows of new codes begin.
        seed: of the choice of old rows.

    Raises:
        VocabularyError: the vocabulary has a tokenizer of that name.
    """
    sizes = tokenizer.spec.codebook_sizes
    extended = vocabulary.extend(name, codebook_sizes=sizes, layouts=layouts)
    first = vocabulary.num_used_ids
    # What padding there was is replaced with the rest.
    larger = Decoder(replace(decoder.config, vocab_size=extended.size))
    state = decoder.state_dict()
    tables = ["embedding.weight"]
    if not decoder.config.tie_word_embeddings:
        tables.append("head.weight")
    mixtures = _mixtures(vocabulary, extended, name, tokenizer, start, seed)
    for table in tables:
        old = state[table][:first]
        state[table] = torch.cat([old, *(_mixed(old, mixture) for mixture in mixtures)])
    if decoder.config.tie_word_embeddings:
        state["head.weight"] = state["embedding.weight"]
    larger.load_state_dict(state, strict=True)
    return Extension(extended, larger.to(decoder.embedding.weight.dtype))


@dataclass(frozen=True, slots=True, eq=False)
class _Mixture:
    """What some new rows are made of."""

    ids: Tensor
    """Old ids `[rows, mixed]`."""
    shares: Tensor
    """Their weights `[rows, mixed]`, positive and with the sum 1 in each row."""


def _mixtures(
    vocabulary: Vocabulary,
    extended: Vocabulary,
    name: str,
    tokenizer: AbstractVisualTokenizer,
    start: RowStart,
    seed: int,
) -> list[_Mixture]:
    """Return what all new rows are made of, in their order."""
    generator = torch.Generator().manual_seed(seed)
    added, old = extended.tokenizer(name), vocabulary.ranges
    words = torch.arange(vocabulary.num_text_ids)
    codes = _joined(ids for ranges in old for ids in ranges.code_ids)
    shapes = _joined(ranges.shape_ids for ranges in old)
    markers = torch.tensor([ranges.marker_id for ranges in old], dtype=torch.int64)
    # A row begins among rows that do what it will do; without any, among those of words.
    of_codes = codes if len(codes) else words
    mixtures = [
        _half_of(markers if len(markers) else words, words, generator),
        _some_of(shapes if len(shapes) else of_codes, len(added.shape_ids), generator),
    ]
    for book, ids in enumerate(added.code_ids):
        if start == "vectors":
            mixtures.append(_like_vectors(tokenizer.code_vectors(book), of_codes, generator))
        else:
            mixtures.append(_some_of(of_codes, len(ids), generator))
    # Padding means nothing and is never drawn, but its rows exist.
    return [*mixtures, _some_of(words, extended.size - extended.num_used_ids, generator)]


def _joined(ranges: Iterable[range]) -> Tensor:
    parts = [torch.arange(ids.start, ids.stop) for ids in ranges]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)


def _mixed(old: Tensor, mixture: _Mixture) -> Tensor:
    """Return new rows `[rows, width]`."""
    parts = []
    for begin in range(0, len(mixture.ids), ROWS_AT_ONCE):
        piece = slice(begin, begin + ROWS_AT_ONCE)
        rows = old[mixture.ids[piece]].double() * mixture.shares[piece, :, None]
        parts.append(rows.sum(dim=1).to(old.dtype))
    return torch.cat(parts) if parts else old[:0]


def _some_of(ids: Tensor, num_rows: int, generator: torch.Generator) -> _Mixture:
    """Return random mixtures of a few of some ids, which may come twice in one."""
    chosen = torch.randint(len(ids), (num_rows, NUM_MIXED), generator=generator)
    drawn = torch.rand(num_rows, NUM_MIXED, generator=generator, dtype=torch.float64)
    shares = -drawn.clamp_min(1e-6).log() + 1e-9
    return _Mixture(ids[chosen], shares / shares.sum(dim=1, keepdim=True))


def _half_of(ids: Tensor, others: Tensor, generator: torch.Generator) -> _Mixture:
    """Return one row, half of it of some ids and half of others.

    The marker of the only tokenizer before, taken whole, would be as likely as that marker itself.
    """
    one, other = (_some_of(pool, 1, generator) for pool in (ids, others))
    shares = torch.cat([one.shares, other.shares], dim=1) / 2
    return _Mixture(torch.cat([one.ids, other.ids], dim=1), shares)


def _like_vectors(
    vectors: npt.NDArray[np.float32], ids: Tensor, generator: torch.Generator
) -> _Mixture:
    """Return mixtures that are alike for codes whose vectors are near one another.

    Codes far apart from one another are given an old id each, at random; every code is a mixture
    of those, the nearer the more.
    """
    table = torch.from_numpy(np.asarray(vectors, dtype=np.float32))
    anchors = _spread(table, min(MAX_ANCHORS, len(ids), len(table)))
    chosen = ids[torch.randperm(len(ids), generator=generator)[: len(anchors)]]
    num = min(NUM_MIXED, len(anchors))
    nearest, places = torch.cdist(table, table[anchors]).topk(num, dim=1, largest=False)
    scale = nearest[:, -1:].clamp_min(1e-6) / 2
    return _Mixture(chosen[places], torch.softmax(-((nearest / scale).double() ** 2), dim=1))


def _spread(table: Tensor, num: int) -> Tensor:
    """Return rows far apart from one another: each the farthest from those before it."""
    picked = [0]
    distances = torch.cdist(table, table[:1]).squeeze(1)
    while len(picked) < num:
        picked.append(int(distances.argmax()))
        latest = torch.cdist(table, table[picked[-1]].unsqueeze(0)).squeeze(1)
        distances = torch.minimum(distances, latest)
    return torch.tensor(picked)
