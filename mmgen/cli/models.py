"""`mmgen models`: which models are installed, and what one is made of."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mmgen.checkpoint import Checkpoint

__all__ = ["models"]

LICENCE = re.compile(r"licen[cs]e", re.IGNORECASE)

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def models() -> None:
    """List installed models and describe one."""


@models.command("list")
@_json_option
def list_models(as_json: bool) -> None:
    """List the installed models."""
    from mmgen.errors import PluginError
    from mmgen.plugins import MODELS, installed, load_model_path

    rows: list[dict[str, str]] = []
    for name, info in installed(MODELS).items():
        row = {"name": name, "distribution": info.distribution, "version": info.version}
        try:
            row["path"] = str(load_model_path(name))
        except PluginError as error:
            row["error"] = str(error)
        rows.append(row)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        click.echo("no model is installed; install one, such as mmgen-mini", err=True)
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        place = row.get("path") or f"error: {row['error']}"
        click.echo(f"{row['name']:{width}}  {row['distribution']} {row['version']}  {place}")


@models.command()
@click.argument("name", required=False)
@_json_option
def info(name: str | None, as_json: bool) -> None:
    """Describe one model: NAME is an installed model or a checkpoint's directory.

    Without NAME, the model that every command takes by default.
    """
    from mmgen.checkpoint import open_checkpoint

    facts = _facts(open_checkpoint(name))
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    for key, text in _lines(facts):
        click.echo(f"{key:<32}  {text}")


@models.command()
@click.argument("model")
@click.argument("decoder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--tokenizer", help="Whose codes it draws; by default the model's default one.")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory of the new model.",
)
def redecode(model: str, decoder: Path, tokenizer: str | None, output: Path) -> None:
    """Copy a model and let another decoder draw its codes.

    DECODER is a folder that `mmgen train decoder` wrote for the codes of the model's tokenizer;
    fingerprints decide. Every command that draws, chats or serves then uses it.
    """
    from mmgen.checkpoint import open_checkpoint, redecode_checkpoint

    checkpoint = open_checkpoint(model)
    name = tokenizer or checkpoint.generation.tokenizer
    redecode_checkpoint(checkpoint, name, decoder, output)
    click.echo(output)


def _facts(checkpoint: Checkpoint) -> dict[str, object]:
    """Return what can be said of a checkpoint without loading its weights."""
    vocabulary = checkpoint.vocabulary
    tokenizers = [
        {
            "name": name,
            "plugin": entry.plugin,
            "distribution": entry.distribution,
            "version": entry.version,
            "fingerprint": entry.fingerprint,
            "decoder": "its own" if entry.decoder is None else entry.decoder.fingerprint,
            "codebook_sizes": list(vocabulary.tokenizer(name).codebook_sizes),
            "codes_per_picture": _codes_per_picture(checkpoint, name),
            "sizes": _sizes(checkpoint, name),
        }
        for name, entry in checkpoint.visual_tokenizers.items()
    ]
    return {
        "path": str(checkpoint.path),
        "fingerprint": checkpoint.fingerprint,
        "num_parameters": checkpoint.config.num_parameters,
        "weights_bytes": checkpoint.weights.num_bytes,
        "context_length": checkpoint.config.context_length,
        "vocabulary": {
            "size": vocabulary.size,
            "num_text_ids": vocabulary.num_text_ids,
            "fingerprint": vocabulary.fingerprint,
        },
        "tokenizers": tokenizers,
        "generation": asdict(checkpoint.generation),
        "licences": _licences(checkpoint.path / "MODEL_CARD.md"),
    }


def _codes_per_picture(checkpoint: Checkpoint, name: str) -> int:
    ranges = checkpoint.vocabulary.tokenizer(name)
    return ranges.layouts[0].num_positions * len(ranges.codebook_sizes)


def _sizes(checkpoint: Checkpoint, name: str) -> list[list[int]]:
    """Return widths and heights in pixels, or none if the tokenizer is not installed."""
    from mmgen.plugins import VISUAL_TOKENIZERS, listed

    names = {info.name for info in listed(VISUAL_TOKENIZERS)}
    if checkpoint.visual_tokenizers[name].plugin not in names:
        return []
    pixels = checkpoint.load_visual_tokenizer(name, parts="decoder").spec.pixels
    layouts = checkpoint.vocabulary.tokenizer(name).layouts
    sizes = dict.fromkeys(pixels.size_of(layout) for layout in layouts)
    return [[width, height] for height, width in sizes]


def _licences(card: Path) -> list[str]:
    """Return the lines of a model card that speak of licences, headings left out."""
    if not card.is_file():
        return []
    lines = (line.strip() for line in card.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if LICENCE.search(line) and not line.startswith("#")]


def _lines(facts: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Return facts as a label and a text each, nested ones after a dot."""
    for key, value in facts.items():
        label = key.replace("_", " ")
        if isinstance(value, Mapping):
            for inner, text in _lines(value):
                yield f"{label}.{inner}", text
        elif key == "sizes" and isinstance(value, list):
            yield label, " ".join(f"{width}x{height}" for width, height in value) or "-"
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for item in value:
                for inner, text in _lines(item):
                    yield f"{label}.{inner}", text
        elif isinstance(value, list) and key == "licences":
            for text in value:
                yield label, text
        elif isinstance(value, list):
            yield label, " ".join(map(str, value)) or "-"
        elif isinstance(value, int) and not isinstance(value, bool):
            yield label, f"{value:,}"
        else:
            yield label, "-" if value is None else str(value)
