"""Writing a checkpoint: beside its place and then renamed, so that no reader sees half of one."""

from __future__ import annotations

import dataclasses
import json
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from mmgen.checkpoint.manifest import (
    CONFIG_FILE,
    FORMAT,
    MANIFEST_FILE,
    WEIGHTS_FILE,
    GenerationDefaults,
    VisualTokenizerEntry,
    check_parts,
    digest_file,
)
from mmgen.document import DocumentCodec
from mmgen.errors import CheckpointError, OutputError
from mmgen.model import Decoder
from mmgen.model.hugging_face import to_hf_config, to_hf_state
from mmgen.plugins import VISUAL_TOKENIZERS, find
from mmgen.plugins import load_visual_tokenizer_class as load_class
from mmgen.text_tokenizer import TextTokenizer
from mmgen.visual_tokenizer import AbstractVisualTokenizer
from mmgen.vocabulary import Vocabulary

__all__ = ["CHAT_TEMPLATE", "replacing", "save_checkpoint", "write_json"]

DtypeName: TypeAlias = Literal["bfloat16", "float32"]

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
"""Jinja for `apply_chat_template`: turns of text, spelled as the grammar spells them."""


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
    check_parts(vocabulary, decoder.config, visual_tokenizers.keys(), generation)
    DocumentCodec(
        vocabulary, text_tokenizer, {name: item for name, (item, _) in visual_tokenizers.items()}
    )
    with replacing(path) as target:
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
        write_json(
            target / CONFIG_FILE,
            to_hf_config(decoder.config)
            | ids
            | {"eos_token_id": vocabulary.eos_id, "torch_dtype": dtype},
        )
        write_json(
            target / "generation_config.json",
            ids | {"eos_token_id": [vocabulary.end_id, vocabulary.eos_id]},
        )
        if (target / "tokenizer.json").is_file():
            write_json(target / "tokenizer_config.json", _tokenizer_config(vocabulary, decoder))
        manifest = {
            "format": FORMAT,
            "weights": dataclasses.asdict(digest_file(target / WEIGHTS_FILE)),
            "visual_tokenizers": {n: dataclasses.asdict(item) for n, item in entries.items()},
            "generation": dataclasses.asdict(generation),
            "vocabulary": json.loads(vocabulary.to_json()),
        }
        write_json(target / MANIFEST_FILE, manifest)


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


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file of a checkpoint."""
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
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
