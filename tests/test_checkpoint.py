"""A checkpoint loads as what was saved, here and in transformers, and wrong parts are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from mmgen.checkpoint import (
    GenerationDefaults,
    SamplingDefaults,
    open_checkpoint,
    save_checkpoint,
)
from mmgen.document import Document, Image, Text, Turn
from mmgen.errors import CheckpointError, OutputError, PluginError, SettingsError, VocabularyError
from mmgen.model import Decoder, DecoderConfig, init_weights
from mmgen.plugins import load_visual_tokenizer_class
from mmgen.text_tokenizer import SentencePieceTokenizer, TextTokenizer, train_bpe
from mmgen.visual_tokenizer import Codes, Grid
from mmgen.vocabulary import Vocabulary

SENTENCES = ["draw a red cat", "what is this? it is a cat.", "1234 eggs, naïve café"] * 3
GENERATION = GenerationDefaults(
    tokenizer="palette",
    text=SamplingDefaults(temperature=0.5, top_p=0.9),
    image=SamplingDefaults(top_k=64),
    guidance_scale=3.0,
    draw_template="please draw {prompt}!",
)


def make_vocabulary(text_tokenizer: TextTokenizer) -> Vocabulary:
    vocabulary = Vocabulary.build(
        num_text_ids=text_tokenizer.num_ids, text_fingerprint=text_tokenizer.fingerprint
    )
    layouts = (Grid(4, 4), Grid(8, 8))
    return vocabulary.extend("palette", codebook_sizes=(256,), layouts=layouts)


def make_decoder(vocab_size: int, *, tied: bool = True) -> Decoder:
    decoder = Decoder(
        DecoderConfig(
            vocab_size=vocab_size,
            hidden_size=32,
            num_layers=2,
            num_heads=2,
            num_kv_heads=1,
            intermediate_size=48,
            context_length=128,
            rope_theta=3000.0,
            tie_word_embeddings=tied,
        )
    )
    init_weights(decoder, 1)
    with torch.no_grad():
        for weight in decoder.parameters():
            weight.mul_(4.0 if weight.ndim == 2 else 1.0)
    return decoder


def save(path: Path, text_tokenizer: TextTokenizer, **changes: Any) -> Decoder:
    vocabulary = make_vocabulary(text_tokenizer)
    decoder = changes.pop("decoder", None) or make_decoder(vocabulary.size)
    palette = load_visual_tokenizer_class("palette").load()
    settings: dict[str, Any] = {
        "decoder": decoder,
        "vocabulary": vocabulary,
        "text_tokenizer": text_tokenizer,
        "visual_tokenizers": {"palette": (palette, None)},
        "generation": GENERATION,
        "model_card": "# A model\n",
        "dtype": "float32",
    }
    save_checkpoint(path, **(settings | changes))
    assert isinstance(decoder, Decoder)
    return decoder


@pytest.fixture(scope="module")
def text_tokenizer() -> TextTokenizer:
    return train_bpe(SENTENCES, num_ids=300)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, text_tokenizer: TextTokenizer) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    save(path, text_tokenizer)
    return path


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    """A checkpoint to spoil."""
    return Path(shutil.copytree(saved, tmp_path / "copied"))


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def logits_of(decoder: Decoder, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return decoder.logits(decoder(ids, torch.arange(ids.shape[1]).expand_as(ids)))


def some_ids(size: int) -> torch.Tensor:
    return torch.randint(0, size, (2, 24), generator=torch.Generator().manual_seed(0))


def test_what_is_opened_is_what_was_saved(saved: Path, text_tokenizer: TextTokenizer) -> None:
    vocabulary = make_vocabulary(text_tokenizer)
    decoder = make_decoder(vocabulary.size)
    checkpoint = open_checkpoint(saved)
    assert checkpoint.path == saved
    assert checkpoint.config == decoder.config
    assert checkpoint.vocabulary == vocabulary
    assert checkpoint.generation == GENERATION
    assert checkpoint.text_tokenizer.encode("a red cat") == text_tokenizer.encode("a red cat")
    loaded = checkpoint.load_decoder().state_dict()
    assert all(torch.equal(weight, loaded[name]) for name, weight in decoder.state_dict().items())
    codec = checkpoint.codec()
    codes = Codes(codec.grammar.vocabulary.codes("palette", range(310, 310)), Grid(4, 4))
    assert not codes.is_complete
    assert codec.sizes("palette") == {(32, 32): Grid(4, 4), (64, 64): Grid(8, 8)}
    assert (saved / "MODEL_CARD.md").read_text(encoding="utf-8") == "# A model\n"
    assert not [path for path in saved.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]
    assert open_checkpoint(str(saved)).fingerprint == checkpoint.fingerprint


def test_weights_are_stored_in_bfloat16_unless_told(
    tmp_path: Path, text_tokenizer: TextTokenizer
) -> None:
    decoder = save(tmp_path / "half", text_tokenizer, dtype="bfloat16")
    stored = load_file(tmp_path / "half" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    checkpoint = open_checkpoint(tmp_path / "half")
    full, half = checkpoint.load_decoder(), checkpoint.load_decoder(torch.bfloat16)
    assert full.embedding.weight.dtype == torch.float32
    assert half.embedding.weight.dtype == torch.bfloat16
    torch.testing.assert_close(full.embedding.weight, half.embedding.weight.float())
    torch.testing.assert_close(
        full.embedding.weight, decoder.embedding.weight, rtol=2**-8, atol=0.0
    )


@pytest.mark.parametrize("tied", [True, False])
def test_transformers_loads_it_without_remote_code_and_gives_the_same_logits(
    tmp_path: Path, text_tokenizer: TextTokenizer, tied: bool
) -> None:
    size = make_vocabulary(text_tokenizer).size
    decoder = save(tmp_path / "model", text_tokenizer, decoder=make_decoder(size, tied=tied))
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", output_loading_info=True, trust_remote_code=False
    )
    reference, report = loaded
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert type(reference).__name__ == "Qwen3ForCausalLM"
    ids = some_ids(size)
    with torch.no_grad():
        expected = reference(ids).logits
    assert expected.std() > 0.1
    ours = open_checkpoint(tmp_path / "model").load_decoder()
    for found in (logits_of(ours, ids), logits_of(decoder, ids)):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_transformers_reads_the_type_of_the_weights_and_the_ids_that_end_a_text(
    tmp_path: Path, text_tokenizer: TextTokenizer
) -> None:
    save(tmp_path / "half", text_tokenizer, dtype="bfloat16")
    reference = AutoModelForCausalLM.from_pretrained(tmp_path / "half", dtype="auto")
    assert reference.dtype == torch.bfloat16
    vocabulary = open_checkpoint(tmp_path / "half").vocabulary
    defaults = GenerationConfig.from_pretrained(tmp_path / "half")
    assert defaults.eos_token_id == [vocabulary.end_id, vocabulary.eos_id]
    assert defaults.pad_token_id == reference.config.pad_token_id == vocabulary.pad_id
    assert reference.config.bos_token_id == vocabulary.bos_id


@pytest.mark.parametrize(
    "texts",
    [
        ["draw a red cat"],
        ["draw a cat", "here it is\n", "  and a dog? naïve 1234 \U0001f408"],
        ["", " "],
        ["a\n\nb", "{{ c }} <b>", "d"],
    ],
)
def test_the_chat_template_spells_turns_as_the_grammar_does(saved: Path, texts: list[str]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(saved)
    codec = open_checkpoint(saved).codec()
    roles = ["user", "assistant"] * len(texts)
    turns = tuple(
        Turn("user" if role == "user" else "assistant", (Text(text),))
        for role, text in zip(roles, texts, strict=False)
    )
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    parts: list[Any] = [
        {"role": item["role"], "content": [{"type": "text", "text": item["content"]}]}
        for item in messages
    ]
    is_prompt = turns[-1].role == "user"
    expected = codec.encode_prompt(Document(turns=turns))
    if not is_prompt:
        expected.append(codec.vocabulary.end_id)
    for form in (messages, parts):
        found = tokenizer.apply_chat_template(
            form, add_generation_prompt=is_prompt, return_dict=False
        )
        assert found == expected


def test_the_tokenizer_of_transformers_has_every_special_token_at_its_id(saved: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(saved)
    vocabulary = open_checkpoint(saved).vocabulary
    for token, id_ in vocabulary.special_tokens.items():
        assert tokenizer.convert_tokens_to_ids(token) == id_
        assert tokenizer.encode(f"a{token}b", add_special_tokens=False)[1] == id_
    assert tokenizer.eos_token_id == vocabulary.eos_id
    assert tokenizer.pad_token_id == vocabulary.pad_id
    assert tokenizer.decode(tokenizer.encode("a red cat")) == "a red cat"


def test_the_chat_template_refuses_what_it_cannot_spell(saved: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(saved)
    with pytest.raises(Exception, match="roles are user and assistant, got system"):
        tokenizer.apply_chat_template([{"role": "system", "content": "be brief"}])
    picture: Any = [{"type": "image", "url": "cat.png"}]
    with pytest.raises(Exception, match="pictures need mmgen"):
        tokenizer.apply_chat_template([{"role": "user", "content": picture}])


def test_a_sentencepiece_text_tokenizer_is_stored_as_its_model(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    corpus = tmp_path_factory.mktemp("corpus") / "text.txt"
    corpus.write_text("\n".join(SENTENCES * 20), encoding="utf-8")
    prefix = corpus.with_name("pieces")
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(prefix), vocab_size=30, minloglevel=2
    )
    tokenizer = SentencePieceTokenizer.load(prefix.with_suffix(".model"))
    save(tmp_path / "model", tokenizer)
    checkpoint = open_checkpoint(tmp_path / "model")
    assert checkpoint.text_tokenizer.encode("a red cat") == tokenizer.encode("a red cat")
    assert not (tmp_path / "model" / "tokenizer_config.json").exists()


def test_the_fingerprint_follows_the_weights(tmp_path: Path, text_tokenizer: TextTokenizer) -> None:
    decoder = save(tmp_path / "one", text_tokenizer)
    save(tmp_path / "two", text_tokenizer)
    with torch.no_grad():
        decoder.norm.weight[0] = 1.5
    save(tmp_path / "three", text_tokenizer, decoder=decoder)
    one, two, three = (
        open_checkpoint(tmp_path / name).fingerprint for name in ("one", "two", "three")
    )
    assert one == two != three


def test_saving_again_replaces_the_checkpoint_as_a_whole(
    tmp_path: Path, text_tokenizer: TextTokenizer
) -> None:
    path = tmp_path / "model"
    save(path, text_tokenizer)
    (path / "stale.txt").write_text("old", encoding="utf-8")
    save(path, text_tokenizer, model_card="second")
    assert (path / "MODEL_CARD.md").read_text(encoding="utf-8") == "second"
    assert not (path / "stale.txt").exists()
    assert [item.name for item in tmp_path.iterdir()] == ["model"]


def test_a_directory_that_is_no_checkpoint_is_never_replaced(
    tmp_path: Path, text_tokenizer: TextTokenizer
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(OutputError, match="is no checkpoint"):
        save(tmp_path, text_tokenizer)
    with pytest.raises(OutputError, match="is no checkpoint"):
        save(tmp_path / "thesis.txt", text_tokenizer)
    assert (tmp_path / "thesis.txt").read_text(encoding="utf-8") == "years of work"
    with pytest.raises(OutputError, match="cannot be written"):
        save(tmp_path / "thesis.txt" / "model", text_tokenizer)


def test_a_failed_save_leaves_the_old_checkpoint_and_no_rest(
    tmp_path: Path, text_tokenizer: TextTokenizer
) -> None:
    path = tmp_path / "model"
    save(path, text_tokenizer)
    before = open_checkpoint(path).fingerprint
    with pytest.raises(OutputError, match="cannot be written"):
        save(path, _Unwritable(text_tokenizer))
    assert open_checkpoint(path).fingerprint == before
    assert [item.name for item in tmp_path.iterdir()] == ["model"]


class _Unwritable(TextTokenizer):
    """A text tokenizer on a disk that is full."""

    def __init__(self, inner: TextTokenizer) -> None:
        self._inner = inner
        self.encode = inner.encode  # type: ignore[method-assign]
        self.decode = inner.decode  # type: ignore[method-assign]
        self.decode_stream = inner.decode_stream  # type: ignore[method-assign]

    @property
    def num_ids(self) -> int:
        return self._inner.num_ids

    @property
    def fingerprint(self) -> str:
        return self._inner.fingerprint

    def encode(self, text: str) -> list[int]:
        raise NotImplementedError

    def decode(self, ids: Any) -> str:
        raise NotImplementedError

    def decode_stream(self) -> Any:
        raise NotImplementedError

    def save(self, directory: Path, *, special_tokens: Any = None) -> None:
        raise OSError(28, "No space left on device")


def test_parts_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path: Path, text_tokenizer: TextTokenizer
) -> None:
    other = train_bpe(["quite another text, quite another text"], num_ids=300)
    vocabulary = make_vocabulary(text_tokenizer)
    with pytest.raises(CheckpointError, match=rf"has 999 ids.* has {vocabulary.size}"):
        save(tmp_path / "model", text_tokenizer, decoder=make_decoder(999))
    with pytest.raises(CheckpointError, match=r"\['palette'\], the checkpoint \[\]"):
        save(tmp_path / "model", text_tokenizer, visual_tokenizers={})
    with pytest.raises(CheckpointError, match=r"'fsq' is to draw"):
        defaults = GenerationDefaults(tokenizer="fsq")
        save(tmp_path / "model", text_tokenizer, generation=defaults)
    with pytest.raises(VocabularyError, match=f"{other.fingerprint}"):
        save(
            tmp_path / "model",
            other,
            vocabulary=vocabulary,
            decoder=make_decoder(vocabulary.size),
        )
    assert list(tmp_path.iterdir()) == []


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
        import hashlib

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
