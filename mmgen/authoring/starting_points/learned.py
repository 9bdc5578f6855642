"""A visual tokenizer with weights: a linear autoencoder of blocks around rounded latents.

It works before it is trained, since it starts from the cosine transform, and `mmgen train` makes it
better. Replace `Encoder` and `Decoder` by networks of yours; the rest is what any trainable
tokenizer on a grid needs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmgen.errors import PluginError
from mmgen.visual_tokenizer import (
    AbstractVisualTokenizer,
    Codes,
    Grid,
    GridPixels,
    Parts,
    Picture,
    TrainingOutput,
    VisualTokenizerSpec,
)

__all__ = ["Settings", "StartTokenizer"]

PLUGIN = "start"
"""The entry point of this tokenizer, which folders of its weights name, so that they can be given
wherever its name can."""

FACTOR = 8
"""Pixels along one side of a block."""

GRIDS = (Grid(8, 8), Grid(4, 4), Grid(16, 16))
"""What a picture may be cut into, the default first."""

SETTINGS_FILE = "tokenizer_config.json"
WEIGHTS_FILE = "tokenizer.safetensors"
SHIPPED = Path(__file__).parent / "weights"
"""Where weights are found that the distribution ships, once there are some."""

_GRID_OF_SHAPE = {(grid.rows * FACTOR, grid.columns * FACTOR, 3): grid for grid in GRIDS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that shapes the network."""

    levels: tuple[int, ...] = (9, 5, 5, 5, 5)
    """Levels of each latent number, odd; their product is the codebook's size."""
    min_psnr: float = 14.0
    """Round-trip PSNR in dB that is promised; raise it when training has."""

    def __post_init__(self) -> None:
        if not self.levels or any(level < 3 or level % 2 == 0 for level in self.levels):
            raise ValueError(f"levels are odd numbers of 3 or more, got {self.levels}")


def _block_waves(num: int) -> Tensor:
    """Return the first waves of a block, `[num, 3, FACTOR, FACTOR]`: light, colours, slopes."""
    places = (torch.arange(FACTOR) + 0.5) / FACTOR
    slope = torch.cos(math.pi * places)
    flat = torch.ones(FACTOR, FACTOR)
    colours = torch.tensor([[1.0, 1, 1], [1, -1, 0], [0, 1, -1]])
    shapes = [flat, flat, flat, flat * slope[:, None], flat * slope[None, :]]
    kinds = [0, 1, 2, 0, 0]
    waves = [
        colours[kind, :, None, None] * shape for kind, shape in zip(kinds, shapes, strict=True)
    ]
    rest = torch.zeros(max(0, num - len(waves)), 3, FACTOR, FACTOR)
    return torch.cat([torch.stack(waves), rest])[:num]


class Encoder(nn.Module):
    """`[batch, 3, 8h, 8w]` in 0..1 to latents `[batch, dims, h, w]`, rounded later."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        num = len(settings.levels)
        self.blocks = nn.Conv2d(3, num, FACTOR, stride=FACTOR)
        waves = _block_waves(num)
        with torch.no_grad():
            self.blocks.weight.copy_(waves * 2 / (3 * FACTOR * FACTOR))
            assert self.blocks.bias is not None
            self.blocks.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        latents: Tensor = self.blocks(images - 0.5)
        return latents


class Decoder(nn.Module):
    """Rounded latents `[batch, dims, h, w]` in -1..1 to images `[batch, 3, 8h, 8w]`, unclamped."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        num = len(settings.levels)
        self.blocks = nn.ConvTranspose2d(num, 3, FACTOR, stride=FACTOR)
        with torch.no_grad():
            self.blocks.weight.copy_(_block_waves(num) / 2)
            assert self.blocks.bias is not None
            self.blocks.bias.fill_(0.5)

    def forward(self, vectors: Tensor) -> Tensor:
        images: Tensor = self.blocks(vectors)
        return images


class Network(nn.Module):
    """Encoder, rounding and decoder in one, for training."""

    def __init__(self, settings: Settings, encoder: Encoder, decoder: Decoder) -> None:
        super().__init__()
        self.levels = settings.levels
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, images: Tensor) -> TrainingOutput:
        """Reconstruct `[batch, 3, height, width]`; gradients pass through the rounding."""
        latents = self.encoder(images)
        bounded = latents.clamp(-1, 1)
        digits = _digits(bounded, self.levels)
        rounded = _vectors(digits, self.levels)
        vectors = bounded + (rounded - bounded).detach()
        # Without this, latents that leave -1..1 would get no gradient and never return.
        outside = (latents - bounded).square().mean()
        return TrainingOutput(
            reconstruction=self.decoder(vectors),
            codes=_numbers(digits, self.levels).flatten(1).unsqueeze(2),
            losses={"outside": outside},
        )


