"""One processor behind both of vLLM's interfaces, told of the same rows in their two ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("vllm", reason="vLLM is not installed; .ci/run tests this with it")

from vllm import SamplingParams as VllmSamplingParams
from vllm.v1.sample.logits_processor import LogitsProcessors
from vllm.v1.sample.logits_processor.interface import BatchUpdate, MoveDirectionality
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsContext
from vllm.v1.worker.gpu.sample.logits_processor.loader import (
    build_custom_logits_processors_params_validator,
)

from mmgen.generate.engine import Constraint, SamplingParams
from mmgen.generate.vllm_logits import GuidedChoice
from mmgen.generate.vllm_rows import RowChooser, RowParams

pytestmark = pytest.mark.filterwarnings("ignore")

SIZE = 40
NAME = "mmgen.generate.vllm_logits:GuidedChoice"
GUIDED = RowParams(
    constraint=Constraint(((range(10, 30),),)),
    sampling=SamplingParams(temperature=0.7),
    seed=3,
    gang="0.0",
    num_parts=2,
    guidance_scale=3.0,
    withdrawal_id=0,
)
BLANK = replace(GUIDED, part=1)
PLAIN = RowParams(
    constraint=Constraint(((range(1, 9),), (range(30, 40),))),
    sampling=SamplingParams(top_p=0.8),
    seed=4,
)


def asked(row: RowParams | None) -> VllmSamplingParams:
    return VllmSamplingParams(extra_args=row.to_extra_args() if row else None)


def scores(rows: int) -> torch.Tensor:
    return torch.randn(rows, SIZE, generator=torch.Generator().manual_seed(rows))


def wanted(rows: list[RowParams | None], counts: list[int], **ready: Any) -> torch.Tensor:
    chooser = RowChooser("cpu")
    chooser.seat(rows)
    logits = scores(len(rows))
    chooser.apply(logits, np.array(counts), **ready)
    return logits


class Slots:
    """The newer interface, with requests in slots and rows in any order."""

    def __init__(self, prompts: Mapping[int, int], fed: Mapping[int, int] | None = None) -> None:
        prompt_len, prefill_len = np.zeros(8, np.int32), np.zeros(8, np.int32)
        for slot, length in prompts.items():
            prompt_len[slot] = prefill_len[slot] = length
        for slot, length in (fed or {}).items():
            prefill_len[slot] = length
        states = SimpleNamespace(
            device=torch.device("cpu"),
            prompt_len=SimpleNamespace(np=prompt_len),
            prefill_len=SimpleNamespace(np=prefill_len),
        )
        config = SimpleNamespace(parallel_config=SimpleNamespace())
        self.processor = GuidedChoice(config, states)

    def apply(self, slots: list[int], lengths: list[int]) -> torch.Tensor:
        mapping = torch.tensor(slots)
        context = LogitsContext(
            expanded_idx_mapping=mapping,
            idx_mapping=mapping,
            idx_mapping_np=np.array(slots, np.int32),
            expanded_local_pos=torch.zeros(len(slots)),
            input_ids=torch.zeros(len(slots)),
            pos=torch.tensor(lengths) - 1,
            seq_lens_upper_bound_np=np.array(lengths, np.int32),
        )
        return self.processor.apply(scores(len(slots)), context)


def test_rows_of_the_older_interface_enter_leave_and_move() -> None:
    processor = GuidedChoice(None, torch.device("cpu"), False)
    outputs: dict[str, list[int]] = {"guided": [], "blank": [], "plain": [], "foreign": []}
    processor.update_state(
        BatchUpdate(
            batch_size=4,
            removed=[],
            added=[
                (0, asked(PLAIN), [1], outputs["plain"]),
                (1, asked(GUIDED), [1], outputs["guided"]),
                (2, asked(None), [1], outputs["foreign"]),
                (3, asked(BLANK), [1], outputs["blank"]),
            ],
            moved=[],
        )
    )
    four = [PLAIN, GUIDED, None, BLANK]
    assert torch.equal(processor.apply(scores(4)), wanted(four, [0, 0, 0, 0]))
    for ids in outputs.values():
        ids += [11, 12]
    processor.update_state(None)
    assert torch.equal(processor.apply(scores(4)), wanted(four, [2, 2, 2, 2]))
    swap, one_way = MoveDirectionality.SWAP, MoveDirectionality.UNIDIRECTIONAL
    processor.update_state(
        BatchUpdate(batch_size=3, removed=[2], added=[], moved=[(3, 2, one_way), (0, 1, swap)])
    )
    assert torch.equal(processor.apply(scores(3)), wanted([GUIDED, PLAIN, BLANK], [2, 2, 2]))
    outputs["blank"].append(13)
    assert torch.equal(processor.apply(scores(3)), wanted([GUIDED, PLAIN, BLANK], [2, 2, 3]))
    processor.update_state(BatchUpdate(batch_size=1, removed=[1, 2], added=[], moved=[]))
    (left,) = torch.nonzero(processor.apply(scores(1))[0] == 0, as_tuple=True)
    assert left.tolist() == [GUIDED.withdrawal_id]


def test_rows_of_the_newer_interface_stand_in_any_order() -> None:
    slots = Slots({0: 5, 2: 5, 3: 9})
    assert slots.processor.add_request(2, asked(GUIDED))
    assert slots.processor.add_request(0, asked(BLANK))
    assert slots.processor.add_request(3, asked(PLAIN))
    assert not slots.processor.add_request(1, asked(None))
    first = slots.apply([2, 1, 0, 3], [5, 7, 5, 10])
    assert torch.equal(
        first, wanted([GUIDED, None, BLANK, PLAIN], [0, 0, 0, 1], is_ready=np.ones(4, bool))
    )
    second = slots.apply([3, 0, 2], [11, 6, 6])
    assert torch.equal(second, wanted([PLAIN, BLANK, GUIDED], [2, 1, 1]))
    third = slots.apply([3, 0, 2], [12, 7, 6])
    assert torch.equal(third, wanted([PLAIN, BLANK, GUIDED], [3, 2, 1]))
    assert third[1, 0] == third[2, 0] == 0


def test_a_slot_forgets_who_had_it() -> None:
    slots = Slots({0: 5, 1: 5})
    slots.processor.add_request(0, asked(GUIDED))
    slots.processor.add_request(1, asked(BLANK))
    slots.apply([0, 1], [5, 5])
    slots.processor.add_request(1, asked(PLAIN))
    (left,) = torch.nonzero(slots.apply([0, 1], [5, 5])[0] == 0, as_tuple=True)
    assert left.tolist() == [GUIDED.withdrawal_id]
    slots.processor.add_request(0, asked(None))
    assert torch.equal(slots.apply([0, 1], [5, 5])[0], scores(2)[0])


def test_a_half_that_still_reads_its_prompt_withdraws_the_pair() -> None:
    slots = Slots({0: 5, 1: 5}, fed={1: 8})
    slots.processor.add_request(0, asked(GUIDED))
    slots.processor.add_request(1, asked(BLANK))
    logits = slots.apply([0, 1], [7, 7])
    assert logits[0, 0] == logits[1, 0] == 0


def test_ranks_that_divide_the_rows_are_refused() -> None:
    config = SimpleNamespace(parallel_config=SimpleNamespace(enable_batch_sharded_sampling=True))
    with pytest.raises(ValueError, match="all rows on every rank"):
        GuidedChoice(config, SimpleNamespace(device="cpu"))


def test_both_loaders_take_the_class_and_check_arguments() -> None:
    from vllm.exceptions import VLLMValidationError
    from vllm.v1.sample.logits_processor import validate_logits_processors_parameters

    damaged = VllmSamplingParams(extra_args={"mmgen": {"cycle": 3}})
    for validate in (
        build_custom_logits_processors_params_validator([NAME]),
        lambda params: validate_logits_processors_parameters([NAME], params),
    ):
        validate(asked(GUIDED))
        validate(asked(None))
        with pytest.raises(VLLMValidationError, match="cannot be used"):
            validate(damaged)
    processor = GuidedChoice(None, torch.device("cpu"), False)
    assert LogitsProcessors([processor]).non_argmax_invariant == [processor]
