"""What a picture's file says about how it was made, so that it can be drawn again."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mmgen import __version__
from mmgen.errors import CheckpointError, SettingsError
from mmgen.generate.engine import SamplingParams
from mmgen.generate.requests import DrawRequest
from mmgen.pictures import read_metadata

if TYPE_CHECKING:
    from mmgen.checkpoint import Checkpoint
    from mmgen.generate.events import ImageFinished

__all__ = ["FINGERPRINTS", "Provenance", "parse_size"]

FINGERPRINTS = {
    "weights_fingerprint": "weights",
    "vocabulary_fingerprint": "vocabulary",
    "tokenizer_fingerprint": "visual tokenizer",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """All that a picture follows from; stored in its file, so that it can be drawn again."""

    prompt: str
    seed: int
    guidance_scale: float
    sampling: SamplingParams
    size: tuple[int, int]
    """Height and width in pixels."""
    tokenizer: str
    model: str
    """As it was named by the user."""
    negative_prompt: str | None = None
    length: int | None = None
    """Positions that were asked for."""
    fingerprints: Mapping[str, str]
    """By the keys of `FINGERPRINTS`."""
    codes: tuple[tuple[int, ...], ...]
    """`[positions][codebooks]`."""

    @classmethod
    def of(
        cls,
        image: ImageFinished,
        prompt: str,
        model: str,
        checkpoint: Checkpoint,
        *,
        length: int | None = None,
    ) -> Self:
        """Return how a picture was drawn; with its length only if one was asked for."""
        height, width = image.picture.shape[:2]
        return cls(
            prompt=prompt,
            seed=image.seed,
            guidance_scale=image.guidance_scale,
            sampling=image.sampling,
            size=(height, width),
            tokenizer=image.tokenizer,
            model=model,
            negative_prompt=image.negative_prompt,
            length=length,
            fingerprints=_fingerprints(checkpoint, image.tokenizer),
            codes=tuple(map(tuple, image.codes.array.tolist())),
        )

    def metadata(self) -> dict[str, str]:
        """Return it as the text entries of a PNG file."""
        height, width = self.size
        settings = {"guidance_scale": self.guidance_scale, **asdict(self.sampling)}
        settings |= {"size": f"{width}x{height}", "tokenizer": self.tokenizer}
        if self.negative_prompt is not None:
            settings["negative_prompt"] = self.negative_prompt
        if self.length is not None:
            settings["length"] = self.length
        return {
            "mmgen": __version__,
            "prompt": self.prompt,
            "seed": str(self.seed),
            "settings": json.dumps(settings),
            "model": self.model,
            **self.fingerprints,
            "codes": json.dumps(self.codes, separators=(",", ":")),
        }

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return how the picture in a file was drawn."""
        found = read_metadata(path)
        keys = ["prompt", "seed", "settings", "model", *FINGERPRINTS, "codes"]
        missing = [key for key in keys if key not in found]
        if missing:
            raise SettingsError(
                f"{path} does not say how it was drawn (it lacks {', '.join(missing)}); "
                "give a PNG file as mmgen wrote it"
            )
        try:
            settings: dict[str, Any] = json.loads(found["settings"])
            negative_prompt = settings.pop("negative_prompt", None)
            length = settings.pop("length", None)
            return cls(
                prompt=found["prompt"],
                seed=int(found["seed"]),
                guidance_scale=float(settings.pop("guidance_scale")),
                size=parse_size(settings.pop("size")),
                tokenizer=str(settings.pop("tokenizer")),
                sampling=SamplingParams(**settings),
                model=found["model"],
                negative_prompt=None if negative_prompt is None else str(negative_prompt),
                length=None if length is None else int(length),
                fingerprints={key: found[key] for key in FINGERPRINTS},
                codes=tuple(tuple(map(int, position)) for position in json.loads(found["codes"])),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise SettingsError(f"{path} has damaged metadata: {error}") from error

    def check(self, checkpoint: Checkpoint, path: Path) -> None:
        """Refuse a model other than the one that drew the picture."""
        if self.tokenizer not in checkpoint.visual_tokenizers:
            raise CheckpointError(
                f"{path} was drawn with the visual tokenizer {self.tokenizer!r}, which "
                f"{checkpoint.path} does not have; name the right model with --model"
            )
        here = _fingerprints(checkpoint, self.tokenizer)
        for key, what in FINGERPRINTS.items():
            if here[key] != self.fingerprints[key]:
                raise CheckpointError(
                    f"{path} was drawn with the {what} {self.fingerprints[key]}, but "
                    f"{checkpoint.path} has {here[key]}; name the right model with --model"
                )

    def request(self) -> DrawRequest:
        """Return what to ask for to get the picture again."""
        return DrawRequest(
            prompt=self.prompt,
            seed=self.seed,
            guidance_scale=self.guidance_scale,
            sampling=self.sampling,
            size=self.size,
            tokenizer=self.tokenizer,
            negative_prompt=self.negative_prompt,
            length=self.length,
        )


def parse_size(text: str) -> tuple[int, int]:
    """Return `(height, width)` of a size as users write it, width first."""
    match = re.fullmatch(r"([0-9]{1,5})[xX×]([0-9]{1,5})", text.strip())
    if match is None:
        raise SettingsError(f"a size is WIDTHxHEIGHT in pixels, such as 64x64, got {text!r}")
    return (int(match[2]), int(match[1]))


def _fingerprints(checkpoint: Checkpoint, tokenizer: str) -> dict[str, str]:
    values = (
        checkpoint.weights.sha256,
        checkpoint.vocabulary.fingerprint,
        checkpoint.visual_tokenizers[tokenizer].drawing_fingerprint,
    )
    return dict(zip(FINGERPRINTS, values, strict=True))
