"""The plugin itself: arrays in, codes out, and back, over the network in `network`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
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
    VisualTokenizerSpec,
)
from mmgen_fsq.network import FsqDecoder, FsqEncoder, FsqNetwork, FsqSettings
from mmgen_fsq.quantizer import FiniteScalarQuantizer

__all__ = ["FsqTokenizer"]

FACTOR = 8
BATCH_PIXELS = 64 * 64 * 64
SETTINGS_FILE = "tokenizer_config.json"
WEIGHTS_FILE = "tokenizer.safetensors"
SHIPPED = Path(__file__).parent / "weights"


def _layouts(settings: FsqSettings) -> tuple[Grid, ...]:
    default = settings.default_side // FACTOR
    sides = range(1, settings.max_side // FACTOR + 1)
    first = Grid(default, default)
    return (first, *(g for g in (Grid(r, c) for r in sides for c in sides) if g != first))


class FsqTokenizer(AbstractVisualTokenizer):
    """Finite scalar quantisation of a convolutional latent; any size in multiples of 8 pixels."""

    is_trainable: ClassVar[bool] = True

    def __init__(
        self,
        settings: FsqSettings,
        encoder: FsqEncoder | None,
        decoder: FsqDecoder | None,
        fingerprint: str | None,
    ) -> None:
        self._settings = settings
        self._encoder = encoder
        self._decoder = decoder
        self._quantizer = FiniteScalarQuantizer(settings.levels)
        self._stored_fingerprint = fingerprint
        self._spec = VisualTokenizerSpec(
            codebook_sizes=(self._quantizer.codebook_size,),
            layouts=_layouts(settings),
            pixels=GridPixels(FACTOR),
            resize="pad",
            blank_codes=(self._quantizer.codebook_size // 2,),
            min_psnr=settings.min_psnr,
        )

    @property
    def spec(self) -> VisualTokenizerSpec:
        return self._spec

    @property
    def fingerprint(self) -> str:
        """SHA-256 of settings and weights; of the files when loaded, computed when trained here."""
        if self._stored_fingerprint is not None:
            return self._stored_fingerprint
        return _fingerprint(self._settings, self._state())

    def encode(
        self,
        images: Sequence[Picture],
        *,
        length: int | None = None,
        quality: float | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Codes]:
        if length is not None or quality is not None or captions is not None:
            raise ValueError("fsq has a fixed number of codes for a size and reads no captions")
        if self._encoder is None:
            raise PluginError("this fsq tokenizer was loaded without its encoder")
        for image in images:
            self._check_picture(image)
        found: dict[int, Codes] = {}
        parameter = next(self._encoder.parameters())
        for indices in _batches([image.shape[:2] for image in images], BATCH_PIXELS):
            batch = torch.from_numpy(np.stack([images[index] for index in indices]))
            batch = rearrange(batch, "b h w c -> b c h w").to(parameter.device, parameter.dtype)
            with torch.inference_mode():
                latents = self._encoder(batch.contiguous(memory_format=torch.channels_last))
                latents = rearrange(latents.float().cpu(), "b c h w -> b h w c")
                _, codes = self._quantizer(latents)
            rows, columns = codes.shape[1:]
            arrays = rearrange(codes, "b h w -> b (h w) 1").numpy()
            for index, array in zip(indices, arrays, strict=True):
                found[index] = Codes(array, Grid(rows, columns))
        return [found[index] for index in range(len(images))]

    def decode(
        self,
        codes: Sequence[Codes],
        *,
        seed: int | None = None,
        steps: int | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Picture]:
        if seed is not None or steps is not None or captions is not None:
            raise ValueError("fsq decodes without noise, steps or captions")
        if self._decoder is None:
            raise PluginError("this fsq tokenizer was loaded without its decoder")
        shapes = [self._check_codes(item) for item in codes]
        found: dict[int, Picture] = {}
        parameter = next(self._decoder.parameters())
        for indices in _batches(shapes, BATCH_PIXELS // FACTOR**2):
            rows, columns = shapes[indices[0]]
            batch = torch.from_numpy(np.stack([codes[index].array[:, 0] for index in indices]))
            vectors = self._quantizer.vectors(
                rearrange(batch.long(), "b (h w) -> b h w", h=rows, w=columns)
            )
            vectors = rearrange(vectors, "b h w c -> b c h w").to(parameter.device, parameter.dtype)
            with torch.inference_mode():
                pixels = self._decoder(vectors.contiguous(memory_format=torch.channels_last))
            pixels = rearrange(pixels.float().cpu().clamp(0, 1), "b c h w -> b h w c")
            for index, array in zip(indices, pixels.numpy(), strict=True):
                found[index] = np.ascontiguousarray(array)
        return [found[index] for index in range(len(codes))]

    def code_vectors(self, codebook: int) -> npt.NDArray[np.float32]:
        if codebook != 0:
            raise ValueError(f"fsq has one codebook, number 0, got {codebook}")
        codes = torch.arange(self._quantizer.codebook_size)
        vectors: npt.NDArray[np.float32] = self._quantizer.vectors(codes).numpy()
        return vectors

    @classmethod
    def load(
        cls,
        path: Path | None = None,
        *,
        parts: Parts = "both",
        device: str = "cpu",
        dtype: str = "float32",
    ) -> Self:
        directory = SHIPPED if path is None else path
        settings, state, fingerprint = _read(directory)
        encoder = decoder = None
        if parts in ("both", "encoder"):
            encoder = FsqEncoder(settings)
            _fill(encoder, state, "encoder", device, getattr(torch, dtype))
        if parts in ("both", "decoder"):
            decoder = FsqDecoder(settings)
            _fill(decoder, state, "decoder", device, getattr(torch, dtype))
        return cls(settings, encoder, decoder, fingerprint)

    def save(self, path: Path) -> None:
        state = self._state()
        settings = json.dumps(dataclasses.asdict(self._settings), indent=1) + "\n"
        temporary = path / (WEIGHTS_FILE + ".part")
        save_file(state, temporary)
        temporary.replace(path / WEIGHTS_FILE)
        (path / SETTINGS_FILE).write_text(settings, encoding="utf-8")

    @classmethod
    def untrained(cls, settings: Mapping[str, object], *, seed: int) -> Self:
        config = _settings(settings, "the settings given for training")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = FsqNetwork(config)
        return cls(config, network.encoder, network.decoder, None)

    def network(self) -> nn.Module:
        """Return encoder, quantizer and decoder sharing this tokenizer's weights."""
        if self._encoder is None or self._decoder is None:
            raise PluginError("training fsq needs both of its halves; load it with parts='both'")
        # The weights are about to change, so the stored fingerprint no longer speaks of them.
        self._stored_fingerprint = None
        network = FsqNetwork(self._settings)
        network.encoder = self._encoder
        network.decoder = self._decoder
        return network

    def _state(self) -> dict[str, Tensor]:
        if self._encoder is None or self._decoder is None:
            raise PluginError("saving fsq needs both of its halves; load it with parts='both'")
        halves = (("encoder", self._encoder), ("decoder", self._decoder))
        return {
            f"{name}.{key}": tensor.detach().to("cpu", torch.float32).contiguous()
            for name, half in halves
            for key, tensor in half.state_dict().items()
        }

    def _check_picture(self, image: Picture) -> None:
        height, width = image.shape[:2]
        limit = self._settings.max_side
        if height % FACTOR or width % FACTOR or not 0 < height <= limit or not 0 < width <= limit:
            raise ValueError(
                f"fsq takes sides that are multiples of {FACTOR} up to {limit} pixels, "
                f"got {width}x{height}; resize the picture first"
            )

    def _check_codes(self, codes: Codes) -> tuple[int, int]:
        layout = codes.layout
        limit = self._settings.max_side // FACTOR
        if not isinstance(layout, Grid) or layout.frames != 1:
            raise ValueError(f"fsq decodes grids of one frame, got {layout}")
        if layout.rows > limit or layout.columns > limit:
            raise ValueError(f"fsq decodes at most {limit} rows and columns, got {layout}")
        if not codes.is_complete or codes.array.shape[1] != 1:
            raise ValueError(
                f"fsq needs {layout.num_positions} positions of one code for {layout}, "
                f"got {list(codes.array.shape)}"
            )
        low, high = int(codes.array.min()), int(codes.array.max())
        if low < 0 or high >= self._quantizer.codebook_size:
            raise ValueError(
                f"codes must be in 0..{self._quantizer.codebook_size - 1}, got {low}..{high}"
            )
        return (layout.rows, layout.columns)


