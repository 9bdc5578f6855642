"""`mmgen vocabulary`: see which ids a model has, and give it those of one more tokenizer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mmgen.checkpoint import Checkpoint, RowStart
    from mmgen.model import Decoder
    from mmgen.vocabulary import Vocabulary

__all__ = ["vocabulary"]

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_SHOWN = ("loss_text", "loss_image", "loss_mark", "bits_per_byte", "bits_per_image")


@click.group()
def vocabulary() -> None:
    """Show a model's ids, and add those of a visual tokenizer."""


@vocabulary.command()
@click.argument("model", required=False)
@_json_option
def show(model: str | None, as_json: bool) -> None:
    """Say which ids a model has, by name or directory; by default the one installed."""
    from mmgen.checkpoint import open_checkpoint

    known = open_checkpoint(model).vocabulary
    if as_json:
        click.echo(known.to_json(), nl=False)
        return
    rows = [
        ("text", 0, known.num_text_ids),
        ("special", known.num_text_ids, known.end_image_id + 1),
    ]
    for ranges in known.ranges:
        if ranges.shape_ids:
            rows.append((f"{ranges.name}: shapes", ranges.shape_ids.start, ranges.shape_ids.stop))
        rows += [
            (f"{ranges.name}: codebook {book}", ids.start, ids.stop)
            for book, ids in enumerate(ranges.code_ids)
        ]
    rows.append(("unused", known.num_used_ids, known.size))
    width = max(len(name) for name, _, _ in rows)
    for name, start, stop in rows:
        if stop > start:
            click.echo(f"{name:{width}}  {start:>8,} to {stop - 1:>8,}")


