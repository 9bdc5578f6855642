"""Transformer blocks against torch's own on equal weights, and what may be looked at."""

from __future__ import annotations

import torch
from torch import nn

from mmgen.autoencoding import Transformer, TransformerBlock


def copied(block: TransformerBlock, width: int, num_heads: int) -> nn.TransformerEncoderLayer:
    layer = nn.TransformerEncoderLayer(
        width, num_heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
    )
    attention = layer.self_attn
    pairs = (
        (layer.norm1, block.attention_norm),
        (attention.out_proj, block.attended),
        (layer.norm2, block.perceptron_norm),
        (layer.linear1, block.hidden),
        (layer.linear2, block.perceived),
    )
    for theirs, ours in pairs:
        theirs.load_state_dict(ours.state_dict())
    with torch.no_grad():
        attention.in_proj_weight.copy_(block.projections.weight)
        attention.in_proj_bias.copy_(block.projections.bias)
    return layer


def test_a_block_is_an_encoder_layer_of_torch() -> None:
    torch.manual_seed(0)
    block = TransformerBlock(16, 4)
    layer = copied(block, 16, 4)
    features = torch.randn(3, 7, 16)
    assert torch.allclose(block(features), layer(features), atol=1e-5)
    is_present = torch.rand(3, 7) < 0.6
    is_present[:, 0] = True
    masked = layer(features, src_key_padding_mask=~is_present)
    assert torch.allclose(block(features, is_present), masked, atol=1e-5)


def test_what_is_absent_changes_nothing_elsewhere() -> None:
    torch.manual_seed(0)
    transformer = Transformer(16, 2, 2)
    one = torch.randn(2, 5, 16)
    other = one.clone()
    other[:, 3:] = torch.randn(2, 2, 16)
    is_present = torch.tensor([[True, True, True, False, False]] * 2)
    kept, same = (transformer(features, is_present)[:, :3] for features in (one, other))
    assert torch.allclose(kept, same, atol=1e-6)
    assert not torch.allclose(transformer(one)[:, :3], transformer(other)[:, :3], atol=1e-3)
