"""Several tokenizers beside one another and beside ordinary codecs: a table, a page, a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

from PIL import Image

from mmgen.evaluate.classifier import Classifier
from mmgen.evaluate.codec_curves import CodecCurve, CodecNeighbour, codec_curves
from mmgen.evaluate.figures import Figures
from mmgen.evaluate.findings import Findings
from mmgen.evaluate.image_codecs import CODECS, available_codecs
from mmgen.evaluate.probe import ProbePack
from mmgen.evaluate.progress import Progress
from mmgen.evaluate.report import table
from mmgen.evaluate.yardstick import (
    NUM_SHOWN,
    Candidate,
    CodeModelTask,
    Measured,
    measure,
    refuse_unlike,
)
from mmgen.pictures import sheet, to_picture

__all__ = ["Comparison", "compare", "page"]

PAGE_COLUMNS = 8
SPEED_SECONDS = 1.0
"""How long each of the four timings of a tokenizer takes."""

_NOT_MEASURED = (
    "LPIPS and rFID: they need the weights of published networks, which mmgen does not have.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All that was measured."""

    tokenizers: tuple[Figures, ...]
    """In the order in which they were named."""
    codecs: tuple[CodecCurve, ...]
    """A curve for each codec and each set of picture sizes."""
    nearest: tuple[CodecNeighbour, ...]
    """Each codec at the size nearest to that of each tokenizer, on all pictures."""
    not_measured: tuple[str, ...]
    """What is missing, and why."""

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def markdown(self) -> str:
        """Return the tables, with what they do not hold."""
        parts = [
            self._fidelity(),
            self._codes(),
            self._robustness(),
            self._beside_codecs(),
            *self._probes(),
            *self._words(),
            "\n".join(f"- Not measured: {item}" for item in self.not_measured),
        ]
        return "\n\n".join(parts) + "\n"

    def _fidelity(self) -> str:
        scales = sorted({item.num_scales for item in self.tokenizers})
        head = ["", "tokens", "bits", "PSNR dB", "SSIM", "MS-SSIM", "detail dB", "letters read"]
        rows = [
            [
                item.name,
                f"{item.tokens_per_picture:g}",
                f"{item.bits_per_picture:.0f}",
                f"{item.psnr:.2f}",
                f"{item.ssim:.3f}",
                f"{item.ms_ssim:.3f}",
                f"{item.detail_psnr:.2f}",
                " ".join(f"{sign.size}px {sign.share:.0%}" for sign in item.signs) or "-",
            ]
            for item in self.tokenizers
        ]
        if any(item.classifier_distance is not None for item in self.tokenizers):
            head.append("mmgen classifier distance")
            for row, item in zip(rows, self.tokenizers, strict=True):
                known = item.classifier_distance
                row.append("-" if known is None else f"{known:.3f}")
        counts = sorted({item.num_pictures for item in self.tokenizers})
        sizes = "; ".join(
            f"{item.name} at {', '.join(f'{h}x{w}' for h, w in item.picture_sizes[:4])}"
            for item in self.tokenizers
        )
        return (
            f"## Fidelity\n\n{table(head, rows)}\n\n{counts[0]} pictures: {sizes}. MS-SSIM at "
            f"{' or '.join(map(str, scales))} of 5 scales. Detail: the tenth of the pixels where "
            "a picture changes most. Letters: drawn in cells of so many pixels and read by "
            "comparison; chance is 3%."
        )

    def _codes(self) -> str:
        head = ["", "codebooks", "used", "dead", "bits per code", "bits by frequency", "parameters"]
        head += ["encode images/s", "decode images/s"]
        rows = [
            [
                item.name,
                " ".join(str(book.size) for book in item.codebooks),
                " ".join(f"{book.used:.0%}" for book in item.codebooks),
                " ".join(str(book.num_dead) for book in item.codebooks),
                " ".join(f"{book.entropy:.2f}" for book in item.codebooks),
                f"{item.entropy_bits_per_picture:.0f}",
                "-" if item.num_parameters is None else f"{item.num_parameters:,}",
                _speeds(item, "encode"),
                _speeds(item, "decode"),
            ]
            for item in self.tokenizers
        ]
        note = "Speed: one picture at a time / 64 at a time."
        if any(item.code_model is not None for item in self.tokenizers):
            head.append("bits per image, small decoder")
            for row, item in zip(rows, self.tokenizers, strict=True):
                known = item.code_model
                row.append("-" if known is None else f"{known.bits_per_image:.0f}")
            scores = [item.code_model for item in self.tokenizers if item.code_model is not None]
            note += (
                f" The small decoder of {scores[0].num_parameters:,} parameters, tables of codes "
                f"not counted, learned from {scores[0].num_train} pictures in "
                f"{scores[0].num_steps} steps and was scored on {scores[0].num_held_out} others, "
                "equally for all."
            )
        return f"## Codes\n\n{table(head, rows)}\n\n{note}"

    def _robustness(self) -> str:
        kinds = [(item.corruption, item.share) for item in self.tokenizers[0].damage]
        words = {"near": "nearly right", "any": "any"}
        head = ["PSNR dB", "unharmed", *(f"{share:.0%} {words[kind]}" for kind, share in kinds)]
        rows = [
            [item.name, f"{item.psnr:.2f}", *(f"{damage.psnr:.2f}" for damage in item.damage)]
            for item in self.tokenizers
        ]
        return (
            f"## Wrong codes\n\n{table(head, rows)}\n\nSo many of the codes replaced by one of "
            "the 16 whose vectors are nearest, or by any."
        )

    def _beside_codecs(self) -> str:
        head = ["", "bytes per picture", "PSNR dB", "SSIM"]
        rows = []
        for item in self.tokenizers:
            num_bytes = item.bits_per_picture / 8
            rows.append([item.name, f"{num_bytes:.0f}", f"{item.psnr:.2f}", f"{item.ssim:.3f}"])
            for point in (near.point for near in self.nearest if near.tokenizer == item.name):
                label = f"- {point.name}, quality {point.quality}"
                size = f"{point.bytes_per_picture:.0f}"
                rows.append([label, size, f"{point.psnr:.2f}", f"{point.ssim:.3f}"])
        counts = sorted({point.num_pictures for curve in self.codecs for point in curve.points})
        total = self.tokenizers[0].num_pictures
        sampled = (
            " The curves of rate.png, by which the qualities were chosen, are drawn from "
            f"{counts[0]} of the {total} pictures, taken at random with a fixed seed; this table "
            "is of all."
            if counts[0] < total
            else ""
        )
        return (
            f"## Beside codecs\n\n{table(head, rows)}\n\nEach codec at the quality whose files "
            "are nearest in size, headers included; where the files are larger, it has no smaller."
            + sampled
        )

    def _probes(self) -> list[str]:
        found = [(item.name, item.probe) for item in self.tokenizers if item.probe is not None]
        if not found:
            return []
        first = found[0][1]
        head = ["codebook", "mean of code vectors", "code vectors side by side"]
        rows = [
            [
                name if len(score.codebooks) == 1 else f"{name}, codebook {index}",
                f"{book.mean:.1%}",
                "-" if book.places is None else f"{book.places:.1%}",
            ]
            for name, score in found
            for index, book in enumerate(score.codebooks)
        ]
        return [
            f"## Probe of {first.column}\n\n{table(head, rows)}\n\nShare of the pictures whose "
            f"{first.column} a logistic regression tells, having learned {first.num_classes} of "
            f"them from {first.num_train} other pictures. Always naming the commonest: "
            f"{first.commonest:.1%}."
        ]

    def _words(self) -> list[str]:
        parts = []
        for item in self.tokenizers:
            kinds = list(dict.fromkeys(point.words for point in item.words))
            lengths = sorted({point.tokens for point in item.words})
            found = {(point.words, point.tokens): point for point in item.words}
            rows = [
                [str(tokens), *(f"{found[kind, tokens].ssim:.3f}" for kind in kinds)]
                + [f"{found[kind, tokens].psnr:.2f}" for kind in kinds]
                for tokens in lengths
            ]
            head = ["tokens", *(f"SSIM, {kind}" for kind in kinds)]
            head += [f"PSNR dB, {kind}" for kind in kinds]
            if rows:
                parts.append(
                    f"## Captions of {item.name}\n\n{table(head, rows)}\n\nEncoded and decoded "
                    "with the picture's own caption, with none, and with another picture's."
                )
        return parts