def _batches(shapes: Sequence[tuple[int, ...]], budget: int) -> Iterator[list[int]]:
    """Group indices of equal shapes into batches of at most `budget` places (at least one item)."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, shape in enumerate(shapes):
        groups.setdefault(tuple(shape), []).append(index)
    for (height, width, *_), indices in groups.items():
        count = max(1, budget // (height * width))
        for start in range(0, len(indices), count):
            yield indices[start : start + count]


def _settings(values: Mapping[str, object], origin: str) -> FsqSettings:
    known = {field.name for field in dataclasses.fields(FsqSettings)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise PluginError(f"{origin} name {unknown[0]!r}, which fsq does not have: {sorted(known)}")
    # JSON has no tuples.
    clean = {key: tuple(item) if isinstance(item, list) else item for key, item in values.items()}
    return FsqSettings(**clean)  # type: ignore[arg-type]


def _read(directory: Path) -> tuple[FsqSettings, dict[str, Tensor], str]:
    for name in (SETTINGS_FILE, WEIGHTS_FILE):
        if not (directory / name).is_file():
            raise PluginError(f"no fsq tokenizer in {directory}: {name} is missing")
    values = json.loads((directory / SETTINGS_FILE).read_text(encoding="utf-8"))
    settings = _settings(values, str(directory / SETTINGS_FILE))
    state = {key: tensor.float() for key, tensor in load_file(directory / WEIGHTS_FILE).items()}
    return settings, state, _fingerprint(settings, state)


def _fill(
    half: nn.Module, state: Mapping[str, Tensor], name: str, device: str, dtype: torch.dtype
) -> None:
    prefix = name + "."
    own = {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }
    half.load_state_dict(own, strict=True)
    half.to(device=device, dtype=dtype).eval()
    half.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _fingerprint(settings: FsqSettings, state: Mapping[str, Tensor]) -> str:
    shaping = dataclasses.asdict(settings)
    # A promise changes no code and no pixel.
    del shaping["min_psnr"]
    digest = hashlib.sha256(json.dumps(shaping, sort_keys=True).encode())
    for key in sorted(state):
        digest.update(f"\0{key}\0{list(state[key].shape)}\0".encode())
        digest.update(state[key].contiguous().numpy().tobytes())
    return digest.hexdigest()
