"""From trained weights to a checkpoint directory, at the end of a run or at any time during it."""

from __future__ import annotations

from pathlib import Path

from mmgen.errors import CheckpointError
from mmgen.model import Decoder
from mmgen.plugins import load_visual_tokenizer_class
from mmgen.text_tokenizer import load_text_tokenizer
from mmgen.train.config import ExportConfig, TrainConfig
from mmgen.train.state import latest_state, load_decoder
from mmgen.vocabulary import Vocabulary

__all__ = ["export_decoder", "export_run", "load_vocabulary"]


def load_vocabulary(path: Path) -> Vocabulary:
    """Read a vocabulary from its JSON file."""
    try:
        return Vocabulary.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"no vocabulary at {path} ({error.strerror}); prepare the data first"
        ) from error


def export_run(config: TrainConfig, path: Path) -> int:
    """Export the newest saved state of a run, which may be going on; return its step.

    Args:
        path: the checkpoint directory to write, replaced as a whole.
    """
    state = latest_state(config.output / "state")
    if state is None:
        raise CheckpointError(f"{config.output} holds no saved state yet; train first")
    decoder = Decoder(config.decoder)
    step = load_decoder(state, decoder)
    export_decoder(decoder, load_vocabulary(config.export.vocabulary), config.export, path)
    return step


def export_decoder(
    decoder: Decoder, vocabulary: Vocabulary, config: ExportConfig, path: Path
) -> None:
    """Write a whole checkpoint directory, replacing what is there."""
    from mmgen.checkpoint import GenerationDefaults, save_checkpoint

    tokenizers = {
        source.name: (load_visual_tokenizer_class(source.name).load(source.path), source.path)
        for source in config.visual_tokenizers
    }
    save_checkpoint(
        path,
        decoder=decoder,
        vocabulary=vocabulary,
        text_tokenizer=load_text_tokenizer(config.text_tokenizer),
        visual_tokenizers=tokenizers,
        generation=GenerationDefaults(),
        model_card="",
        dtype=config.dtype,
    )
