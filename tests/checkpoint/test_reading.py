"""An opened checkpoint is what was saved, and parts that do not belong together are refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmgen.checkpoint import GenerationDefaults, SamplingDefaults, open_checkpoint
from mmgen.document import Document, Image, Text, Turn
from mmgen.errors import CheckpointError, PluginError, SettingsError, VocabularyError
from mmgen.model import Decoder
from mmgen.text_tokenizer import TextTokenizer, train_bpe
from mmgen.visual_tokenizer import Codes, Grid
from mmgen.vocabulary import Vocabulary


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def test_what_is_opened_is_what_was_saved(
    saved: Path,
    text_tokenizer: TextTokenizer,
    vocabulary: Vocabulary,
    decoder: Decoder,
    generation: GenerationDefaults,
) -> None:
    checkpoint = open_checkpoint(saved)
    assert checkpoint.path == saved
    assert checkpoint.config == decoder.config
    assert checkpoint.vocabulary == vocabulary
    assert checkpoint.generation == generation
    assert checkpoint.text_tokenizer.encode("a red cat") == text_tokenizer.encode("a red cat")
    loaded = checkpoint.load_decoder().state_dict()
    assert all(torch.equal(weight, loaded[name]) for name, weight in decoder.state_dict().items())
    codec = checkpoint.codec()
    assert codec.sizes("palette") == {(32, 32): Grid(4, 4), (64, 64): Grid(8, 8)}
    assert (saved / "MODEL_CARD.md").read_text(encoding="utf-8") == "# A model\n"
    assert not [path for path in saved.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]
    assert open_checkpoint(str(saved)).fingerprint == checkpoint.fingerprint


def test_other_weights_are_refused_with_both_fingerprints(copied: Path) -> None:
    expected = open_checkpoint(copied).weights.sha256
    path = copied / "model.safetensors"
    state = load_file(path)
    state["model.norm.weight"][0] += 1
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"[0-9a-f]{{64}}, expected {expected}"):
        open_checkpoint(copied).load_decoder()


def test_weights_that_were_cut_short_are_refused_with_both_sizes(copied: Path) -> None:
    path = copied / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    with pytest.raises(CheckpointError, match=f"has 1000 bytes, expected {len(whole)}"):
        open_checkpoint(copied).load_decoder()


def test_weights_that_are_no_safetensors_are_refused(copied: Path) -> None:
    path = copied / "model.safetensors"
    path.write_bytes(b"\x80\x04pickle")

    def state_so(manifest: dict[str, Any]) -> None:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        manifest["weights"] = {"sha256": digest, "num_bytes": path.stat().st_size}

    edit_json(copied / "mmgen.json", state_so)
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        open_checkpoint(copied).load_decoder()


@pytest.mark.parametrize("name", ["mmgen.json", "config.json", "model.safetensors"])
def test_a_missing_file_is_named(copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        open_checkpoint(copied)


def test_a_missing_text_tokenizer_is_named(copied: Path) -> None:
    (copied / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        open_checkpoint(copied)


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"format": 1}', '{"format": 7}'])
def test_a_broken_manifest_is_refused(copied: Path, content: str) -> None:
    (copied / "mmgen.json").write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"mmgen\.json"):
        open_checkpoint(copied)


def test_another_text_tokenizer_is_refused_with_both_fingerprints(
    copied: Path, text_tokenizer: TextTokenizer
) -> None:
    other = train_bpe(["quite another text, quite another text"], num_ids=300)
    other.save(copied)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(copied)
    assert other.fingerprint in str(caught.value)
    assert text_tokenizer.fingerprint in str(caught.value)


def test_a_changed_vocabulary_is_refused_with_both_fingerprints(copied: Path) -> None:
    stored = open_checkpoint(copied).vocabulary.fingerprint
    edit_json(copied / "mmgen.json", lambda data: data["vocabulary"].update(num_text_ids=299))
    with pytest.raises(CheckpointError, match=rf"[0-9a-f]{{64}}, but {stored}"):
        open_checkpoint(copied)


def test_a_decoder_of_another_size_is_refused_with_both_sizes(copied: Path) -> None:
    size = open_checkpoint(copied).vocabulary.size
    edit_json(copied / "config.json", lambda data: data.update(vocab_size=1024))
    with pytest.raises(CheckpointError, match=f"has 1024 ids, but the vocabulary has {size}"):
        open_checkpoint(copied)


def test_a_decoder_of_another_shape_is_refused(copied: Path) -> None:
    edit_json(copied / "config.json", lambda data: data.update(hidden_size=48))
    with pytest.raises(CheckpointError, match=r"shape \[\d+, 32\].*\[\d+, 48\]"):
        open_checkpoint(copied).load_decoder()


def test_another_visual_tokenizer_is_refused_with_both_fingerprints(copied: Path) -> None:
    found = open_checkpoint(copied).visual_tokenizers["palette"].fingerprint

    def change(data: dict[str, Any]) -> None:
        data["visual_tokenizers"]["palette"]["fingerprint"] = "f" * 64

    edit_json(copied / "mmgen.json", change)
    checkpoint = open_checkpoint(copied)
    with pytest.raises(CheckpointError, match=f"{found}, expected {'f' * 64}"):
        checkpoint.load_visual_tokenizer("palette")
    with pytest.raises(VocabularyError, match="no tokenizer 'fsq'"):
        checkpoint.load_visual_tokenizer("fsq")


def test_a_missing_plugin_names_the_distribution_to_install(copied: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        entry = {"plugin": "gone", "distribution": "mmgen-gone", "version": "2.1"}
        data["visual_tokenizers"]["palette"].update(entry)

    edit_json(copied / "mmgen.json", change)
    with pytest.raises(CheckpointError, match=r"install mmgen-gone \(version 2\.1"):
        open_checkpoint(copied).load_visual_tokenizer("palette")


def test_missing_weights_of_a_visual_tokenizer_are_named(copied: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        data["visual_tokenizers"]["palette"]["weights"] = "visual_tokenizers/palette"

    edit_json(copied / "mmgen.json", change)
    with pytest.raises(CheckpointError, match=r"lacks .*visual_tokenizers/palette"):
        open_checkpoint(copied).load_visual_tokenizer("palette")


def test_a_name_or_path_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="no model named 'nosuchmodel'"):
        open_checkpoint("nosuchmodel")
    with pytest.raises(CheckpointError, match="no such directory"):
        open_checkpoint(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"is no checkpoint: it has no mmgen\.json"):
        open_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SamplingDefaults(temperature=-1.0), "temperature must be 0 or more, got -1.0"),
        (lambda: SamplingDefaults(top_k=0), "top_k must be 1 or more, got 0"),
        (lambda: SamplingDefaults(top_p=1.5), "top_p must be above 0 and at most 1, got 1.5"),
        (
            lambda: GenerationDefaults(tokenizer="a", guidance_scale=float("nan")),
            "guidance_scale must be 0 or more, got nan",
        ),
        (
            lambda: GenerationDefaults(tokenizer="a", draw_template="draw"),
            "needs {prompt} in it, got 'draw'",
        ),
    ],
)
def test_defaults_outside_their_domain_are_refused(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        make()


def test_documents_with_pictures_round_trip_through_an_opened_checkpoint(saved: Path) -> None:
    codec = open_checkpoint(saved).codec()
    array = torch.arange(16).unsqueeze(1).numpy()
    image = Image(codes=Codes(array, Grid(4, 4)), tokenizer="palette")
    document = Document(turns=(Turn("user", (image, Text("what is this?"))),))
    assert codec.decode(codec.encode(document).ids) == document
