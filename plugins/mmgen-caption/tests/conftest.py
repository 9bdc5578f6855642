"""What the tests of the tokenizer share."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(scope="session")
def small_settings() -> dict[str, Any]:
    """Settings of a network that a test can afford."""
    return {
        "levels": [5, 5, 3],
        "side": 16,
        "painter_widths": [8, 8],
        "max_length": 6,
        "default_length": 4,
        "width": 16,
        "num_heads": 2,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "reader_layers": 1,
        "reader_buckets": 64,
        "reader_summaries": 2,
        "reader_places": 4,
        "forecast_buckets": 64,
    }
