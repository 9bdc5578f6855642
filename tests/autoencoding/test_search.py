"""The search against the plain argmax over all scores."""

from __future__ import annotations

import pytest
import torch

from mmgen.autoencoding.search import BLOCK_ROWS, BLOCK_SCORES, best_codes, closest_codes


@pytest.mark.parametrize("num_codes", [1, 2, 63, 64, 65, 1000, 4096, 5000])
@pytest.mark.parametrize("num_queries", [1, 7, BLOCK_ROWS + 3])
def test_search_is_complete(num_codes: int, num_queries: int) -> None:
    generator = torch.Generator().manual_seed(num_codes + num_queries)
    # Small integers: products are exact, whatever order they are summed in, and ties are many.
    table = torch.randint(-9, 10, (num_codes, 5), generator=generator).float()
    queries = torch.randint(-9, 10, (num_queries, 5), generator=generator).float()
    assert torch.equal(best_codes(queries, table), (queries @ table.T).argmax(dim=-1))


def test_many_blocks_are_one_search() -> None:
    generator = torch.Generator().manual_seed(1)
    table = torch.randint(-99, 100, (BLOCK_SCORES // 64 + 100, 4), generator=generator).float()
    queries = torch.randint(-99, 100, (130, 4), generator=generator).float()
    assert torch.equal(best_codes(queries, table), (queries @ table.T).argmax(dim=-1))


def test_the_first_of_equal_codes_wins() -> None:
    table = torch.eye(3).repeat(50, 1)
    assert best_codes(torch.eye(3), table).tolist() == [0, 1, 2]


def test_no_queries_have_no_codes() -> None:
    found = best_codes(torch.zeros(0, 4), torch.ones(10, 4))
    assert found.shape == (0,) and found.dtype == torch.int64


def test_the_closest_vector_is_found() -> None:
    generator = torch.Generator().manual_seed(2)
    vectors = torch.randint(-9, 10, (300, 5), generator=generator).float()
    latents = torch.randint(-9, 10, (700, 5), generator=generator).float()
    distances = (latents[:, None] - vectors[None]).square().sum(dim=-1)
    assert torch.equal(closest_codes(latents, vectors), distances.argmin(dim=-1))
