"""Checks of `decode` and `preview`, and of both directions together."""

from __future__ import annotations

from statistics import fmean

import numpy as np

from mmgen.testing.pictures import psnr
from mmgen.testing.subject import (
    CAPTION,
    TOLERATED_PIXEL,
    Check,
    Fault,
    NotApplicable,
    Subject,
    check_picture,
    check_same_pictures,
    decode,
    encode,
)
from mmgen.visual_tokenizer import Codes, Grid, Layout, Ordered

__all__ = ["DECODING_CHECKS"]


def _pixels(subject: Subject) -> str:
    codes = [subject.random_codes(layout) for layout in subject.layouts]
    pictures = decode(subject.tokenizer, codes)
    if len(pictures) != len(codes):
        raise Fault(f"{len(codes)} items gave {len(pictures)} pictures")
    for item, picture in zip(codes, pictures, strict=True):
        check_picture(picture, subject.size_of(item), f"the picture of {item.layout}")
    return f"{len(codes)} of {len(subject.spec.layouts)} layouts"


def _seeds(subject: Subject) -> str:
    if not subject.spec.stochastic:
        raise NotApplicable("the spec does not say stochastic")
    codes = [subject.random_codes(subject.spec.default_layout)]
    one, other = (decode(subject.tokenizer, codes, seed=seed)[0] for seed in (1, 2))
    if np.array_equal(one, other):
        raise Fault("two seeds give the same picture")
    captions = ["a drawing"] if "decode" in subject.spec.captions_used else None
    stepped = subject.tokenizer.decode(codes, seed=1, steps=2, captions=captions)[0]
    check_picture(stepped, subject.size_of(codes[0]), "the picture of two steps")
    return "two seeds give two pictures, and a number of steps is taken"


def _round_trip(subject: Subject) -> str:
    decoded = decode(subject.tokenizer, encode(subject.tokenizer, subject.pictures))
    return _promise(subject, map(psnr, subject.pictures, decoded))


def _stability(subject: Subject) -> str:
    codes = encode(subject.tokenizer, subject.pictures)
    decoded = decode(subject.tokenizer, codes)
    again = encode(subject.tokenizer, decoded)
    kept = fmean(
        float((a.array == b.array).mean()) if a.layout == b.layout else 0.0
        for a, b in zip(codes, again, strict=True)
    )
    promise = _promise(subject, map(psnr, decoded, decode(subject.tokenizer, again)))
    return f"{kept:.1%} of the codes come back, {promise}"


def _promise(subject: Subject, values: map[float]) -> str:
    mean = fmean(values)
    if mean < subject.spec.min_psnr:
        raise Fault(f"{mean:.2f} dB on average, spec.min_psnr promises {subject.spec.min_psnr}")
    return f"{mean:.2f} dB on average, {subject.spec.min_psnr} promised"


