"""The written record of a run: `log.jsonl`, TensorBoard events and a picture of the curves.

`log.jsonl` is the one that counts: a resumed run first drops the records after its state, so that
each step stands in it once, and the picture is drawn from it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

from mmgen.errors import OutputError
from mmgen.train.state import write_atomically

__all__ = ["Record", "RunRecords", "draw_curves", "numbers", "read_records"]

Record: TypeAlias = Mapping[str, Any]
"""One line of the log: `kind` is `train` or `eval`, `step` counts steps done, the rest numbers."""

_SECONDS_BETWEEN_DRAWINGS = 60.0


class RunRecords:
    """Writes what a run reports into its directory; TensorBoard only where it is installed."""

    def __init__(self, directory: Path, *, step: int) -> None:
        """Open the records of a run that stands at `step`."""
        self._path = directory / "log.jsonl"
        self._curves = directory / "curves.png"
        if self._path.is_file():
            kept = [record for record in read_records(self._path) if record["step"] <= step]
            write_atomically(self._path, "".join(json.dumps(record) + "\n" for record in kept))
        self._drawn = time.monotonic()
        self._board: Any = None
        if find_spec("tensorboard") is not None:
            board = import_module("torch.utils.tensorboard")
            self._board = board.SummaryWriter(str(directory / "tensorboard"), purge_step=step + 1)

    def write(self, record: Record) -> None:
        """Append one record."""
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror}") from error
        if self._board is None:
            return
        for name, value in record.items():
            if name not in ("kind", "step") and isinstance(value, int | float):
                self._board.add_scalar(f"{record['kind']}/{name}", value, record["step"])

    def draw_now_and_then(self) -> None:
        """Draw the curves if that was not done within the last minute."""
        if time.monotonic() - self._drawn > _SECONDS_BETWEEN_DRAWINGS:
            self.draw()

    def draw(self) -> None:
        """Draw the curves anew, where matplotlib is installed."""
        self._drawn = time.monotonic()
        if find_spec("matplotlib") is not None and self._path.is_file():
            draw_curves(read_records(self._path), self._curves)

    def close(self) -> None:
        """Finish the event file."""
        if self._board is not None:
            self._board.close()


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the whole records of a log; a last line cut short by a kill is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


_PANELS: Sequence[tuple[str, str]] = (
    ("loss", "loss, nats per id"),
    ("bits_per_byte", "text, bits per byte"),
    ("bits_per_image", "pictures, bits per image"),
    ("lr", "learning rate"),
)


def draw_curves(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw training and evaluation curves into a PNG."""
    # The figure class alone: pyplot would choose a window system and keep global state.
    figure_module = import_module("matplotlib.figure")
    figure = figure_module.Figure(figsize=(12, 7))
    figure.subplots_adjust(left=0.06, right=0.98, bottom=0.07, top=0.95, hspace=0.3, wspace=0.15)
    for axes, (name, title) in zip(figure.subplots(2, 2).flat, _PANELS, strict=True):
        for kind, style in (("train", "-"), ("eval", "o-")):
            points = [
                (record["step"], record[name])
                for record in records
                if record["kind"] == kind and name in record
            ]
            if points:
                width = 1.0 if kind == "train" else 1.8
                axes.plot(*zip(*points, strict=True), style, label=kind, lw=width, ms=3)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        figure.savefig(temporary, dpi=110, format="png")
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def numbers(report: Mapping[str, Any]) -> str:
    """Return a report as one line of text."""
    return ", ".join(
        f"{name.replace('_', ' ')} {value:,.0f}"
        if value >= 100
        else f"{name.replace('_', ' ')} {value:.3f}"
        for name, value in report.items()
    )
