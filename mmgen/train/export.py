"""From trained weights to a checkpoint directory, at the end of a run or at any time during it."""

from __future__ import annotations

from pathlib import Path

from mmgen.checkpoint import save_checkpoint
from mmgen.errors import CheckpointError, SettingsError
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
        generation=config.generation_defaults,
        model_card=_model_card(config, decoder, vocabulary),
        dtype=config.dtype,
    )


def _model_card(config: ExportConfig, decoder: Decoder, vocabulary: Vocabulary) -> str:
    if config.model_card is not None:
        try:
            return config.model_card.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"export.model_card {config.model_card} cannot be read: {error}"
            ) from error
    names = ", ".join(vocabulary.tokenizers) or "none"
    return (
        "# A decoder over text and visual codes\n\n"
        f"- parameters: {decoder.config.num_parameters:,}\n"
        f"- token ids: {vocabulary.num_used_ids:,}, of which text {vocabulary.num_text_ids:,}\n"
        f"- visual tokenizers: {names}\n"
        f"- context length: {decoder.config.context_length}\n"
    )
