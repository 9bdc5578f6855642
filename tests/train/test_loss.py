"""The loss and its gradients against torch's own cross-entropy over full logits."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from mmgen.train.loss import IGNORE_INDEX, IMAGE, MARK, TEXT, decoder_loss

NUM_TEXT_IDS, VOCAB_SIZE, WIDTH = 20, 48, 8


def example(
    seed: int, shape: tuple[int, int] = (3, 300)
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(*shape, WIDTH, generator=generator)
    weight = torch.randn(VOCAB_SIZE, WIDTH, generator=generator)
    targets = torch.randint(VOCAB_SIZE, shape, generator=generator)
    modality = (targets >= 30).long()
    ignored = torch.rand(shape, generator=generator) < 0.3
    return hidden, weight, targets.masked_fill(ignored, IGNORE_INDEX), modality


def reference(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    modality: torch.Tensor,
    *,
    normaliser: float,
    image_weight: float,
    z_loss: float,
) -> torch.Tensor:
    logits = (hidden @ weight.T).flatten(0, 1)
    nats = functional.cross_entropy(
        logits, targets.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    )
    scale = torch.where(modality.flatten() == 1, image_weight, 1.0)
    penalty = z_loss * logits.logsumexp(-1).square() * (targets.flatten() != IGNORE_INDEX)
    return (scale * (nats + penalty)).sum() / normaliser


@pytest.mark.parametrize(("image_weight", "z_loss"), [(1.0, 0.0), (0.25, 0.0), (2.0, 1e-2)])
def test_loss_and_gradients_equal_the_reference(image_weight: float, z_loss: float) -> None:
    results = []
    for is_ours in (True, False):
        hidden, weight, targets, modality = example(1)
        hidden.requires_grad_()
        weight.requires_grad_()
        if is_ours:
            loss, _ = decoder_loss(
                hidden,
                weight,
                targets,
                modality,
                num_text_ids=NUM_TEXT_IDS,
                normaliser=100.0,
                image_weight=image_weight,
                z_loss=z_loss,
            )
        else:
            loss = reference(
                hidden,
                weight,
                targets,
                modality,
                normaliser=100.0,
                image_weight=image_weight,
                z_loss=z_loss,
            )
        (3 * loss).backward()  # type: ignore[no-untyped-call]
        results.append((loss.detach(), hidden.grad, weight.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-6)


def test_sums_are_kept_apart_by_kind() -> None:
    hidden, weight, targets, modality = example(2)
    _, sums = decoder_loss(
        hidden, weight, targets, modality, num_text_ids=NUM_TEXT_IDS, normaliser=1.0
    )
    nats = functional.cross_entropy(
        (hidden @ weight.T).flatten(0, 1), targets.flatten(), reduction="none"
    )
    flat = targets.flatten()
    kinds = {
        TEXT: (flat >= 0) & (flat < NUM_TEXT_IDS),
        MARK: (flat >= NUM_TEXT_IDS) & (flat < 30),
        IMAGE: flat >= 30,
    }
    for kind, chosen in kinds.items():
        assert int(sums.counts[kind]) == int(chosen.sum())
        torch.testing.assert_close(sums.nats[kind], nats[chosen].sum(), rtol=1e-4, atol=1e-3)


def test_a_batch_without_targets_has_no_loss_and_no_gradient() -> None:
    hidden, weight, targets, modality = example(3, (1, 5))
    weight.requires_grad_()
    loss, sums = decoder_loss(
        hidden,
        weight,
        torch.full_like(targets, IGNORE_INDEX),
        modality,
        num_text_ids=NUM_TEXT_IDS,
        normaliser=1.0,
    )
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0.0 and sums.counts.tolist() == [0, 0, 0]
    assert weight.grad is not None and not weight.grad.any()


def test_bfloat16_hidden_states_are_close() -> None:
    hidden, weight, targets, modality = example(4)
    exact, _ = decoder_loss(
        hidden, weight, targets, modality, num_text_ids=NUM_TEXT_IDS, normaliser=600.0
    )
    rounded = hidden.bfloat16().requires_grad_()
    loss, _ = decoder_loss(
        rounded, weight, targets, modality, num_text_ids=NUM_TEXT_IDS, normaliser=600.0
    )
    loss.backward()  # type: ignore[no-untyped-call]
    assert rounded.grad is not None and rounded.grad.dtype == torch.bfloat16
    torch.testing.assert_close(loss, exact, rtol=2e-2, atol=0)
