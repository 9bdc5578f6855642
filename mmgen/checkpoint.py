"""A checkpoint: one directory with everything that generation needs, in Hugging Face's layout.

Every part carries or has a fingerprint, and parts that do not belong together are refused with
both values. Directories are written beside their place and renamed, so that a reader never sees
half of one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mmgen.document import DocumentCodec
from mmgen.errors import (
    CheckpointError,
    OutputError,
    SettingsError,
    VocabularyError,
)
from mmgen.model import Decoder, DecoderConfig
from mmgen.model.hugging_face import from_hf_config, from_hf_state, to_hf_config, to_hf_state
from mmgen.plugins import MODELS, VISUAL_TOKENIZERS, find, installed, load_model_path
from mmgen.plugins import load_visual_tokenizer_class as load_class
from mmgen.text_tokenizer import TextTokenizer, load_text_tokenizer
from mmgen.visual_tokenizer import AbstractVisualTokenizer, Parts
from mmgen.vocabulary import Vocabulary

__all__ = [
    "DEFAULT_MODEL",
    "Checkpoint",
    "GenerationDefaults",
    "SamplingDefaults",
    "VisualTokenizerEntry",
    "WeightsEntry",
    "open_checkpoint",
    "save_checkpoint",
]

DEFAULT_MODEL = "mini"
"""The installed model that is opened when none is named."""

DtypeName: TypeAlias = Literal["bfloat16", "float32"]

FORMAT = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
MANIFEST_FILE = "mmgen.json"
VISUAL_TOKENIZERS_DIRECTORY = "visual_tokenizers"

CHAT_TEMPLATE = """\
{{- '<|bos|>' -}}
{%- for message in messages -%}
  {%- if message['role'] not in ['user', 'assistant'] -%}
    {{- raise_exception('roles are user and assistant, got ' ~ message['role']) -}}
  {%- endif -%}
  {{- '<|' ~ message['role'] ~ '|>' -}}
  {%- if message['content'] is string -%}
    {{- message['content'] -}}
  {%- else -%}
    {%- for part in message['content'] -%}
      {%- if part['type'] != 'text' -%}
        {{- raise_exception('this template spells text only; pictures need mmgen') -}}
      {%- endif -%}
      {{- part['text'] -}}
    {%- endfor -%}
  {%- endif -%}
  {{- '<|end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|assistant|>' -}}
{%- endif -%}
"""


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

    def __post_init__(self) -> None:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint whose small parts are read and agree; weights are loaded when asked for."""

    path: Path
    config: DecoderConfig
    vocabulary: Vocabulary
    text_tokenizer: TextTokenizer
    generation: GenerationDefaults
    weights: WeightsEntry
    visual_tokenizers: Mapping[str, VisualTokenizerEntry]

    @property
    def fingerprint(self) -> str:
        """SHA-256 in hex over weights, vocabulary and visual tokenizers."""
        entries = sorted((name, item.fingerprint) for name, item in self.visual_tokenizers.items())
        stated = json.dumps([self.weights.sha256, self.vocabulary.fingerprint, entries])
        return hashlib.sha256(stated.encode()).hexdigest()

    def load_decoder(
        self, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
    ) -> Decoder:
        """Load the weights.

        Args:
            dtype: float32 on a CPU and bfloat16 elsewhere if not given. A CPU may be slow in
                bfloat16, and in float32 all of them agree on what a seed draws.
            device: where the decoder shall be.
        """
        device = torch.device(device)
        if dtype is None:
            dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
        path = self.path / WEIGHTS_FILE
        found = _digest(path)
        if found.num_bytes != self.weights.num_bytes:
            raise CheckpointError(
                f"{path} has {found.num_bytes} bytes, expected {self.weights.num_bytes}; "
                "it was cut short or replaced: copy the checkpoint again"
            )
        if found.sha256 != self.weights.sha256:
            raise CheckpointError(
                f"{path} has the fingerprint {found.sha256}, expected {self.weights.sha256}; "
                "these weights belong to another checkpoint: copy the checkpoint again"
            )
        try:
            state = load_file(path, device=str(device))
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error
        converted = {name: tensor.to(dtype) for name, tensor in state.items()}
        return from_hf_state(self.config, converted)

    def load_visual_tokenizer(
        self, name: str, *, parts: Parts = "both", device: str = "cpu", dtype: str = "float32"
    ) -> AbstractVisualTokenizer:
        """Load one visual tokenizer, which must be the one the decoder was trained with."""
        self.vocabulary.tokenizer(name)
        entry = self.visual_tokenizers[name]
        source = f"visual tokenizer {name!r} of {self.path}"
        if entry.plugin not in installed(VISUAL_TOKENIZERS):
            raise CheckpointError(
                f"{source} is not installed; install {entry.distribution} "
                f"(version {entry.version} when the checkpoint was written)"
            )
        place = None if entry.weights is None else self.path / entry.weights
        if place is not None and not place.is_dir():
            raise CheckpointError(f"{source} lacks {place}; copy the checkpoint again")
        try:
            tokenizer = load_class(entry.plugin).load(
                place, parts=parts, device=device, dtype=dtype
            )
        except (OSError, SafetensorError, json.JSONDecodeError) as error:
            raise CheckpointError(f"{source} cannot be read: {error}") from error
        if tokenizer.fingerprint != entry.fingerprint:
            raise CheckpointError(
                f"{source} has the fingerprint {tokenizer.fingerprint}, expected "
                f"{entry.fingerprint} of {entry.distribution} {entry.version}; "
                "take the tokenizer that the decoder was trained with"
            )
        return tokenizer

    def codec(self, *, parts: Parts = "both", device: str = "cpu") -> DocumentCodec:
        """Return the codec of this checkpoint, with all its visual tokenizers loaded."""
        tokenizers = {
            name: self.load_visual_tokenizer(name, parts=parts, device=device)
            for name in self.vocabulary.tokenizers
        }
        return DocumentCodec(self.vocabulary, self.text_tokenizer, tokenizers)