@vocabulary.command()
@click.argument("checkpoint")
@click.option("--tokenizer", "name", required=True, help="The visual tokenizer to add, by name.")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory of the new checkpoint.",
)
@click.option(
    "--weights",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory of the tokenizer's weights; without it, what the plugin ships.",
)
@click.option(
    "--size",
    "sizes",
    multiple=True,
    metavar="HxW",
    help="Picture size in pixels that documents may have, the default first (repeatable); "
    "without it, the tokenizer's default.",
)
@click.option(
    "--start",
    type=click.Choice(["vectors", "hull"]),
    default="vectors",
    show_default=True,
    help="Lay new rows out like the code vectors, or at random; always inside the old ones.",
)
@click.option(
    "--shards",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of shards to measure losses on before and after (repeatable).",
)
@click.option(
    "--batches",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="At most so many batches of four rows of each folder.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@_json_option
def extend(
    checkpoint: str,
    name: str,
    output: Path,
    weights: Path | None,
    sizes: tuple[str, ...],
    start: RowStart,
    shards: tuple[Path, ...],
    batches: int,
    seed: int,
    as_json: bool,
) -> None:
    """Add the ids of a visual tokenizer to a trained model.

    All old ids keep their numbers and their rows. Prepare data with both tokenizers, in this order,
    and train on with `start_from`, since the new rows mean nothing yet.
    """
    from mmgen.checkpoint import extend_decoder, open_checkpoint, save_checkpoint
    from mmgen.errors import OutputError
    from mmgen.plugins import load_visual_tokenizer, located_visual_tokenizer
    from mmgen.train.config import TokenizerSource
    from mmgen.train.stages import chosen_layouts

    source = open_checkpoint(checkpoint)
    if output.resolve() == source.path.resolve():
        raise OutputError(f"{output} is the checkpoint to extend; write the new one elsewhere")
    name, weights = located_visual_tokenizer(name, weights)
    tokenizer = load_visual_tokenizer(name, weights)
    wanted = TokenizerSource(name=name, path=weights, sizes=tuple(map(_parsed, sizes)))
    old = source.load_decoder()
    extension = extend_decoder(
        old,
        source.vocabulary,
        name,
        tokenizer,
        chosen_layouts(tokenizer, wanted),
        start=start,
        seed=seed,
    )
    # Before writing: shards that cannot be read shall not leave a checkpoint behind.
    vocabularies = (source.vocabulary, extension.vocabulary)
    losses = [
        _losses(path, source, vocabularies, (old, extension.decoder), batches) for path in shards
    ]
    kept = {
        known: (
            source.load_visual_tokenizer(known, as_trained=True),
            None if entry.weights is None else source.path / entry.weights,
        )
        for known, entry in source.visual_tokenizers.items()
    }
    save_checkpoint(
        output,
        decoder=extension.decoder,
        vocabulary=extension.vocabulary,
        text_tokenizer=source.text_tokenizer,
        visual_tokenizers=kept | {name: (tokenizer, weights)},
        generation=source.generation,
        model_card=_card(source, name),
        dtype=_dtype(source),
    )
    added = extension.vocabulary.tokenizer(name)
    facts: dict[str, Any] = {
        "checkpoint": str(output),
        "tokenizer": name,
        "first_new_id": source.vocabulary.num_used_ids,
        "num_new_ids": extension.vocabulary.num_used_ids - source.vocabulary.num_used_ids,
        "num_ids": extension.vocabulary.num_used_ids,
        "layouts": [str(layout) for layout in added.layouts],
        "start": start,
        "losses": losses,
    }
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    click.echo(output)
    click.echo(
        f"{facts['num_new_ids']:,} ids of {name} from {facts['first_new_id']:,}; "
        f"{facts['first_new_id']:,} old ids are as they were",
        err=True,
    )
    for known, entry in source.visual_tokenizers.items():
        if entry.decoder is not None:
            click.echo(
                f"{known} draws with its own decoder again; `mmgen models redecode` gives another",
                err=True,
            )
    for item in losses:
        _print_losses(item)


def _losses(
    path: Path,
    source: Checkpoint,
    vocabularies: tuple[Vocabulary, Vocabulary],
    decoders: tuple[Decoder, Decoder],
    batches: int,
) -> dict[str, Any]:
    """Return losses before and after; shards with the new ids have none before."""
    from mmgen.cli.progress import watched
    from mmgen.data.shards import ShardFolder
    from mmgen.errors import DataError
    from mmgen.evaluate.shards import shard_losses

    old, new = vocabularies
    found = ShardFolder(path).manifest.vocabulary
    if found not in (old.fingerprint, new.fingerprint):
        raise DataError(
            f"{path} was prepared with the vocabulary {found}; expected {old.fingerprint} of the "
            f"checkpoint or {new.fingerprint} of the extended one"
        )
    is_old = found == old.fingerprint

    def measure(decoder: Decoder) -> dict[str, float]:
        return shard_losses(
            decoder,
            old if is_old else new,
            source.text_tokenizer,
            path,
            max_batches=batches,
            progress=watched,
        )

    before = measure(decoders[0]) if is_old else None
    return {"shards": str(path), "before": before, "after": measure(decoders[1])}


def _print_losses(item: dict[str, Any]) -> None:
    click.echo(f"{item['shards']}:")
    before, after = item["before"], item["after"]
    for key in _SHOWN:
        if key in after:
            was = "         -" if before is None else f"{before[key]:10.4f}"
            click.echo(f"  {key.replace('_', ' '):14} before {was}  after {after[key]:10.4f}")


def _parsed(text: str) -> tuple[int, int]:
    from mmgen.errors import SettingsError

    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise SettingsError(f"a size is HEIGHTxWIDTH in pixels, such as 64x64, got {text!r}")
    return int(height), int(width)


def _card(source: Checkpoint, name: str) -> str:
    file = source.path / "MODEL_CARD.md"
    text = file.read_text(encoding="utf-8") if file.is_file() else "# A model\n"
    return (
        f"{text.rstrip()}\n\n## Extended\n\nThe ids of the visual tokenizer `{name}` were added to "
        f"the checkpoint {source.fingerprint}; their rows are not trained.\n"
    )


def _dtype(source: Checkpoint) -> Any:
    """Return the type in which the checkpoint's weights are stored, by name."""
    config = json.loads((source.path / "config.json").read_text(encoding="utf-8"))
    names: Sequence[str] = ("bfloat16", "float32")
    stored = config.get("torch_dtype")
    return stored if stored in names else "float32"
