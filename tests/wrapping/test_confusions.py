"""What is drawn in the place of what: counted, kept in a file, and drawn from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmgen.errors import PluginError
from mmgen.wrapping.confusions import (
    count_confusions,
    exchanged,
    read_confusions,
    write_confusions,
)

TRUE = torch.tensor([[0, 0, 0, 0, 0, 0, 2, 2]]).unsqueeze(-1)
DRAWN = torch.tensor([[1, 1, 1, 3, 3, 0, 2, 1]]).unsqueeze(-1)


def test_rows_hold_what_was_drawn_most_often_first() -> None:
    table = count_confusions(TRUE, DRAWN, (4,), num_candidates=2)
    assert table.codes[0][0].tolist() == [1, 3]
    assert table.shares[0][0].tolist() == pytest.approx([0.6, 0.4])
    assert sorted(table.codes[0][2].tolist()) == [1, 2]
    assert table.shares[0][[1, 3]].sum() == 0
    whole = count_confusions(TRUE, DRAWN, (4,))
    # Seven in eight positions were others; a code counts as one, however often it occurs.
    assert whole.error_rate == pytest.approx(1 - (1 / 6 + 1 / 2) / 2)


def test_codebooks_are_counted_apart() -> None:
    true, drawn = torch.tensor([[[0, 5]]]), torch.tensor([[[1, 4]]])
    table = count_confusions(true, drawn, (2, 6))
    assert table.codes[0][0, 0] == 1 and table.codes[1][5, 0] == 4


def test_codes_are_exchanged_as_the_table_says() -> None:
    table = count_confusions(TRUE, DRAWN, (4,))
    torch.manual_seed(0)
    codes = torch.zeros(500, 8, 1, dtype=torch.int64)
    all_drawn = exchanged(codes, 1.0, table)
    shares = torch.bincount(all_drawn.flatten(), minlength=4) / all_drawn.numel()
    assert shares.tolist() == pytest.approx([1 / 6, 3 / 6, 0, 2 / 6], abs=0.03)
    some = exchanged(codes, 0.2, table)
    assert (some != 0).float().mean().item() == pytest.approx(0.2 * 5 / 6, abs=0.02)
    assert exchanged(codes, 0.0, table).equal(codes)


def test_codes_that_the_table_does_not_know_come_from_elsewhere() -> None:
    table = count_confusions(TRUE, DRAWN, (4,))
    codes = torch.tensor([[1, 3] * 50]).unsqueeze(-1)
    torch.manual_seed(0)
    found = exchanged(codes, 1.0, table)
    assert set(found.flatten().tolist()) == {1, 3}
    assert not found.equal(codes) and not exchanged(codes, 1.0, None).equal(codes)


def test_a_file_is_of_one_tokenizer(tmp_path: Path) -> None:
    table, path = count_confusions(TRUE, DRAWN, (4,)), tmp_path / "confusions.safetensors"
    write_confusions(table, path, fingerprint="a" * 64, model="b" * 64)
    again = read_confusions(path, "a" * 64)
    assert again.codes[0].equal(table.codes[0]) and again.shares[0].equal(table.shares[0])
    with pytest.raises(PluginError, match=f"are of the tokenizer {'a' * 64}, but {'c' * 64} is"):
        read_confusions(path, "c" * 64)
    path.write_bytes(b"nothing")
    with pytest.raises(PluginError, match="cannot be read"):
        read_confusions(path, "a" * 64)