def _digits(latents: Tensor, levels: Sequence[int]) -> Tensor:
    """Round latents `[batch, dims, h, w]` to levels 0, 1, ..."""
    steps = torch.tensor(levels, device=latents.device).view(1, -1, 1, 1) - 1
    return ((latents.float().clamp(-1, 1) + 1) / 2 * steps).round().long()


def _vectors(digits: Tensor, levels: Sequence[int]) -> Tensor:
    """Return what levels stand for, in -1..1."""
    steps = torch.tensor(levels, device=digits.device).view(1, -1, 1, 1) - 1
    return digits / steps * 2 - 1


def _numbers(digits: Tensor, levels: Sequence[int]) -> Tensor:
    """Number levels `[batch, dims, h, w]` as codes `[batch, h, w]`, the first slowest."""
    codes = torch.zeros_like(digits[:, 0])
    for axis, level in enumerate(levels):
        codes = codes * level + digits[:, axis]
    return codes


def _from_numbers(codes: Tensor, levels: Sequence[int]) -> Tensor:
    """Return the levels `[batch, dims, h, w]` of codes `[batch, h, w]`."""
    digits = []
    for level in reversed(levels):
        digits.append(codes % level)
        codes = codes // level
    return torch.stack(digits[::-1], dim=1)


class StartTokenizer(AbstractVisualTokenizer):
    """Blocks of 8 x 8 pixels, each of a few rounded numbers."""

    is_trainable: ClassVar[bool] = True

    def __init__(
        self, settings: Settings, encoder: Encoder | None, decoder: Decoder | None
    ) -> None:
        self._settings = settings
        self._encoder = encoder
        self._decoder = decoder
        self._stored_fingerprint: str | None = None
        size = math.prod(settings.levels)
        self._spec = VisualTokenizerSpec(
            codebook_sizes=(size,),
            layouts=GRIDS,
            pixels=GridPixels(FACTOR),
            blank_codes=(size // 2,),  # grey
            min_psnr=settings.min_psnr,
        )

    @property
    def spec(self) -> VisualTokenizerSpec:
        return self._spec

    @property
    def fingerprint(self) -> str:
        return self._stored_fingerprint or _fingerprint(self._settings, self._state())

    def encode(
        self,
        images: Sequence[Picture],
        *,
        length: int | None = None,
        quality: float | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Codes]:
        if length is not None or quality is not None or captions is not None:
            raise ValueError("this tokenizer takes neither a length nor a quality nor captions")
        if self._encoder is None:
            raise PluginError("the encoder was not loaded; load with parts='both'")
        return [self._encode_one(self._encoder, image) for image in images]

    def decode(
        self,
        codes: Sequence[Codes],
        *,
        seed: int | None = None,
        steps: int | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Picture]:
        if self._decoder is None:
            raise PluginError("the decoder was not loaded; load with parts='both'")
        return [self._decode_one(self._decoder, item) for item in codes]

    def code_vectors(self, codebook: int) -> npt.NDArray[np.float32]:
        codes = torch.arange(self._spec.codebook_sizes[codebook]).view(1, -1, 1)
        vectors = _vectors(_from_numbers(codes, self._settings.levels), self._settings.levels)
        table: npt.NDArray[np.float32] = vectors[0, :, :, 0].T.contiguous().numpy()
        return table

    @classmethod
    def load(
        cls,
        path: Path | None = None,
        *,
        parts: Parts = "both",
        device: str = "cpu",
        dtype: str = "float32",
    ) -> Self:
        directory = path or SHIPPED
        if path is None and not SHIPPED.is_dir():
            # Nothing is shipped yet: this is where training starts.
            settings, state = Settings(), None
        else:
            settings, state = _read(directory)
        encoder, decoder = Encoder(settings), Decoder(settings)
        if state is not None:
            for name, half in (("encoder", encoder), ("decoder", decoder)):
                prefix = f"{name}."
                own = {
                    key.removeprefix(prefix): value
                    for key, value in state.items()
                    if key.startswith(prefix)
                }
                half.load_state_dict(own, strict=True)
        loaded = cls(settings, encoder, decoder)
        loaded._stored_fingerprint = loaded.fingerprint
        kind: torch.dtype = getattr(torch, dtype)
        encoder.to(device=device, dtype=kind).eval()
        decoder.to(device=device, dtype=kind).eval()
        loaded._encoder = None if parts == "decoder" else encoder
        loaded._decoder = None if parts == "encoder" else decoder
        return loaded

    def save(self, path: Path) -> None:
        save_file(self._state(), path / WEIGHTS_FILE)
        stated = {"plugin": PLUGIN, **dataclasses.asdict(self._settings)}
        (path / SETTINGS_FILE).write_text(json.dumps(stated, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def untrained(cls, settings: Mapping[str, object], *, seed: int) -> Self:
        config = _settings(settings, "the settings given for training")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(config, Encoder(config), Decoder(config))

    def network(self) -> nn.Module:
        """Return the network to train; it shares its weights with this tokenizer."""
        if self._encoder is None or self._decoder is None:
            raise PluginError("training needs both halves; load with parts='both'")
        # The weights are about to change, so the stored fingerprint no longer speaks of them.
        self._stored_fingerprint = None
        return Network(self._settings, self._encoder, self._decoder)

    @torch.inference_mode()
    def _encode_one(self, encoder: Encoder, image: Picture) -> Codes:
        grid = _GRID_OF_SHAPE.get(image.shape)
        if grid is None:
            raise ValueError(f"pictures are {list(_GRID_OF_SHAPE)}, got {image.shape}")
        weight = encoder.blocks.weight
        batch = torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0).to(weight)
        digits = _digits(encoder(batch), self._settings.levels)
        codes = _numbers(digits, self._settings.levels)
        return Codes(codes.reshape(-1, 1).cpu().numpy(), grid)

    @torch.inference_mode()
    def _decode_one(self, decoder: Decoder, codes: Codes) -> Picture:
        grid, array = codes.layout, codes.array
        size = self._spec.codebook_sizes[0]
        if not isinstance(grid, Grid) or grid not in GRIDS:
            raise ValueError(f"layouts are {GRIDS}, got {grid}")
        if array.shape != (grid.num_positions, 1):
            raise ValueError(f"{grid} needs codes [{grid.num_positions}, 1], got {array.shape}")
        if array.min() < 0 or array.max() >= size:
            raise ValueError(f"codes are 0 to {size - 1}, got others")
        numbers = torch.from_numpy(array.reshape(1, grid.rows, grid.columns))
        vectors = _vectors(_from_numbers(numbers, self._settings.levels), self._settings.levels)
        images = decoder(vectors.to(decoder.blocks.weight)).float().clamp(0, 1)
        picture: Picture = images[0].permute(1, 2, 0).contiguous().cpu().numpy()
        return picture

    def _state(self) -> dict[str, Tensor]:
        if self._encoder is None or self._decoder is None:
            raise PluginError("saving needs both halves; load with parts='both'")
        halves = (("encoder", self._encoder), ("decoder", self._decoder))
        return {
            f"{name}.{key}": tensor.detach().to("cpu", torch.float32).contiguous()
            for name, half in halves
            for key, tensor in half.state_dict().items()
        }


def _settings(values: Mapping[str, object], origin: str) -> Settings:
    known = {field.name for field in dataclasses.fields(Settings)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise PluginError(f"{origin} name {unknown[0]!r}; there are {sorted(known)}")
    # JSON has no tuples.
    clean = {key: tuple(item) if isinstance(item, list) else item for key, item in values.items()}
    return Settings(**clean)  # type: ignore[arg-type]


def _read(directory: Path) -> tuple[Settings, dict[str, Tensor]]:
    for name in (SETTINGS_FILE, WEIGHTS_FILE):
        if not (directory / name).is_file():
            raise PluginError(f"no weights of this tokenizer in {directory}: {name} is missing")
    values = json.loads((directory / SETTINGS_FILE).read_text(encoding="utf-8"))
    plugin = values.pop("plugin", PLUGIN)
    if plugin != PLUGIN:
        raise PluginError(f"{directory} holds a tokenizer of {plugin!r}, expected {PLUGIN!r}")
    settings = _settings(values, str(directory / SETTINGS_FILE))
    return settings, load_file(directory / WEIGHTS_FILE)


def _fingerprint(settings: Settings, state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(repr(settings.levels).encode())
    for key in sorted(state):
        digest.update(f"\0{key}\0{list(state[key].shape)}\0".encode())
        digest.update(state[key].numpy().tobytes())
    return digest.hexdigest()
