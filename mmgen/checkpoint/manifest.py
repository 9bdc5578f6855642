"""What `mmgen.json` says: which parts a checkpoint has, their fingerprints, and how it is used.

Reading and writing check with the same functions whether parts belong together.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmgen.errors import CheckpointError, SettingsError
from mmgen.model import DecoderConfig
from mmgen.vocabulary import Vocabulary

__all__ = [
    "CONFIG_FILE",
    "FORMAT",
    "MANIFEST_FILE",
    "WEIGHTS_FILE",
    "DecoderEntry",
    "GenerationDefaults",
    "SamplingDefaults",
    "VisualTokenizerEntry",
    "WeightsEntry",
    "check_parts",
    "digest_file",
    "read_generation",
    "read_visual_tokenizers",
]

FORMAT = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
MANIFEST_FILE = "mmgen.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingDefaults:
    """How ids of one modality are chosen unless a request says otherwise."""

    temperature: float = 1.0
    """0 for the likeliest id."""
    top_k: int | None = None
    """Ids to choose from."""
    top_p: float | None = None
    """Probability mass to choose from."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise SettingsError(f"temperature must be 0 or more, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise SettingsError(f"top_k must be 1 or more, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise SettingsError(f"top_p must be above 0 and at most 1, got {self.top_p}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationDefaults:
    """How a model is used unless a request says otherwise."""

    tokenizer: str
    """The visual tokenizer that draws and looks."""
    text: SamplingDefaults = SamplingDefaults()
    """How text ids are chosen."""
    image: SamplingDefaults = SamplingDefaults()
    """How codes are chosen."""
    guidance_scale: float = 1.0
    """How strongly the condition counts; 1 is without guidance."""
    draw_template: str = "draw {prompt}"
    """How a bare prompt is put to the model."""
    caption_prompt: str = "what is this?"
    """How the model is asked to describe a picture."""
    trained_length: int | None = None
    """Ids of the longest documents in training; None where nobody said. Longer ones may fit the
    context, but the model never saw any, so chats leave out old turns before it comes to that."""

    def __post_init__(self) -> None:
        if self.trained_length is not None and self.trained_length < 1:
            raise SettingsError(f"trained_length must be 1 or more, got {self.trained_length}")
        if not 0 <= self.guidance_scale < math.inf:
            raise SettingsError(f"guidance_scale must be 0 or more, got {self.guidance_scale}")
        if "{prompt}" not in self.draw_template:
            raise SettingsError(f"draw_template needs {{prompt}} in it, got {self.draw_template!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsEntry:
    """What the manifest says of the decoder's weights."""

    sha256: str
    """Digest of the file."""
    num_bytes: int
    """Size of the file, which tells a file that was cut short from another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderEntry:
    """What the manifest says of another decoder for the codes of a visual tokenizer."""

    fingerprint: str
    """Of the tokenizer with this decoder."""
    weights: str
    """Directory in the checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualTokenizerEntry:
    """What the manifest says of one visual tokenizer."""

    plugin: str
    """Entry point."""
    distribution: str
    """Distribution that provided it when the checkpoint was written."""
    version: str
    """Version of that distribution."""
    fingerprint: str
    """The only thing that decides whether a tokenizer is the right one."""
    weights: str | None
    """Directory in the checkpoint; none when the distribution ships what it needs."""
    decoder: DecoderEntry | None = None
    """What draws the codes in the place of the tokenizer's own decoder, if anything does."""

    @property
    def drawing_fingerprint(self) -> str:
        """The fingerprint of what turns codes into pixels."""
        return self.fingerprint if self.decoder is None else self.decoder.fingerprint


def read_visual_tokenizers(stored: Mapping[str, Any]) -> dict[str, VisualTokenizerEntry]:
    """Return the visual tokenizers of a parsed manifest by name."""
    entries = {}
    for name, item in stored.items():
        decoder = item.get("decoder")
        known = None if decoder is None else DecoderEntry(**decoder)
        entries[name] = VisualTokenizerEntry(**{**item, "decoder": known})
    return entries


def read_generation(stored: Mapping[str, Any]) -> GenerationDefaults:
    """Return the defaults of a parsed manifest."""
    text, image = SamplingDefaults(**stored["text"]), SamplingDefaults(**stored["image"])
    return GenerationDefaults(**{**stored, "text": text, "image": image})


def check_parts(
    vocabulary: Vocabulary,
    config: DecoderConfig,
    names: Collection[str],
    generation: GenerationDefaults,
) -> None:
    """Refuse a decoder, a vocabulary and tokenizers that do not belong together."""
    if config.vocab_size != vocabulary.size:
        raise CheckpointError(
            f"the decoder has {config.vocab_size} ids, but the vocabulary has {vocabulary.size}; "
            "they do not belong together"
        )
    given, expected = sorted(names), sorted(vocabulary.tokenizers)
    if given != expected:
        raise CheckpointError(
            f"the vocabulary has the visual tokenizers {expected}, the checkpoint {given}"
        )
    if generation.tokenizer not in expected:
        raise CheckpointError(
            f"{generation.tokenizer!r} is to draw, but the vocabulary has {expected} only"
        )


def digest_file(path: Path) -> WeightsEntry:
    """Return what the manifest says of a file."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return WeightsEntry(sha256=digest, num_bytes=path.stat().st_size)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
