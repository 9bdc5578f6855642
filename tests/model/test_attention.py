"""Every way of computing attention gives what the definition gives."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from einops import repeat

from mmgen.model.attention import (
    CausalPlan,
    FlashPlan,
    MaskPlan,
    XformersPlan,
    attend,
    document_starts,
    plan_attention,
)

DOCUMENTS = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2], [7, 7, 7, 7, 7, 7, 7, 8]])


def by_definition(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, document_ids: torch.Tensor
) -> torch.Tensor:
    group = query.shape[2] // key.shape[2]
    key = repeat(key, "b t h d -> b t (h g) d", g=group)
    value = repeat(value, "b t h d -> b t (h g) d", g=group)
    scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / query.shape[-1] ** 0.5
    index = torch.arange(query.shape[1], device=query.device)
    visible = (index[:, None] >= index) & (document_ids[:, :, None] == document_ids[:, None, :])
    scores = scores.masked_fill(~visible[:, None], -torch.inf)
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), value)


def random_heads(num_kv_heads: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(2, 8, 4, 64, generator=generator)
    key, value = torch.randn(2, 2, 8, num_kv_heads, 64, generator=generator)
    return query, key, value


@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
def test_packed_attention_is_its_definition(num_kv_heads: int) -> None:
    query, key, value = random_heads(num_kv_heads)
    plan = plan_attention(DOCUMENTS, query.dtype)
    assert isinstance(plan, MaskPlan)
    expected = by_definition(query, key, value, DOCUMENTS)
    torch.testing.assert_close(attend(query, key, value, plan), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_kv_heads", [1, 4])
def test_causal_attention_is_its_definition(num_kv_heads: int) -> None:
    query, key, value = random_heads(num_kv_heads)
    plan = plan_attention(None, query.dtype)
    assert isinstance(plan, CausalPlan)
    expected = by_definition(query, key, value, torch.zeros_like(DOCUMENTS))
    torch.testing.assert_close(attend(query, key, value, plan), expected, rtol=1e-5, atol=1e-5)


def test_documents_laid_end_to_end_start_where_the_id_changes_and_at_each_row() -> None:
    assert document_starts(DOCUMENTS).tolist() == [0, 3, 5, 8, 15, 16]
    assert document_starts(torch.zeros(2, 3)).tolist() == [0, 3, 6]


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("package", "kind"), [("flash_attn", FlashPlan), ("xformers", XformersPlan)]
)
def test_gpu_kernels_are_the_definition(package: str, kind: type) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if find_spec(package) is None or (package == "xformers" and find_spec("flash_attn")):
        pytest.skip(f"{package} is not the installed kernel")
    query, key, value = (heads.cuda().bfloat16() for heads in random_heads(2))
    documents = DOCUMENTS.cuda()
    plan = plan_attention(documents, query.dtype)
    assert isinstance(plan, kind)
    expected = by_definition(query.float(), key.float(), value.float(), documents)
    torch.testing.assert_close(
        attend(query, key, value, plan).float(), expected, rtol=2e-2, atol=2e-2
    )


@pytest.mark.gpu
def test_without_those_packages_a_gpu_uses_a_mask() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    assert isinstance(plan_attention(DOCUMENTS.cuda(), torch.float32), MaskPlan)
