"""A checkpoint whose codes another decoder draws: loading it, and writing one.

The decoder is a folder of its own in the checkpoint. The tokenizer that it wraps must have the
fingerprint of the one that the checkpoint was trained with, or its codes would mean other things.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from mmgen.checkpoint.manifest import MANIFEST_FILE, DecoderEntry, VisualTokenizerEntry
from mmgen.checkpoint.writing import replacing, write_json
from mmgen.errors import CheckpointError, MmgenError, OutputError
from mmgen.visual_tokenizer import AbstractVisualTokenizer, Parts

if TYPE_CHECKING:
    from mmgen.checkpoint.reading import Checkpoint
    from mmgen.wrapping.redecoded import RedecodedTokenizer

__all__ = ["load_redecoded", "redecode_checkpoint"]

DECODERS_DIRECTORY = "decoders"


def load_redecoded(
    place: Path,
    entry: VisualTokenizerEntry,
    *,
    source: str,
    parts: Parts,
    device: str,
    dtype: str,
) -> AbstractVisualTokenizer:
    """Load a tokenizer with the decoder that a manifest names.

    Args:
        place: the decoder's folder.
        entry: what the manifest says of the tokenizer.
        source: what to call the tokenizer in messages.

    Raises:
        CheckpointError: there is none, it is another one, or it is of another tokenizer.
    """
    from mmgen.plugins import guarded

    assert entry.decoder is not None, "the manifest names a decoder"
    if not place.is_dir():
        raise CheckpointError(f"{source} lacks the decoder {place}; copy the checkpoint again")
    tokenizer = _load(place, source, parts=parts, device=device, dtype=dtype)
    _check_same_codes(tokenizer, entry, source, place)
    if tokenizer.fingerprint != entry.decoder.fingerprint:
        raise CheckpointError(
            f"the decoder of {source} has the fingerprint {tokenizer.fingerprint}, expected "
            f"{entry.decoder.fingerprint}; copy the checkpoint again"
        )
    return guarded(tokenizer, tokenizer.name)


def redecode_checkpoint(checkpoint: Checkpoint, name: str, decoder: Path, output: Path) -> None:
    """Write a copy of a checkpoint whose codes are drawn by another decoder.

    Args:
        name: the visual tokenizer whose codes they are.
        decoder: a folder that `mmgen train decoder` wrote.
        output: directory of the copy, in place of a checkpoint that may be there.

    Raises:
        CheckpointError: the decoder is for the codes of another tokenizer.
        OutputError: the copy cannot be written, or would replace what it is made of.
    """
    checkpoint.vocabulary.tokenizer(name)
    if output.resolve() == checkpoint.path.resolve():
        raise OutputError(f"{output} is the checkpoint to copy; write the new one elsewhere")
    source = f"visual tokenizer {name!r} of {checkpoint.path}"
    tokenizer = _load(decoder, source, parts="both", device="cpu", dtype="float32")
    _check_same_codes(tokenizer, checkpoint.visual_tokenizers[name], source, decoder)
    weights = f"{DECODERS_DIRECTORY}/{name}"
    stated = DecoderEntry(fingerprint=tokenizer.fingerprint, weights=weights)
    with replacing(output) as target:
        shutil.copytree(checkpoint.path, target, dirs_exist_ok=True)
        shutil.rmtree(target / weights, ignore_errors=True)
        shutil.copytree(decoder, target / weights)
        manifest = json.loads((target / MANIFEST_FILE).read_text(encoding="utf-8"))
        manifest["visual_tokenizers"][name]["decoder"] = dataclasses.asdict(stated)
        write_json(target / MANIFEST_FILE, manifest)


def _load(place: Path, source: str, *, parts: Parts, device: str, dtype: str) -> RedecodedTokenizer:
    from mmgen.wrapping.redecoded import RedecodedTokenizer

    try:
        return RedecodedTokenizer.load(place, parts=parts, device=device, dtype=dtype)
    except MmgenError as error:
        raise CheckpointError(
            f"the decoder in {place} for {source} is of no use: {error}"
        ) from error
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"the decoder in {place} for {source} cannot be read: {error}"
        ) from error


def _check_same_codes(
    tokenizer: RedecodedTokenizer, entry: VisualTokenizerEntry, source: str, place: Path
) -> None:
    if tokenizer.wrapped_fingerprint != entry.fingerprint:
        raise CheckpointError(
            f"the decoder in {place} draws codes of {tokenizer.wrapped_name!r} with the "
            f"fingerprint {tokenizer.wrapped_fingerprint}, but {source} has {entry.fingerprint}; "
            "train a decoder for that one"
        )