def open_checkpoint(path_or_name: Path | str | None = None) -> Checkpoint:
    """Open a checkpoint directory, an installed model by name, or the default model.

    Raises:
        CheckpointError: parts are missing or do not belong together.
        PluginError: no model of that name is installed.
    """
    path = _resolve(DEFAULT_MODEL if path_or_name is None else path_or_name)
    if not path.is_dir():
        raise CheckpointError(f"no checkpoint at {path}: there is no such directory")
    manifest = _read_json(path / MANIFEST_FILE)
    config = from_hf_config(_read_json(path / CONFIG_FILE))
    if manifest.get("format") != FORMAT:
        raise CheckpointError(
            f"{path / MANIFEST_FILE} has the format {manifest.get('format')!r}, expected {FORMAT}; "
            "it was written by another version of mmgen"
        )
    try:
        vocabulary = Vocabulary.from_json(json.dumps(manifest["vocabulary"]))
        weights = WeightsEntry(**manifest["weights"])
        entries = {
            name: VisualTokenizerEntry(**item)
            for name, item in manifest["visual_tokenizers"].items()
        }
        generation = _generation(manifest["generation"])
    except (AttributeError, KeyError, TypeError, SettingsError, VocabularyError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{path / MANIFEST_FILE} cannot be used: {reason}") from error
    _check_parts(vocabulary, config, entries.keys(), generation)
    text_tokenizer = load_text_tokenizer(path)
    if text_tokenizer.fingerprint != vocabulary.text_fingerprint:
        raise CheckpointError(
            f"the text tokenizer in {path} has the fingerprint {text_tokenizer.fingerprint}, "
            f"but the vocabulary was made for {vocabulary.text_fingerprint}; "
            "copy the checkpoint again"
        )
    if not (path / WEIGHTS_FILE).is_file():
        raise CheckpointError(f"{path} has no {WEIGHTS_FILE}; copy the checkpoint again")
    return Checkpoint(
        path=path,
        config=config,
        vocabulary=vocabulary,
        text_tokenizer=text_tokenizer,
        generation=generation,
        weights=weights,
        visual_tokenizers=entries,
    )


def save_checkpoint(
    path: Path,
    *,
    decoder: Decoder,
    vocabulary: Vocabulary,
    text_tokenizer: TextTokenizer,
    visual_tokenizers: Mapping[str, tuple[AbstractVisualTokenizer, Path | None]],
    generation: GenerationDefaults,
    model_card: str,
    dtype: DtypeName = "bfloat16",
) -> None:
    """Write a checkpoint directory, in place of one that may be there.

    Args:
        path: the directory; anything there that is no checkpoint is left, and refused.
        visual_tokenizers: each tokenizer of the vocabulary, and where it was loaded from. With a
            place its weights are stored; without one it is as its distribution ships it, and the
            checkpoint holds its fingerprint only.
        model_card: the contents of `MODEL_CARD.md`.
        dtype: type in which weights are stored.
    """
    _check_parts(vocabulary, decoder.config, visual_tokenizers.keys(), generation)
    DocumentCodec(
        vocabulary, text_tokenizer, {name: item for name, (item, _) in visual_tokenizers.items()}
    )
    with _replacing(path) as target:
        entries = {
            name: _save_visual_tokenizer(target, name, tokenizer, place is not None)
            for name, (tokenizer, place) in visual_tokenizers.items()
        }
        kind: torch.dtype = getattr(torch, dtype)
        state = {name: tensor.to("cpu", kind) for name, tensor in to_hf_state(decoder).items()}
        save_file(state, target / WEIGHTS_FILE, metadata={"format": "pt"})
        text_tokenizer.save(target, special_tokens=vocabulary.special_tokens)
        (target / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
        (target / "MODEL_CARD.md").write_text(model_card, encoding="utf-8")
        ids = {"bos_token_id": vocabulary.bos_id, "pad_token_id": vocabulary.pad_id}
        _write_json(
            target / CONFIG_FILE,
            to_hf_config(decoder.config)
            | ids
            | {"eos_token_id": vocabulary.eos_id, "torch_dtype": dtype},
        )
        _write_json(
            target / "generation_config.json",
            ids | {"eos_token_id": [vocabulary.end_id, vocabulary.eos_id]},
        )
        if (target / "tokenizer.json").is_file():
            _write_json(target / "tokenizer_config.json", _tokenizer_config(vocabulary, decoder))
        manifest = {
            "format": FORMAT,
            "weights": dataclasses.asdict(_digest(target / WEIGHTS_FILE)),
            "visual_tokenizers": {n: dataclasses.asdict(item) for n, item in entries.items()},
            "generation": dataclasses.asdict(generation),
            "vocabulary": json.loads(vocabulary.to_json()),
        }
        _write_json(target / MANIFEST_FILE, manifest)


def _check_parts(
    vocabulary: Vocabulary,
    config: DecoderConfig,
    names: Collection[str],
    generation: GenerationDefaults,
) -> None:
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


def _save_visual_tokenizer(
    target: Path, name: str, tokenizer: AbstractVisualTokenizer, is_stored: bool
) -> VisualTokenizerEntry:
    """Write one tokenizer below `target`, and make sure that it loads as what it is."""
    info = find(VISUAL_TOKENIZERS, name)
    weights = f"{VISUAL_TOKENIZERS_DIRECTORY}/{name}"
    place: Path | None = None
    if is_stored:
        place = target / weights
        place.mkdir(parents=True)
        tokenizer.save(place)
        if not any(place.iterdir()):
            place.rmdir()
            place = None
    found = load_class(name).load(place).fingerprint
    if found != tokenizer.fingerprint:
        raise CheckpointError(
            f"visual tokenizer {name!r} has the fingerprint {tokenizer.fingerprint}, but {found} "
            f"when it is loaded again from {'its distribution' if place is None else weights}"
        )
    return VisualTokenizerEntry(
        plugin=name,
        distribution=info.distribution,
        version=info.version,
        fingerprint=found,
        weights=None if place is None else weights,
    )


def _tokenizer_config(vocabulary: Vocabulary, decoder: Decoder) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": vocabulary.token(vocabulary.bos_id),
        "eos_token": vocabulary.token(vocabulary.eos_id),
        "pad_token": vocabulary.token(vocabulary.pad_id),
        "clean_up_tokenization_spaces": False,
        "model_max_length": decoder.config.context_length,
    }


def _generation(stored: dict[str, Any]) -> GenerationDefaults:
    text, image = SamplingDefaults(**stored["text"]), SamplingDefaults(**stored["image"])
    return GenerationDefaults(**{**stored, "text": text, "image": image})


def _resolve(path_or_name: Path | str) -> Path:
    """Return the directory of a name or path; a bare word is a name before it is a path."""
    if isinstance(path_or_name, Path):
        return path_or_name
    is_name = Path(path_or_name).name == path_or_name and path_or_name not in ("", ".", "..")
    if is_name and (path_or_name in installed(MODELS) or not Path(path_or_name).is_dir()):
        return load_model_path(path_or_name)
    return Path(path_or_name)


def _digest(path: Path) -> WeightsEntry:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return WeightsEntry(sha256=digest, num_bytes=path.stat().st_size)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} is no checkpoint: it has no {path.name}") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds a {type(data).__name__}, expected an object")
    return data


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Give a directory to fill; put it in the place of `path` if all goes well."""
    if path.exists() and not (path / MANIFEST_FILE).is_file() and _has_contents(path):
        raise OutputError(f"{path} exists and is no checkpoint; choose another place or remove it")
    token = secrets.token_hex(4)
    part = path.with_name(f".{path.name}.{token}.part")
    old = path.with_name(f".{path.name}.{token}.old")
    try:
        part.mkdir(parents=True)
        yield part
        if path.exists():
            path.rename(old)
        try:
            part.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"the checkpoint {path} cannot be written: {error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _has_contents(path: Path) -> bool:
    return not path.is_dir() or any(path.iterdir())
