from __future__ import annotations

from pathlib import Path

import pytest

from mmgen.batch.bench import BatchBenchConfig, Direction, measure_batch
from mmgen.errors import SettingsError


@pytest.mark.parametrize("direction", ["generate", pytest.param("caption", marks=pytest.mark.slow)])
def test_jobs_beside_the_engine_and_a_loop(tiny_checkpoint: Path, direction: Direction) -> None:
    config = BatchBenchConfig(num_rows=12, num_single=2, engine_rows=(4, 8), repeats=1)
    steps: list[str] = []
    found = measure_batch(direction, tiny_checkpoint, config, on_step=steps.append)
    assert (found.direction, found.num_rows) == (direction, 12)
    assert found.best_engine_rows in (4, 8)
    assert found.peak_share == found.rows_per_second / found.peak_rows_per_second
    assert found.loop_ratio == found.rows_per_second / found.loop_rows_per_second
    assert found.halves_ratio > 0
    assert steps[-1] == "two processes"


def test_settings_that_measure_nothing() -> None:
    for wrong in ({"num_rows": 0}, {"repeats": 0}, {"engine_rows": (1,)}, {"engine_rows": ()}):
        with pytest.raises(SettingsError, match="must be 1 or more"):
            BatchBenchConfig(**wrong)
