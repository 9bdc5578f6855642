"""A saved checkpoint is whole or not there, and transformers reads it as it is meant."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sentencepiece
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from mmgen.checkpoint import GenerationDefaults, open_checkpoint
from mmgen.document import Document, Text, Turn
from mmgen.errors import CheckpointError, OutputError, VocabularyError
from mmgen.model import Decoder
from mmgen.text_tokenizer import SentencePieceTokenizer, train_bpe
from mmgen.visual_tokenizer import Grid
from mmgen.vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable

    Save = Callable[..., Decoder]


def logits_of(decoder: Decoder, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return decoder.logits(decoder(ids, torch.arange(ids.shape[1]).expand_as(ids)))


def some_ids(size: int) -> torch.Tensor:
    return torch.randint(0, size, (2, 24), generator=torch.Generator().manual_seed(0))


def test_weights_are_stored_in_bfloat16_unless_told(tmp_path: Path, save: Save) -> None:
    decoder = save(tmp_path / "half", dtype="bfloat16")
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


@pytest.mark.parametrize("name", ["decoder", "untied_decoder"])
def test_transformers_loads_it_without_remote_code_and_gives_the_same_logits(
    tmp_path: Path, save: Save, request: pytest.FixtureRequest, name: str
) -> None:
    decoder = request.getfixturevalue(name)
    save(tmp_path / "model", decoder=decoder)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", output_loading_info=True, trust_remote_code=False
    )
    reference, report = loaded
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert type(reference).__name__ == "Qwen3ForCausalLM"
    ids = some_ids(decoder.config.vocab_size)
    with torch.no_grad():
        expected = reference(ids).logits
    assert expected.std() > 0.1
    ours = open_checkpoint(tmp_path / "model").load_decoder()
    for found in (logits_of(ours, ids), logits_of(decoder, ids)):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_transformers_reads_the_type_of_the_weights_and_the_ids_that_end_a_text(
    tmp_path: Path, save: Save
) -> None:
    save(tmp_path / "half", dtype="bfloat16")
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
    tmp_path: Path, save: Save, decoder: Decoder
) -> None:
    corpus = tmp_path / "text.txt"
    corpus.write_text("a red cat\nis it a bird?\n" * 20, encoding="utf-8")
    prefix = corpus.with_name("pieces")
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(prefix), vocab_size=15, minloglevel=2
    )
    tokenizer = SentencePieceTokenizer.load(prefix.with_suffix(".model"))
    vocabulary = Vocabulary.build(
        num_text_ids=tokenizer.num_ids, text_fingerprint=tokenizer.fingerprint
    ).extend("palette", codebook_sizes=(256,), layouts=(Grid(4, 4),))
    fitting = Decoder(replace(decoder.config, vocab_size=vocabulary.size))
    save(tmp_path / "model", text_tokenizer=tokenizer, vocabulary=vocabulary, decoder=fitting)
    checkpoint = open_checkpoint(tmp_path / "model")
    assert checkpoint.text_tokenizer.encode("a red cat") == tokenizer.encode("a red cat")
    assert not (tmp_path / "model" / "tokenizer_config.json").exists()


def test_the_fingerprint_follows_the_weights(tmp_path: Path, save: Save) -> None:
    decoder = save(tmp_path / "one")
    save(tmp_path / "two")
    with torch.no_grad():
        decoder.norm.weight[0] = 1.5
    save(tmp_path / "three", decoder=decoder)
    one, two, three = (
        open_checkpoint(tmp_path / name).fingerprint for name in ("one", "two", "three")
    )
    assert one == two != three


def test_saving_again_replaces_the_checkpoint_as_a_whole(tmp_path: Path, save: Save) -> None:
    path = tmp_path / "model"
    save(path)
    (path / "stale.txt").write_text("old", encoding="utf-8")
    save(path, model_card="second")
    assert (path / "MODEL_CARD.md").read_text(encoding="utf-8") == "second"
    assert not (path / "stale.txt").exists()
    assert [item.name for item in tmp_path.iterdir()] == ["model"]


def test_a_directory_that_is_no_checkpoint_is_never_replaced(tmp_path: Path, save: Save) -> None:
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(OutputError, match="is no checkpoint"):
        save(tmp_path)
    with pytest.raises(OutputError, match="is no checkpoint"):
        save(tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text(encoding="utf-8") == "years of work"
    with pytest.raises(OutputError, match="cannot be written"):
        save(tmp_path / "thesis.txt" / "model")


@pytest.mark.parametrize("limit", [0, 2000, 20000])
def test_a_full_disk_leaves_the_old_checkpoint_and_no_rest(
    tmp_path: Path, save: Save, limit: int
) -> None:
    path = tmp_path / "model"
    save(path)
    before = open_checkpoint(path).fingerprint
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert open_checkpoint(path).fingerprint == before
    assert [item.name for item in tmp_path.iterdir()] == ["model"]


def test_parts_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path: Path, save: Save, decoder: Decoder, vocabulary: Vocabulary
) -> None:
    other = train_bpe(["quite another text, quite another text"], num_ids=300)
    with pytest.raises(CheckpointError, match=rf"has 999 ids.* has {vocabulary.size}"):
        save(tmp_path / "model", decoder=Decoder(replace(decoder.config, vocab_size=999)))
    with pytest.raises(CheckpointError, match=r"\['palette'\], the checkpoint \[\]"):
        save(tmp_path / "model", visual_tokenizers={})
    with pytest.raises(CheckpointError, match=r"'fsq' is to draw"):
        defaults = GenerationDefaults(tokenizer="fsq")
        save(tmp_path / "model", generation=defaults)
    with pytest.raises(VocabularyError, match=f"{other.fingerprint}"):
        save(tmp_path / "model", text_tokenizer=other, vocabulary=vocabulary, decoder=decoder)
    assert list(tmp_path.iterdir()) == []
