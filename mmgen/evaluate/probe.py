"""What codes say of a picture's class: a linear probe on what each codebook's codes name.

A logistic regression learns a column of the pack from code vectors and is scored on pictures that
it has not seen (Alain and Bengio, "Understanding intermediate layers using linear classifier
probes", 2016). It knows tokenizers by their codes and `code_vectors` alone, so any two compare.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange, reduce
from PIL import Image
from torch import Tensor
from torch.nn import functional

from mmgen.data.sources import ParquetSource
from mmgen.errors import DataError, SettingsError
from mmgen.evaluate.progress import Progress
from mmgen.evaluate.tokenizer import at_nearest_size
from mmgen.pictures import open_picture
from mmgen.visual_tokenizer import AbstractVisualTokenizer, Codes

__all__ = ["BookScore", "ProbePack", "ProbeScore", "fitted_classes", "probe", "read_probe_pack"]

MAX_TRAIN = 2048
"""Pictures that a probe learns from, at most."""
PENALTIES = (1e-3, 1e-2, 1e-1)
"""Weights of the squared norm, of which the best on a fifth of the learned pictures is taken."""
BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProbePack:
    """Classes of the pictures that are measured, and pictures to learn them from."""

    column: str
    """Where the classes come from."""
    labels: tuple[str, ...]
    """The class of each measured picture."""
    train: tuple[Image.Image, ...]
    """Other pictures."""
    train_labels: tuple[str, ...]
    """Their classes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BookScore:
    """What one codebook says."""

    mean: float
    """Share of pictures told rightly from the mean of their code vectors."""
    places: float | None
    """The same from all code vectors side by side; none where pictures differ in layout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeScore:
    """What the codes of a tokenizer say of a class."""

    column: str
    """Where the classes come from."""
    num_classes: int
    """Classes among the learned pictures."""
    num_train: int
    """Pictures learned from."""
    num_pictures: int
    """Pictures told."""
    commonest: float
    """Share told rightly by always naming the class that is learned most often."""
    codebooks: tuple[BookScore, ...]
    """One item per codebook."""


def read_probe_pack(
    path: Path,
    *,
    picture_column: str,
    column: str,
    filters: Mapping[str, str],
    limit: int | None,
) -> ProbePack:
    """Read the classes of the rows that pass all filters, and some of the other rows with theirs.

    Raises:
        SettingsError: the filters leave no row out.
        DataError: a column is missing, or a row has no class.
    """
    source = ParquetSource(
        path,
        picture_column=picture_column,
        attributes={column: column, **{name: name for name in filters}},
    )
    kept: list[tuple[int, str]] = []
    rest: list[tuple[int, str]] = []
    for index in range(source.num_rows):
        attributes = source.attributes(index)
        if column not in attributes:
            raise DataError(f"row {index} of {path} has nothing in the column {column}")
        passes = all(attributes.get(name) == value for name, value in filters.items())
        (kept if passes else rest).append((index, attributes[column]))
    if not rest:
        raise SettingsError(
            "a probe learns from the rows that --filter leaves out, and it leaves none; "
            "give one, as --filter split=val"
        )
    picked = np.unique(np.linspace(0, len(rest) - 1, min(MAX_TRAIN, len(rest))).round().astype(int))
    train = [rest[place] for place in picked]
    pictures = (source.row(index).picture for index, _ in train)
    return ProbePack(
        column=column,
        labels=tuple(label for _, label in kept[:limit]),
        train=tuple(open_picture(picture) for picture in pictures if picture is not None),
        train_labels=tuple(label for _, label in train),
    )


def probe(
    tokenizer: AbstractVisualTokenizer,
    codes: Sequence[Codes],
    pack: ProbePack,
    *,
    progress: Progress,
) -> ProbeScore:
    """Learn the classes from the pack's other pictures and tell those of some codes.

    Args:
        tokenizer: made the codes.
        codes: of the measured pictures, in the order of `pack.labels`.
        pack: classes, and what to learn from.
        progress: watches the encoding.
    """
    learned: list[Codes] = []
    for start in progress(range(0, len(pack.train), BATCH), "encoding for the probe"):
        part = pack.train[start : start + BATCH]
        learned += tokenizer.encode([at_nearest_size(picture, tokenizer) for picture in part])
    classes = sorted(set(pack.train_labels))
    ids = {label: index for index, label in enumerate(classes)}
    targets = torch.tensor([ids[label] for label in pack.train_labels])
    # A class that was never learned cannot be told, which counts as wrong.
    wanted = torch.tensor([ids.get(label, -1) for label in pack.labels])

    def score(features: Tensor, unseen: Tensor) -> float:
        told = fitted_classes(features, targets, unseen, num_classes=len(classes))
        return (told == wanted).float().mean().item()

    books = []
    alike = len({item.layout for item in (*learned, *codes)}) == 1
    for book in progress(range(len(tokenizer.spec.codebook_sizes)), "probing"):
        table = torch.from_numpy(np.asarray(tokenizer.code_vectors(book), dtype=np.float32))
        seen, unseen = (
            [table[torch.from_numpy(item.array[:, book])] for item in items]
            for items in (learned, codes)
        )
        means = [
            torch.stack([reduce(v, "p d -> d", "mean") for v in part]) for part in (seen, unseen)
        ]
        places = None
        if alike:
            flat = [rearrange(torch.stack(part), "n p d -> n (p d)") for part in (seen, unseen)]
            places = score(*flat)
        books.append(BookScore(mean=score(*means), places=places))
    commonest, _ = Counter(pack.train_labels).most_common(1)[0]
    return ProbeScore(
        column=pack.column,
        num_classes=len(classes),
        num_train=len(learned),
        num_pictures=len(codes),
        commonest=sum(label == commonest for label in pack.labels) / len(pack.labels),
        codebooks=tuple(books),
    )


def fitted_classes(
    features: Tensor, targets: Tensor, unseen: Tensor, *, num_classes: int
) -> Tensor:
    """Return the classes that a logistic regression gives to unseen features, `[num_unseen]`.

    Args:
        features: `[num, dim]`, brought to unit variance before learning.
        targets: the class of each, `[num]`.
        unseen: `[num_unseen, dim]`.
        num_classes: classes there are.
    """
    mean, deviation = features.mean(dim=0), features.std(dim=0, correction=0)
    # A number that never varies says nothing; dividing by its deviation would make noise of it.
    scale = torch.where(deviation > 1e-6, 1 / deviation.clamp_min(1e-6), 0.0)
    features, unseen = (features - mean) * scale, (unseen - mean) * scale
    is_held_out = torch.arange(len(features)) % 5 == 4
    penalty = PENALTIES[0]
    if is_held_out.any():
        inner, outer = features[~is_held_out], features[is_held_out]
        right = [
            (_regression(inner, targets[~is_held_out], num_classes, item)(outer).argmax(dim=1))
            .eq(targets[is_held_out])
            .sum()
            .item()
            for item in PENALTIES
        ]
        penalty = PENALTIES[right.index(max(right))]
    told: Tensor = _regression(features, targets, num_classes, penalty)(unseen).argmax(dim=1)
    return told


def _regression(
    features: Tensor, targets: Tensor, num_classes: int, penalty: float
) -> torch.nn.Linear:
    """Return the linear layer of least penalised cross-entropy, found by L-BFGS."""
    with torch.random.fork_rng(devices=[]):
        layer = torch.nn.Linear(features.shape[1], num_classes)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(
        layer.parameters(), max_iter=60, history_size=8, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value: Tensor = functional.cross_entropy(layer(features), targets)
        value = value + layer.weight.square().sum() * (penalty / 2)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return layer.requires_grad_(False)
