"""A codec of real parts for the tests of data: byte-level BPE and the palette tokenizer."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmgen.document import DocumentCodec
from mmgen.plugins import load_visual_tokenizer_class
from mmgen.text_tokenizer import train_bpe
from mmgen.vocabulary import Vocabulary


@pytest.fixture(scope="session")
def codec() -> DocumentCodec:
    palette = load_visual_tokenizer_class("palette").load()
    text_tokenizer = train_bpe(["draw a red circle", "what is this?"], num_ids=280)
    vocabulary = Vocabulary.build(
        num_text_ids=text_tokenizer.num_ids, text_fingerprint=text_tokenizer.fingerprint
    ).extend(
        "palette",
        codebook_sizes=palette.spec.codebook_sizes,
        layouts=[layout for layout in palette.spec.layouts if layout.num_positions == 16],
    )
    return DocumentCodec(vocabulary, text_tokenizer, {"palette": palette})


def picture_bytes(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def write_pack(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a pack of six rows; columns can be replaced or added."""

    def write(**columns: list[Any]) -> Path:
        content: dict[str, list[Any]] = {
            "id": [f"r{index}" for index in range(6)],
            "webp": [picture_bytes((40 * index, 0, 0)) for index in range(6)],
            "caption": [f"Caption {index}." for index in range(6)],
            "name": ["apple", "pear", None, "plum", "", "fig"],
            "words": [["a", "b"], [], ["c"], None, ["d"], ["e"]],
            "split": ["train", "train", "val", "train", "test", "train"],
            "style": ["flat", "flat", "flat", "round", "round", "flat"],
            "base": ["x", "x", "y", "x", "y", "x"],
            **columns,
        }
        path = tmp_path / "pack.parquet"
        pq.write_table(pa.table(content), path, row_group_size=4)
        return path

    return write
