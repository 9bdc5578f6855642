"""A tokenizer around a network in halves: its files, its fingerprint, and what training takes."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmgen.autoencoding.quantizer import AbstractQuantizer
from mmgen.autoencoding.settings import LearnedSettings, fingerprint_of
from mmgen.errors import PluginError
from mmgen.visual_tokenizer import AbstractVisualTokenizer, Codes, Parts, TrainingOutput

__all__ = ["AbstractAutoencoder", "AbstractLearnedTokenizer", "equal_batches"]

SETTINGS_FILE = "tokenizer_config.json"
WEIGHTS_FILE = "tokenizer.safetensors"


class AbstractAutoencoder(nn.Module, ABC):
    """Encoder, quantizer and decoder in one. Each half alone is enough for its direction.

    What both directions need (the quantizer, above all) are further children.
    """

    encoder: nn.Module | None
    quantizer: AbstractQuantizer
    decoder: nn.Module | None

    @abstractmethod
    def forward(self, images: Tensor) -> TrainingOutput:
        """Reconstruct `[batch, 3, height, width]` in 0..1, for training."""


class AbstractLearnedTokenizer(AbstractVisualTokenizer):
    """A tokenizer with settings and weights. A final class adds `encode` and `decode`."""

    is_trainable: ClassVar[bool] = True
    name: ClassVar[str]
    """The entry point, for messages."""
    settings_type: ClassVar[type[LearnedSettings]]
    shipped: ClassVar[Path]
    """Directory of the settings and weights that the distribution ships."""

    def __init__(
        self, settings: LearnedSettings, network: AbstractAutoencoder, fingerprint: str | None
    ) -> None:
        """Wrap a network; without a fingerprint, one is computed whenever it is asked for."""
        self._settings = settings
        self._network = network
        self._stored_fingerprint = fingerprint

    @classmethod
    @abstractmethod
    def build(cls, settings: LearnedSettings) -> AbstractAutoencoder:
        """Return the network of these settings, with fresh weights."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of settings and weights; of the files when loaded, computed when trained here."""
        if self._stored_fingerprint is not None:
            return self._stored_fingerprint
        return fingerprint_of(self._settings, self._state())

    @classmethod
    def load(
        cls,
        path: Path | None = None,
        *,
        parts: Parts = "both",
        device: str = "cpu",
        dtype: str = "float32",
    ) -> Self:
        directory = cls.shipped if path is None else path
        for file in (SETTINGS_FILE, WEIGHTS_FILE):
            if not (directory / file).is_file():
                raise PluginError(f"no {cls.name} tokenizer in {directory}: {file} is missing")
        origin = directory / SETTINGS_FILE
        values = json.loads(origin.read_text(encoding="utf-8"))
        # Folders written before they said their plugin are read as they are.
        plugin = values.pop("plugin", cls.name)
        if plugin != cls.name:
            raise PluginError(f"{directory} holds a tokenizer of {plugin!r}, expected {cls.name!r}")
        settings = cls.settings_type.of(values, f"the settings in {origin}")
        state = {key: tensor.float() for key, tensor in load_file(directory / WEIGHTS_FILE).items()}
        fingerprint = fingerprint_of(settings, state)
        network = cls.build(settings)
        if parts == "decoder":
            network.encoder = None
            state = {key: item for key, item in state.items() if not key.startswith("encoder.")}
        elif parts == "encoder":
            network.decoder = None
            state = {key: item for key, item in state.items() if not key.startswith("decoder.")}
        try:
            network.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise PluginError(
                f"the weights in {directory} do not fit its settings: {error}"
            ) from error
        network.to(device=device, dtype=getattr(torch, dtype)).eval()
        # A choice among codes has to be the same choice, whatever precision the halves run in.
        network.quantizer.float()
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(settings, network, fingerprint)

    def save(self, path: Path) -> None:
        temporary = path / (WEIGHTS_FILE + ".part")
        save_file(self._state(), temporary)
        temporary.replace(path / WEIGHTS_FILE)
        stated = {"plugin": self.name, **self._settings.to_plain()}
        text = json.dumps(stated, indent=1) + "\n"
        (path / SETTINGS_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def untrained(cls, settings: Mapping[str, object], *, seed: int) -> Self:
        config = cls.settings_type.of(settings, "the settings given for training")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = cls.build(config)
        return cls(config, network.eval(), None)

    def network(self) -> nn.Module:
        """Return the network itself: what it learns, this tokenizer knows."""
        self._require_both("training")
        # The weights are about to change, so the stored fingerprint no longer speaks of them.
        self._stored_fingerprint = None
        return self._network

    @property
    def _encoder(self) -> nn.Module:
        if self._network.encoder is None:
            raise PluginError(f"this {self.name} tokenizer was loaded without its encoder")
        return self._network.encoder

    @property
    def _decoder(self) -> nn.Module:
        if self._network.decoder is None:
            raise PluginError(f"this {self.name} tokenizer was loaded without its decoder")
        return self._network.decoder

    def _require_both(self, purpose: str) -> None:
        if self._network.encoder is None or self._network.decoder is None:
            raise PluginError(
                f"{purpose} {self.name} needs both of its halves; load it with parts='both'"
            )

    def _state(self) -> dict[str, Tensor]:
        self._require_both("saving")
        return {
            key: tensor.detach().to("cpu", torch.float32).contiguous()
            for key, tensor in self._network.state_dict().items()
        }

    def _check_array(self, codes: Codes, *, complete: bool = True) -> None:
        """Raise ValueError unless there is one code of each codebook at each position."""
        sizes, array = self.spec.codebook_sizes, codes.array
        if array.shape[1] != len(sizes) or (complete and not codes.is_complete):
            noun = "one code" if len(sizes) == 1 else f"{len(sizes)} codes"
            raise ValueError(
                f"{self.name} needs {codes.layout.num_positions} positions of {noun} for "
                f"{codes.layout}, got {list(array.shape)}"
            )
        for book, size in enumerate(sizes):
            low, high = int(array[:, book].min()), int(array[:, book].max())
            if low < 0 or high >= size:
                raise ValueError(f"codes must be in 0..{size - 1}, got {low}..{high}")


def equal_batches(shapes: Sequence[tuple[int, ...]], budget: int) -> Iterator[list[int]]:
    """Group indices of equal shapes into batches of at most `budget` places (at least one item)."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, shape in enumerate(shapes):
        groups.setdefault(tuple(shape), []).append(index)
    for (height, width, *_), indices in groups.items():
        count = max(1, budget // (height * width))
        for start in range(0, len(indices), count):
            yield indices[start : start + count]
