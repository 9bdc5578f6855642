"""The loss and its gradients against torch's own cross-entropy over the logits of a group."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from mmgen.train.alternatives import Alternatives
from mmgen.train.loss import IGNORE_INDEX, IMAGE, MARK, TEXT, decoder_loss
from mmgen.visual_tokenizer import Ordered
from mmgen.vocabulary import Vocabulary

NUM_TEXT_IDS, WIDTH = 20, 8
# Words, 8 marks and the marker of a tokenizer, its 3 shape ids, its two codebooks.
ONE = Vocabulary.build(num_text_ids=NUM_TEXT_IDS, text_fingerprint="").extend(
    "one", codebook_sizes=(9, 5), layouts=(Ordered(3), Ordered(1))
)
# The marker of the second one lies behind the codes of the first.
TWO = ONE.extend("two", codebook_sizes=(7,), layouts=(Ordered(2),))
GROUPS = {
    ONE.fingerprint: [[*range(29)], [*range(29, 32)], [*range(32, 41)], [*range(41, 46)]],
    TWO.fingerprint: [
        [*range(29), 46],
        [*range(29, 32)],
        [*range(32, 41)],
        [*range(41, 46)],
        [*range(47, 54)],
    ],
}
both = pytest.mark.parametrize("vocabulary", [ONE, TWO], ids=["one", "two"])


def example(
    vocabulary: Vocabulary, seed: int, shape: tuple[int, int] = (3, 500)
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(*shape, WIDTH, generator=generator)
    weight = torch.randn(vocabulary.size, WIDTH, generator=generator)
    targets = torch.randint(vocabulary.num_used_ids, shape, generator=generator)
    modality = (targets >= 29).long()
    ignored = torch.rand(shape, generator=generator) < 0.3
    return hidden, weight, targets.masked_fill(ignored, IGNORE_INDEX), modality


def group_logits(
    vocabulary: Vocabulary, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Return all logits, those of ids that may not stand in a target's place minus infinity."""
    may_stand = torch.eye(vocabulary.size, dtype=torch.bool)
    for ids in GROUPS[vocabulary.fingerprint]:
        for id_ in ids:
            may_stand[id_, ids] = True
    logits = (hidden @ weight.T).flatten(0, 1)
    allowed = may_stand[targets.flatten().clamp_min(0)]
    return logits.masked_fill(~allowed, -torch.inf)


def reference(
    vocabulary: Vocabulary,
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    modality: torch.Tensor,
    *,
    normaliser: float,
    image_weight: float,
    z_loss: float,
) -> torch.Tensor:
    logits = group_logits(vocabulary, hidden, weight, targets)
    nats = functional.cross_entropy(
        logits, targets.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    )
    scale = torch.where(modality.flatten() == 1, image_weight, 1.0)
    penalty = z_loss * logits.logsumexp(-1).square() * (targets.flatten() != IGNORE_INDEX)
    return (scale * (nats + penalty)).sum() / normaliser


