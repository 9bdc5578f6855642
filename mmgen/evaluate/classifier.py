"""A small network that says which concept a picture shows, trained on real pictures only.

It judges drawn pictures without knowing the model that drew them or its tokenizer: it sees
thumbnails, learns from the pack's own pictures, and is scored on real pictures of held-out
(concept, style) pairs first, so that every figure comes with its ceiling.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange, reduce
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from mmgen.autoencoding.augmentation import augmented
from mmgen.errors import CheckpointError
from mmgen.evaluate.pack import EmojiRow, fingerprint
from mmgen.evaluate.progress import Progress
from mmgen.pictures import atomic_file, to_array

__all__ = ["Classifier", "ClassifierConfig", "Ranks", "trained_classifier"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierConfig:
    """How the judge is built and trained."""

    side: int = 32
    """Side of the thumbnails it sees, in pixels."""
    widths: tuple[int, ...] = (32, 64, 128, 256)
    """Channels after each halving."""
    num_epochs: int = 14
    """Times that each thing is seen in each style, in some skin tone."""
    batch_size: int = 128
    """Pictures a step, at most one of each thing in each style."""
    lr: float = 4e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.05
    """Decoupled weight decay."""
    label_smoothing: float = 0.1
    """Share of the target spread over all concepts."""
    seed: int = 0
    """Seeds weights, order and augmentation."""

    def __post_init__(self) -> None:
        if min(self.side, self.num_epochs, self.batch_size, *self.widths) < 1:
            raise ValueError(f"sizes and counts must be positive, got {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """How often the right concept came first, and how often among the first five."""

    num_pictures: int
    """Pictures judged."""
    top1: float
    """Share whose first guess is right."""
    top5: float
    """Share with the right concept among five guesses."""


class Block(nn.Module):
    """Two 3x3 convolutions with a residual path."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(width)
        self.second_norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(x + self.second_norm(self.second(y)))


