"""A decoder's shape is checked when it is written down."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mmgen.errors import SettingsError
from mmgen.model import Decoder, DecoderConfig

TINY = DecoderConfig(
    vocab_size=96,
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    intermediate_size=48,
    context_length=24,
)


@pytest.mark.parametrize("tied", [True, False])
def test_num_parameters_is_what_the_decoder_has(tied: bool) -> None:
    config = replace(TINY, tie_word_embeddings=tied)
    decoder = Decoder(config)
    assert config.num_parameters == sum(weight.numel() for weight in decoder.parameters())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("head_dim", 32),
        ("num_layers", 0),
        ("num_kv_heads", 3),
        ("vocab_size", -1),
        ("rope_theta", 0.0),
        ("rms_norm_eps", float("nan")),
    ],
)
def test_a_value_outside_its_domain_is_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(SettingsError, match=field) as caught:
        replace(TINY, **{field: value})  # type: ignore[arg-type]
    assert str(value) in str(caught.value)
