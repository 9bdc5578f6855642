"""What the network learns from a teacher, and what it keeps apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmgen.autoencoding import ContrastiveNetwork
from mmgen.testing import draw_picture
from mmgen_semantic import SemanticTokenizer
from mmgen_semantic.network import SemanticNetwork
from mmgen_semantic.quantizer import DualQuantizer


def pictures(num: int = 24) -> torch.Tensor:
    drawn = [torch.from_numpy(draw_picture((16, 16), seed=seed)) for seed in range(num)]
    return torch.stack(drawn).permute(0, 3, 1, 2).contiguous()


def network(settings: dict[str, object]) -> SemanticNetwork:
    found = SemanticTokenizer.untrained(settings, seed=1).network()
    assert isinstance(found, SemanticNetwork)
    return found.train()


def teacher_loss(learner: SemanticNetwork) -> float:
    torch.manual_seed(0)
    loss: torch.Tensor = learner(pictures()).losses["teacher"]
    return loss.item()


def test_the_tower_begins_as_the_teachers(settings: dict[str, object], teacher: Path) -> None:
    learner = network(settings)
    theirs = ContrastiveNetwork.load(teacher).image.state_dict()
    assert learner.encoder is not None
    ours = learner.encoder.tower.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(value, ours[name]) for name, value in theirs.items())


def test_a_look_at_pictures_says_most_of_the_lesson(settings: dict[str, object]) -> None:
    learner = network(settings)
    before = teacher_loss(learner)
    learner.begin(pictures())
    after = teacher_loss(learner)
    assert after < 0.7 * before
    codes = learner.eval()(pictures()).codes
    assert len(torch.unique(codes[..., 0])) >= 10, "k-means gives nearly every code some latents"


def test_training_follows_the_teacher(settings: dict[str, object]) -> None:
    learner = network(settings)
    before = teacher_loss(learner)
    optimizer = torch.optim.Adam(learner.parameters(), lr=5e-3)
    for _ in range(40):
        loss = sum(learner(pictures()).losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert teacher_loss(learner) < 0.7 * before


def test_pixels_do_not_pull_at_meanings(settings: dict[str, object]) -> None:
    learner = network(settings)
    learner(pictures()).reconstruction.square().mean().backward()
    reached = {
        name
        for name, value in learner.named_parameters()
        if value.grad is not None and value.grad.any()
    }
    assert not any(name.startswith(("encoder.tower", "encoder.meaning")) for name in reached)
    assert any(name.startswith("encoder.convolutions") for name in reached)
    assert "decoder.meaning.weight" in reached, "but the decoder may use them"


def test_the_teacher_neither_learns_nor_is_saved(
    settings: dict[str, object], teacher: Path, tmp_path: Path
) -> None:
    tokenizer = SemanticTokenizer.untrained(settings, seed=1)
    names = {name for name, _ in tokenizer.network().named_parameters()}
    assert not any("teacher" in name for name in names)
    tokenizer.save(tmp_path)
    loaded = SemanticTokenizer.load(tmp_path)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert str(teacher) not in (tmp_path / "tokenizer_config.json").read_text(encoding="utf-8")
    # Without a teacher the network still reconstructs, and has nothing to say of a lesson.
    assert "teacher" not in loaded.network().train()(pictures(2)).losses


def test_the_two_codes_are_those_of_their_quantizers() -> None:
    torch.manual_seed(0)
    quantizer = DualQuantizer(12, 4, (5, 5)).eval()
    latents = torch.randn(2, 3, 3, 6)
    found = quantizer(latents)
    assert found.codes.shape == (2, 3, 3, 2) and quantizer.codebook_sizes == (12, 25)
    meaning = torch.nn.functional.layer_norm(latents[..., :4], (4,))
    distances = (meaning.unsqueeze(-2) - quantizer.code_vectors(0)).square().sum(-1)
    assert torch.equal(found.codes[..., 0], distances.argmin(-1))
    assert torch.equal(found.codes[..., 1:], quantizer.pixels(latents[..., 4:]).codes)
    assert torch.allclose(found.vectors, quantizer.vectors(found.codes), atol=1e-6)
    assert torch.equal(quantizer.code_vectors(1), quantizer.pixels.code_vectors(0))


def test_what_is_given_for_training_is_checked() -> None:
    from mmgen.errors import PluginError

    with pytest.raises(PluginError, match="learns from a teacher"):
        SemanticTokenizer.untrained({}, seed=0)
