"""Opening a checkpoint: small parts at once and checked, the weights when they are asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mmgen.checkpoint.manifest import (
    CONFIG_FILE,
    FORMAT,
    MANIFEST_FILE,
    WEIGHTS_FILE,
    GenerationDefaults,
    VisualTokenizerEntry,
    WeightsEntry,
    check_parts,
    digest_file,
    read_generation,
    read_visual_tokenizers,
)
from mmgen.checkpoint.redecoding import load_redecoded
from mmgen.document import DocumentCodec
from mmgen.errors import CheckpointError, MmgenError, SettingsError, VocabularyError
from mmgen.model import Decoder, DecoderConfig
from mmgen.model.hugging_face import from_hf_config, from_hf_state
from mmgen.plugins import MODELS, VISUAL_TOKENIZERS, guarded, listed, load_model_path
from mmgen.plugins import load_visual_tokenizer_class as load_class
from mmgen.text_tokenizer import TextTokenizer, load_text_tokenizer
from mmgen.visual_tokenizer import AbstractVisualTokenizer, Parts
from mmgen.vocabulary import Vocabulary

__all__ = ["DEFAULT_MODEL", "Checkpoint", "open_checkpoint"]

DEFAULT_MODEL = "mini"
"""The installed model that is opened when none is named."""


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
        entries = sorted(
            (name, item.drawing_fingerprint) for name, item in self.visual_tokenizers.items()
        )
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
        found = digest_file(path)
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
        self,
        name: str,
        *,
        parts: Parts = "both",
        device: str = "cpu",
        dtype: str = "float32",
        as_trained: bool = False,
    ) -> AbstractVisualTokenizer:
        """Load one visual tokenizer, which must be the one the decoder was trained with.

        Args:
            as_trained: with its own decoder, even if the checkpoint has another for its codes.
        """
        self.vocabulary.tokenizer(name)
        entry = self.visual_tokenizers[name]
        source = f"visual tokenizer {name!r} of {self.path}"
        if entry.decoder is not None and not as_trained:
            return load_redecoded(
                self.path / entry.decoder.weights,
                entry,
                source=source,
                parts=parts,
                device=device,
                dtype=dtype,
            )
        if entry.plugin not in {info.name for info in listed(VISUAL_TOKENIZERS)}:
            raise CheckpointError(
                f"{source} is not installed; install {entry.distribution} "
                f"(version {entry.version} when the checkpoint was written)"
            )
        place = None if entry.weights is None else self.path / entry.weights
        if place is not None and not place.is_dir():
            raise CheckpointError(f"{source} lacks {place}; copy the checkpoint again")
        try:
            tokenizer: AbstractVisualTokenizer = load_class(entry.plugin).load(
                place, parts=parts, device=device, dtype=dtype
            )
        except (OSError, SafetensorError, json.JSONDecodeError) as error:
            raise CheckpointError(f"{source} cannot be read: {error}") from error
        except MmgenError:
            raise
        except (Exception, SystemExit) as error:  # a stranger's code may raise anything
            raise CheckpointError(
                f"{source} ({entry.distribution} {entry.version} when the checkpoint was written) "
                f"cannot be loaded: {type(error).__name__}: {error}; reinstall that version"
            ) from error
        tokenizer = guarded(tokenizer, entry.plugin)
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
        entries = read_visual_tokenizers(manifest["visual_tokenizers"])
        generation = read_generation(manifest["generation"])
    except (AttributeError, KeyError, TypeError, SettingsError, VocabularyError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{path / MANIFEST_FILE} cannot be used: {reason}") from error
    check_parts(vocabulary, config, entries.keys(), generation)
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


def _resolve(path_or_name: Path | str) -> Path:
    """Return the directory of a name or path; a bare word is a name before it is a path."""
    if isinstance(path_or_name, Path):
        return path_or_name
    is_name = Path(path_or_name).name == path_or_name and path_or_name not in ("", ".", "..")
    names = {info.name for info in listed(MODELS)}
    if is_name and (path_or_name in names or not Path(path_or_name).is_dir()):
        return load_model_path(path_or_name)
    return Path(path_or_name)


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