@both
@pytest.mark.parametrize(("image_weight", "z_loss"), [(1.0, 0.0), (0.25, 0.0), (2.0, 1e-2)])
def test_loss_and_gradients_equal_the_reference(
    vocabulary: Vocabulary, image_weight: float, z_loss: float
) -> None:
    results = []
    for is_ours in (True, False):
        hidden, weight, targets, modality = example(vocabulary, 1)
        hidden.requires_grad_()
        weight.requires_grad_()
        if is_ours:
            loss, _ = decoder_loss(
                hidden,
                weight,
                targets,
                modality,
                alternatives=Alternatives.of(vocabulary),
                num_text_ids=NUM_TEXT_IDS,
                normaliser=100.0,
                image_weight=image_weight,
                z_loss=z_loss,
            )
        else:
            loss = reference(
                vocabulary,
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


@both
def test_sums_are_kept_apart_by_kind(vocabulary: Vocabulary) -> None:
    hidden, weight, targets, modality = example(vocabulary, 2)
    _, sums = decoder_loss(
        hidden,
        weight,
        targets,
        modality,
        alternatives=Alternatives.of(vocabulary),
        num_text_ids=NUM_TEXT_IDS,
        normaliser=1.0,
    )
    flat = targets.flatten()
    nats = functional.cross_entropy(
        group_logits(vocabulary, hidden, weight, targets), flat, reduction="none"
    )
    kinds = {
        TEXT: (flat >= 0) & (flat < NUM_TEXT_IDS),
        MARK: (flat >= NUM_TEXT_IDS) & (flat < 29),
        IMAGE: flat >= 29,
    }
    for kind, chosen in kinds.items():
        assert int(sums.counts[kind]) == int(chosen.sum())
        torch.testing.assert_close(sums.nats[kind], nats[chosen].sum(), rtol=1e-4, atol=1e-3)


@both
def test_logits_are_those_of_the_groups_of_the_targets(vocabulary: Vocabulary) -> None:
    hidden, weight, targets, modality = example(vocabulary, 5)
    _, sums = decoder_loss(
        hidden,
        weight,
        targets,
        modality,
        alternatives=Alternatives.of(vocabulary),
        num_text_ids=NUM_TEXT_IDS,
        normaliser=1.0,
    )
    flat = targets[targets != IGNORE_INDEX]
    logits = group_logits(vocabulary, hidden, weight, targets)
    finite = logits[targets.flatten() != IGNORE_INDEX].isfinite()
    assert len(finite) == len(flat) and sums.num_logits == int(finite.sum())


def test_ids_that_may_not_stand_there_learn_nothing() -> None:
    hidden, weight, targets, modality = example(TWO, 6)
    weight.requires_grad_()
    codes = torch.where(targets >= 47, targets, IGNORE_INDEX)
    loss, _ = decoder_loss(
        hidden,
        weight,
        codes,
        modality,
        alternatives=Alternatives.of(TWO),
        num_text_ids=NUM_TEXT_IDS,
        normaliser=1.0,
    )
    loss.backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    touched = weight.grad.abs().sum(dim=1) > 0
    assert touched.nonzero().flatten().tolist() == [*range(47, 54)]


def test_a_batch_without_targets_has_no_loss_and_no_gradient() -> None:
    hidden, weight, targets, modality = example(ONE, 3, (1, 5))
    hidden.requires_grad_()
    weight.requires_grad_()
    loss, sums = decoder_loss(
        hidden,
        weight,
        torch.full_like(targets, IGNORE_INDEX),
        modality,
        alternatives=Alternatives.of(ONE),
        num_text_ids=NUM_TEXT_IDS,
        normaliser=1.0,
    )
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0.0 and sums.counts.tolist() == [0, 0, 0]
    assert sums.nats.tolist() == [0, 0, 0] and sums.num_logits == 0
    assert weight.grad is not None and not weight.grad.any()
    assert hidden.grad is not None and not hidden.grad.any()


def test_bfloat16_hidden_states_are_close() -> None:
    hidden, weight, targets, modality = example(TWO, 4)
    alternatives = Alternatives.of(TWO)
    exact, _ = decoder_loss(
        hidden,
        weight,
        targets,
        modality,
        alternatives=alternatives,
        num_text_ids=NUM_TEXT_IDS,
        normaliser=1000.0,
    )
    rounded = hidden.bfloat16().requires_grad_()
    loss, _ = decoder_loss(
        rounded,
        weight,
        targets,
        modality,
        alternatives=alternatives,
        num_text_ids=NUM_TEXT_IDS,
        normaliser=1000.0,
    )
    loss.backward()  # type: ignore[no-untyped-call]
    assert rounded.grad is not None and rounded.grad.dtype == torch.bfloat16
    torch.testing.assert_close(loss, exact, rtol=2e-2, atol=0)
