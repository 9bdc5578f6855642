"""Timing: the right things are timed, and a command that fails is not."""

from __future__ import annotations

import sys

import pytest

from mmgen.errors import EngineError
from mmgen.evaluate.progress import unwatched
from mmgen.evaluate.speed import start_command, tokenizer_speeds
from mmgen.plugins import load_visual_tokenizer_class


def test_a_tokenizer_is_timed_both_ways_at_every_batch_size() -> None:
    palette = load_visual_tokenizer_class("palette").load()
    speeds = tokenizer_speeds(palette, batch_sizes=(1, 3), seconds=0.0, progress=unwatched)
    assert [(speed.operation, speed.batch_size) for speed in speeds] == [
        ("encode", 1),
        ("encode", 3),
        ("decode", 1),
        ("decode", 3),
    ]
    assert all(speed.images_per_second > 0 for speed in speeds)


def test_a_start_has_a_duration_and_a_memory_peak() -> None:
    code = "import time; block = b'x' * (64 << 20); time.sleep(0.05)"
    start = start_command("sleep", [sys.executable, "-c", code], num_runs=2)
    assert (start.name, start.num_runs) == ("sleep", 2)
    assert start.seconds > 0.05
    assert 64 < start.peak_mib < 1024


def test_the_memory_of_whoever_measures_does_not_count() -> None:
    ballast = bytearray(256 << 20)
    start = start_command("nothing", [sys.executable, "-I", "-S", "-c", "pass"], num_runs=1)
    assert start.peak_mib < 64 < len(ballast) / 2**20


def test_a_command_that_fails_is_an_error_with_its_last_words() -> None:
    code = "import sys; sys.exit('first\\nno such model')"
    with pytest.raises(EngineError, match="ended with 1: no such model"):
        start_command("fail", [sys.executable, "-c", code], num_runs=1)