class Network(nn.Module):
    """Thumbnails `[B, 3, side, side]` in 0..1 to logits `[B, concepts]`."""

    def __init__(self, widths: Sequence[int], num_concepts: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for index, width in enumerate(widths):
            layers += [
                nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            if index:
                layers.append(Block(width))
            before = width
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(before, num_concepts)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(self.pooled(x)))
        return logits

    def pooled(self, x: Tensor) -> Tensor:
        """Return the features `[B, width]` from which concepts are told."""
        features: Tensor = self.features((x - 0.5) * 2)
        return reduce(features, "b c h w -> b c", "mean")


class Classifier:
    """A trained judge of pictures."""

    def __init__(self, network: Network, concepts: Sequence[str], side: int) -> None:
        self._network = network.eval()
        self.concepts = tuple(concepts)
        self._ids = {concept: index for index, concept in enumerate(concepts)}
        self._side = side

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what decides a guess, in hex."""
        digest = hashlib.sha256(repr((self.concepts, self._side)).encode())
        for name, weight in sorted(self._network.state_dict().items()):
            digest.update(name.encode() + weight.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def guesses(self, pictures: Sequence[Image.Image], *, num: int = 5) -> list[tuple[str, ...]]:
        """Return the likeliest concepts of each picture, best first."""
        result: list[tuple[str, ...]] = []
        for start in range(0, len(pictures), 256):
            batch = thumbnails(pictures[start : start + 256], self._side)
            with torch.inference_mode():
                logits = self._network(_as_input(torch.from_numpy(batch)))
            best = logits.topk(min(num, len(self.concepts)), dim=-1).indices
            result += [tuple(self.concepts[i] for i in row) for row in best.tolist()]
        return result

    def features(
        self, pictures: Sequence[Image.Image]
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """Return what the network sees in each picture before it decides, `[pictures, width]`."""
        parts = []
        for start in range(0, len(pictures), 256):
            batch = thumbnails(pictures[start : start + 256], self._side)
            with torch.inference_mode():
                parts.append(self._network.pooled(_as_input(torch.from_numpy(batch))))
        return np.asarray(torch.cat(parts).double().numpy())

    def ranks(self, pictures: Sequence[Image.Image], concepts: Sequence[str]) -> Ranks:
        """Return how often pictures are recognised as the concepts they should show."""
        guesses = self.guesses(pictures)
        pairs = list(zip(guesses, concepts, strict=True))
        return Ranks(
            num_pictures=len(pairs),
            top1=sum(guess[0] == concept for guess, concept in pairs) / max(1, len(pairs)),
            top5=sum(concept in guess for guess, concept in pairs) / max(1, len(pairs)),
        )


def thumbnails(
    pictures: Sequence[Image.Image], side: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return pictures as bytes `[N, side, side, 3]`, padded on white to a square."""
    arrays = [to_array(picture, (side, side), "pad") for picture in pictures]
    stacked = np.stack(arrays) if arrays else np.zeros((0, side, side, 3), dtype=np.float32)
    return np.asarray(stacked * 255 + 0.5).astype(np.uint8)


def trained_classifier(
    rows: Sequence[EmojiRow],
    config: ClassifierConfig,
    directory: Path,
    *,
    progress: Progress,
) -> Classifier:
    """Return a judge for the concepts of training rows, from `directory` if it was trained before.

    The file's name carries the fingerprint of the rows and the settings, so another pack or other
    settings never meet an old judge.
    """
    concepts = sorted({row.concept for row in rows})
    settings = json.dumps(asdict(config), sort_keys=True)
    key = hashlib.sha256(f"{fingerprint(rows)} {settings}".encode()).hexdigest()
    path = directory / f"classifier-{key[:16]}.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = Network(config.widths, len(concepts))
        if path.exists():
            _load(network, path, key)
        else:
            _train(network, rows, concepts, config, progress)
            _save(network, path, key)
    return Classifier(network, concepts, config.side)


def _train(
    network: Network,
    rows: Sequence[EmojiRow],
    concepts: Sequence[str],
    config: ClassifierConfig,
    progress: Progress,
) -> None:
    ids = {concept: index for index, concept in enumerate(concepts)}
    labels = torch.tensor([ids[row.concept] for row in rows])
    opened = [row.open() for row in progress(rows, "reading pictures")]
    pictures = torch.from_numpy(thumbnails(opened, config.side))
    # A thing drawn in six skin tones counts once per style.
    crowd = Counter((row.style, row.base_hexcode) for row in rows)
    weights = torch.tensor([1 / crowd[row.style, row.base_hexcode] for row in rows])
    batch_size = min(config.batch_size, len(crowd))
    num_steps = config.num_epochs * math.ceil(len(crowd) / batch_size)

    network.train()
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.lr, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=config.lr, total_steps=num_steps, pct_start=0.2
    )
    generator = torch.Generator().manual_seed(config.seed)
    for _ in progress(range(num_steps), "training the classifier"):
        chosen = torch.multinomial(weights, batch_size, replacement=True, generator=generator)
        batch = augmented(_as_input(pictures[chosen]), generator)
        loss = functional.cross_entropy(
            network(batch), labels[chosen], label_smoothing=config.label_smoothing
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()


def _as_input(pictures: Tensor) -> Tensor:
    """Bytes `[N, H, W, 3]` to floats `[N, 3, H, W]` in 0..1."""
    return rearrange(pictures, "n h w c -> n c h w").float().div(255)


def _save(network: Network, path: Path, key: str) -> None:
    with atomic_file(path) as partial:
        save_file(network.state_dict(), partial, metadata={"key": key})


def _load(network: Network, path: Path, key: str) -> None:
    try:
        with safe_open(path, framework="pt") as file:
            found = (file.metadata() or {}).get("key")
            state = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); delete it to train anew"
        ) from error
    if found != key:
        raise CheckpointError(
            f"{path} was trained for {found}, expected {key}; delete it to train anew"
        )
    network.load_state_dict(state, strict=True)