def compare(
    candidates: Sequence[Candidate],
    pictures: Sequence[Image.Image],
    *,
    judge: Classifier | None,
    code_model: CodeModelTask | None,
    progress: Progress,
    findings: Findings | None = None,
    probe_pack: ProbePack | None = None,
    captions: Sequence[str] | None = None,
) -> tuple[Comparison, tuple[Measured, ...]]:
    """Measure tokenizers one after another, and codecs on the same pictures.

    What `findings` holds is taken from there, and what is measured is kept there at once.
    """
    findings = Findings(None) if findings is None else findings
    if code_model is not None:
        refuse_unlike(candidates, pictures, code_model)
    measured = tuple(
        measure(
            candidate,
            pictures,
            judge=judge,
            code_model=code_model,
            progress=progress,
            speed_seconds=SPEED_SECONDS,
            findings=findings,
            probe_pack=probe_pack,
            captions=captions,
        )
        for candidate in candidates
    )
    missing = list(_NOT_MEASURED)
    if judge is None:
        missing.append(
            "the distance in the features of mmgen's own classifier: give an emoji pack with "
            "--judge to train it on."
        )
    if code_model is None:
        missing.append("bits per image under a small decoder: ask with --with-lm.")
    if probe_pack is None:
        missing.append("what codes say of a class: name a column of the pack with --probe.")
    readers = [item.name for item in candidates if item.tokenizer.spec.captions_used]
    if readers and captions is None:
        missing.append(
            f"what captions are worth to {', '.join(readers)}: name their column with "
            "--caption-column."
        )
    formats = available_codecs()
    missing += [f"{form}: this Pillow was built without it." for form in set(CODECS) - set(formats)]
    curves, nearest = codec_curves(measured, progress=progress, findings=findings)
    comparison = Comparison(
        tokenizers=tuple(item.figures for item in measured),
        codecs=curves,
        nearest=nearest,
        not_measured=tuple(missing),
    )
    return comparison, measured


def page(measured: Sequence[Measured]) -> Image.Image:
    """Return rows of originals, each over what every tokenizer made of them."""
    pictures: list[Image.Image] = []
    labels: list[str] = []
    num = min(len(measured[0].originals), NUM_SHOWN)
    columns = min(PAGE_COLUMNS, num)
    blank = Image.new("RGB", (1, 1), "white")
    for start in range(0, num, columns):
        rows = [("original", measured[0].originals)]
        rows += [(item.figures.name, item.decoded) for item in measured]
        for label, arrays in rows:
            shown = [to_picture(array) for array in arrays[start : min(start + columns, num)]]
            for _, picture in zip_longest(range(columns), shown):
                pictures.append(blank if picture is None else picture)
                labels.append("" if picture is None else label)
    return sheet(pictures, labels, columns)


def _speeds(figures: Figures, operation: str) -> str:
    found = [speed for speed in figures.speeds if speed.operation == operation]
    return " / ".join(f"{speed.images_per_second:,.0f}" for speed in found)
