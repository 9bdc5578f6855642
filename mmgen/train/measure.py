"""From sums of losses to the numbers that a run reports.

Nats per id depend on how coarse the ids are; bits per byte of text and bits per picture do not,
so that runs with different tokenizers can be compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mmgen.text_tokenizer import TextTokenizer
from mmgen.train.loss import IMAGE, MARK, TEXT, LossSums
from mmgen.train.processes import Processes

__all__ = ["Tally", "text_id_bytes"]


def text_id_bytes(tokenizer: TextTokenizer) -> Tensor:
    """Return how many bytes of text each id stands for, `[num_ids]`.

    A part of a character that is no text by itself counts as one byte.
    """
    texts = (tokenizer.decode([id_]).replace("\ufffd", "?") for id_ in range(tokenizer.num_ids))
    return torch.tensor([len(text.encode()) for text in texts], dtype=torch.int64)


@dataclass(slots=True)
class Tally:
    """Losses added up over batches."""

    nats: Tensor
    """`[3]`, by kind of target."""
    counts: Tensor
    """`[3]`, targets of each kind."""
    num_bytes: int = 0
    """Bytes of the words among the targets."""
    num_images: int = 0
    """Whole pictures among the targets."""
    num_ids: int = 0
    """Ids that went through the network, padding included."""
    num_logits: int = 0
    """Logits that the losses looked at."""

    @classmethod
    def empty(cls) -> Tally:
        """Return a tally of nothing."""
        return cls(torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.int64))

    def add(self, sums: LossSums, targets: Tensor, id_bytes: Tensor, end_image_id: int) -> None:
        """Count one batch.

        Args:
            targets: `[batch, length]`, on the CPU like `id_bytes`.
            id_bytes: bytes of each text id.
            end_image_id: the target that each whole picture has once.
        """
        self.nats += sums.nats.cpu()
        self.counts += sums.counts.cpu()
        words = targets[(targets >= 0) & (targets < len(id_bytes))]
        self.num_bytes += int(id_bytes[words].sum())
        self.num_images += int((targets == end_image_id).sum())
        self.num_ids += targets.numel()
        self.num_logits += sums.num_logits

    def add_up(self, processes: Processes) -> None:
        """Replace every number by its sum over all processes."""
        sizes = torch.tensor([self.num_bytes, self.num_images, self.num_ids, self.num_logits])
        processes.add_up([self.nats])
        processes.add_up([self.counts, sizes])
        self.num_bytes, self.num_images, self.num_ids, self.num_logits = sizes.tolist()

    def report(self) -> dict[str, float]:
        """Return the numbers to log; those of which there was nothing are left out."""
        nats, counts = self.nats.tolist(), self.counts.tolist()
        report = {"loss": sum(nats) / max(1, sum(counts))}
        for name, kind in (("text", TEXT), ("image", IMAGE), ("mark", MARK)):
            if counts[kind]:
                report[f"loss_{name}"] = nats[kind] / counts[kind]
        if self.num_bytes:
            report["bits_per_byte"] = nats[TEXT] / math.log(2) / self.num_bytes
        if self.num_images:
            report["bits_per_image"] = nats[IMAGE] / math.log(2) / self.num_images
        return report
