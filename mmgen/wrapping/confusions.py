"""What a model draws in the place of each code: a table that decoders are trained to bear.

A model reads captions and the codes before, and one code is drawn at every position from what it
expects there. Counted over many pictures, that says which codes it takes for which. Exchanging
codes by this table keeps the picture that they came from as the target, which codes of a drawing
of its own do not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmgen.errors import OutputError, PluginError

__all__ = ["Confusions", "count_confusions", "exchanged", "read_confusions", "write_confusions"]


@dataclass(frozen=True, slots=True, eq=False)
class Confusions:
    """For each codebook and code, the codes drawn in its place, the most frequent first."""

    codes: tuple[Tensor, ...]
    """One for each codebook, `[codebook_size, candidates]`, int64."""
    shares: tuple[Tensor, ...]
    """How often each was drawn, `[codebook_size, candidates]`; a row's sum is 1, or 0 for a code
    that did not occur."""

    @property
    def error_rate(self) -> float:
        """How often another code was drawn, over the codes that occurred."""
        kept = total = 0.0
        for codes, shares in zip(self.codes, self.shares, strict=True):
            own = torch.arange(len(codes)).unsqueeze(1)
            kept += float(shares[codes == own].sum())
            total += float(shares.sum())
        return 1 - kept / total if total else 0.0


def count_confusions(
    true: Tensor, drawn: Tensor, sizes: Sequence[int], *, num_candidates: int = 16
) -> Confusions:
    """Return the table of codes `[..., codebooks]` and of what was drawn in their places.

    Args:
        sizes: of the codebooks.
        num_candidates: codes kept of each row, the most frequent ones.
    """
    codes, shares = [], []
    for book, size in enumerate(sizes):
        pairs = true[..., book].flatten().long() * size + drawn[..., book].flatten().long()
        found, counts = torch.unique(pairs, return_counts=True)
        table = torch.zeros(size, num_candidates, dtype=torch.int64)
        weights = torch.zeros(size, num_candidates)
        order = torch.argsort(counts, descending=True, stable=True)
        order = order[torch.argsort(found[order] // size, stable=True)]
        rows, columns, counts = found[order] // size, found[order] % size, counts[order]
        # The place of each pair within its row, since pairs of a row now stand together.
        starts = torch.searchsorted(rows, rows)
        places = torch.arange(len(rows)) - starts
        is_kept = places < num_candidates
        table[rows[is_kept], places[is_kept]] = columns[is_kept]
        weights[rows[is_kept], places[is_kept]] = counts[is_kept].float()
        codes.append(table)
        shares.append(weights / weights.sum(dim=1, keepdim=True).clamp_min(1))
    return Confusions(tuple(codes), tuple(shares))


def exchanged(codes: Tensor, share: float, confusions: Confusions | None) -> Tensor:
    """Exchange about a `share` of codes `[batch, positions, codebooks]`.

    With confusions each is drawn from the row of the code that it replaces, which may be itself;
    without them, and for a code that the table does not know, it is that of another position.
    """
    batch, positions, _ = codes.shape
    order = torch.randperm(batch * positions, device=codes.device)
    others = codes.flatten(0, 1)[order].reshape(codes.shape)
    if confusions is not None:
        columns = []
        for book, (table, shares) in enumerate(
            zip(confusions.codes, confusions.shares, strict=True)
        ):
            own = codes[..., book].flatten()
            rows = shares[own]
            is_known = rows.sum(dim=1) > 0
            # A row without anything gets even weights, and is then left out.
            picked = torch.multinomial(rows + (~is_known).float().unsqueeze(1), 1)
            drawn = table[own].gather(1, picked)[:, 0]
            drawn = torch.where(is_known, drawn, others[..., book].flatten())
            columns.append(drawn.reshape(batch, positions))
        others = torch.stack(columns, dim=-1)
    is_exchanged = torch.rand(batch, positions, 1, device=codes.device) < share
    return torch.where(is_exchanged, others, codes)


def write_confusions(confusions: Confusions, path: Path, *, fingerprint: str, model: str) -> None:
    """Write a table.

    Args:
        fingerprint: of the tokenizer whose codes these are.
        model: fingerprint of the checkpoint that drew.
    """
    tensors = {f"codes_{book}": item.int() for book, item in enumerate(confusions.codes)}
    tensors |= {f"shares_{book}": item for book, item in enumerate(confusions.shares)}
    temporary = path.with_name(f".{path.name}.part")
    try:
        save_file(tensors, temporary, metadata={"tokenizer": fingerprint, "model": model})
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"cannot write {path}: {error}") from error


def read_confusions(path: Path, fingerprint: str) -> Confusions:
    """Read the table of a tokenizer.

    Raises:
        PluginError: it cannot be read, or is of a tokenizer with another fingerprint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            found = (file.metadata() or {}).get("tokenizer")
            num_books = len(list(file.keys())) // 2
            codes = tuple(file.get_tensor(f"codes_{book}").long() for book in range(num_books))
            shares = tuple(file.get_tensor(f"shares_{book}") for book in range(num_books))
    except (OSError, SafetensorError) as error:
        raise PluginError(f"the confusions in {path} cannot be read: {error}") from error
    if found != fingerprint:
        raise PluginError(
            f"the confusions in {path} are of the tokenizer {found}, but {fingerprint} is wrapped; "
            "draw them anew"
        )
    return Confusions(codes, shares)