def _preview(subject: Subject) -> str:
    caption = CAPTION if "decode" in subject.spec.captions_used else None
    options = {} if caption is None else {"caption": caption}
    lengths: list[int] = []
    for layout in (subject.spec.default_layout, subject.layouts[-1]):
        codes = subject.random_codes(layout)
        total = layout.num_positions
        lengths = sorted({0, 1, total // 3, 2 * total // 3, total - 1, total})
        previews = [
            subject.tokenizer.preview(Codes(codes.array[:length], layout), **options)
            for length in lengths
        ]
        for length, picture in zip(lengths, previews, strict=True):
            origin = f"the preview of {length} of {total} positions"
            check_picture(picture, subject.spec.pixels.size_of(layout), origin)
        if np.array_equal(previews[0], previews[-1]):
            raise Fault("the preview of all codes equals the preview of none")
        if total > 1 and np.array_equal(previews[0], previews[-2]):
            raise Fault(f"the preview of {total - 1} codes equals the preview of none")
        if not subject.spec.stochastic:
            complete = decode(subject.tokenizer, [codes])
            try:
                check_same_pictures(previews[-1:], complete, tolerated=TOLERATED_PIXEL)
            except Fault as fault:
                raise Fault(f"preview of complete codes is not their picture: {fault}") from None
    return f"prefixes of {', '.join(map(str, lengths))} positions"


def _prefixes(subject: Subject) -> str:
    if not subject.spec.prefix_decodable:
        raise NotApplicable("the spec does not say prefix_decodable")
    longest = max(subject.spec.layouts, key=lambda layout: layout.num_positions)
    total = longest.num_positions
    lengths = sorted({1, total // 3, 2 * total // 3, total - 1, total} - {0})
    one, other = (subject.random_codes(longest, seed=seed).array for seed in (1, 2))
    for length in lengths:
        layout = Ordered(length)
        prefixes = [Codes(array[:length], layout) for array in (one, other)]
        pictures = decode(subject.tokenizer, prefixes)
        for picture in pictures:
            check_picture(picture, subject.sizes[0], f"the picture of a prefix of {length}")
        if prefixes[0] != prefixes[1] and np.array_equal(pictures[0], pictures[1]):
            raise Fault(f"two different prefixes of {length} positions give the same picture")
    return f"prefixes of {', '.join(map(str, lengths))} positions"


def _illegal_codes(subject: Subject) -> str:
    layout = subject.spec.default_layout
    legal = subject.random_codes(layout).array
    attempts: dict[str, Codes] = {
        "incomplete codes": Codes(legal[:-1], layout),
        "no codes at all": Codes(legal[:0], layout),
        "a code -1": _with(legal, 0, -1, layout),
        "one codebook too many": Codes(np.concatenate([legal, legal[:, :1]], axis=1), layout),
        "a layout that is not in the spec": _elsewhere(subject),
    }
    for codebook, size in enumerate(subject.spec.codebook_sizes):
        name = f"code {size} in codebook {codebook} of {size} codes"
        attempts[name] = _with(legal, codebook, size, layout)
    for name, codes in attempts.items():
        try:
            decode(subject.tokenizer, [codes])
        except ValueError:
            continue
        raise Fault(f"decode takes {name}")
    return f"{len(attempts)} kinds are refused: {', '.join(attempts)}"


def _with(
    array: np.ndarray[tuple[int, ...], np.dtype[np.int64]], codebook: int, code: int, layout: Layout
) -> Codes:
    changed = array.copy()
    changed[-1, codebook] = code
    return Codes(changed, layout)


def _elsewhere(subject: Subject) -> Codes:
    """Return codes of a layout that the tokenizer does not have, prefixes included."""
    longest = max(layout.num_positions for layout in subject.spec.layouts)
    is_ordered = isinstance(subject.spec.default_layout, Ordered)
    return subject.random_codes(Ordered(longest + 1) if is_ordered else Grid(1, longest + 1))


DECODING_CHECKS = (
    Check(
        name="pixels",
        tried="decode random legal codes of each layout in one call",
        remedy="return float32 [height, width, 3] clamped to 0..1, of the size spec.pixels gives",
        run=_pixels,
    ),
    Check(
        name="seeds",
        tried="decode with two seeds, and with a number of steps",
        remedy="draw the noise from the seed, or leave `stochastic` out of the spec",
        run=_seeds,
    ),
    Check(
        name="round trip",
        tried="encode and decode pictures and compare",
        remedy="promise in spec.min_psnr what the tokenizer reaches; give pictures of its own "
        "kind if the drawn ones are not",
        run=_round_trip,
    ),
    Check(
        name="stability",
        tried="encode and decode pictures that were decoded",
        remedy="a decoded picture must be as good an input as any other; see that encode expects "
        "the range and the colours that decode gives",
        run=_stability,
    ),
    Check(
        name="preview",
        tried="preview random codes after none, some and all of their positions",
        remedy="take any prefix, none included; show what has arrived; give the picture itself "
        "once all has",
        run=_preview,
    ),
    Check(
        name="prefixes",
        tried="decode prefixes of several lengths as Ordered(length)",
        remedy="decode a prefix to a picture that depends on it, or leave `prefix_decodable` out "
        "of the spec",
        run=_prefixes,
    ),
    Check(
        name="illegal codes",
        tried="decode codes that no picture has",
        remedy="raise ValueError; never clamp, fill or skip",
        run=_illegal_codes,
    ),
)
