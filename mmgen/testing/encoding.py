"""Checks of `spec` and `encode`."""

from __future__ import annotations

import numpy as np

from mmgen.testing.pictures import draw_picture
from mmgen.testing.subject import (
    TOLERATED_CODES,
    TOLERATED_PIXEL,
    Check,
    Fault,
    NotApplicable,
    Subject,
    check_same_codes,
    check_same_pictures,
    decode,
    encode,
)
from mmgen.visual_tokenizer import Codes, Ordered, VisualTokenizerSpec

__all__ = ["ENCODING_CHECKS"]


def _spec(subject: Subject) -> str:
    spec = subject.tokenizer.spec
    if not isinstance(spec, VisualTokenizerSpec):
        raise Fault(f"spec is a {type(spec).__name__}, expected a VisualTokenizerSpec")
    if spec != subject.spec or subject.reload().spec != spec:
        raise Fault("spec changes from one look, or one loading, to the next")
    sizes = spec.sizes
    return f"{len(spec.layouts)} layouts, {len(sizes)} sizes, codebooks of {spec.codebook_sizes}"


def _code_vectors(subject: Subject) -> str:
    dims = []
    for codebook, size in enumerate(subject.spec.codebook_sizes):
        table = subject.tokenizer.code_vectors(codebook)
        if table.dtype != np.float32 or table.ndim != 2 or len(table) != size or not table.size:
            raise Fault(
                f"code_vectors({codebook}) is {table.dtype} {list(table.shape)}, "
                f"expected float32 [{size}, dim]"
            )
        if not np.isfinite(table).all():
            raise Fault(f"code_vectors({codebook}) has values that are not finite")
        dims.append(table.shape[1])
    return f"dimensions {dims}"


def check_codes(subject: Subject, codes: Codes, size: tuple[int, int]) -> None:
    """Raise `Fault` unless these are legal, complete codes of a picture of that size."""
    spec = subject.spec
    if not isinstance(codes, Codes):
        raise Fault(f"encode gave a {type(codes).__name__}, expected a list of Codes")
    if codes.layout not in spec.layouts:
        raise Fault(f"encode gave the layout {codes.layout}, which the spec does not list")
    if subject.spec.pixels.size_of(codes.layout) != size:
        raise Fault(f"a picture {size} was given the layout {codes.layout} of another size")
    expected = (codes.layout.num_positions, len(spec.codebook_sizes))
    if codes.array.dtype != np.int64 or codes.array.shape != expected:
        raise Fault(
            f"codes are {codes.array.dtype} {list(codes.array.shape)}, "
            f"expected int64 {list(expected)}"
        )
    for codebook, codebook_size in enumerate(spec.codebook_sizes):
        column = codes.array[:, codebook]
        if column.min() < 0 or column.max() >= codebook_size:
            raise Fault(
                f"codebook {codebook} has {codebook_size} codes, "
                f"but encode gave {column.min()} to {column.max()}"
            )


def _codes(subject: Subject) -> str:
    codes = subject.mixed_codes
    if len(codes) != len(subject.mixed):
        raise Fault(f"{len(subject.mixed)} pictures gave {len(codes)} items")
    for item, picture in zip(codes, subject.mixed, strict=True):
        check_codes(subject, item, picture.shape[:2])
    used = len(np.unique(np.concatenate([item.array[:, 0] for item in codes])))
    return f"{len(codes)} pictures of several sizes, {used} codes of the first codebook in use"


def _sizes(subject: Subject) -> str:
    for size in subject.sizes:
        check_codes(subject, encode(subject.tokenizer, [draw_picture(size, seed=3)])[0], size)
    return f"{len(subject.sizes)} of {len(subject.spec.sizes)} sizes"


def _lengths(subject: Subject) -> str:
    layouts = subject.spec.layouts
    if not isinstance(layouts[0], Ordered) or len(layouts) == 1:
        raise NotApplicable("the spec does not have Ordered layouts of several lengths")
    picture = draw_picture(subject.sizes[0], seed=3)
    captions = ["a drawing"] if "encode" in subject.spec.captions_used else None
    for layout in subject.layouts:
        length = layout.num_positions
        codes = subject.tokenizer.encode([picture], length=length, captions=captions)[0]
        if codes.layout != layout:
            raise Fault(f"encode(length={length}) gave {codes.layout}")
        check_codes(subject, codes, subject.sizes[0])
    for illegal in (0, max(layout.num_positions for layout in layouts) + 1):
        _expect_refusal(subject, draw_picture(subject.sizes[0], seed=3), length=illegal)
    return f"lengths {[layout.num_positions for layout in subject.layouts]}"


def _empty_batch(subject: Subject) -> str:
    encoded, decoded = encode(subject.tokenizer, []), decode(subject.tokenizer, [])
    if encoded != [] or decoded != []:
        raise Fault(f"encode([]) gave {encoded!r} and decode([]) gave {decoded!r}, expected []")
    return "no pictures give no codes, and back"


def _determinism(subject: Subject) -> str:
    again = encode(subject.tokenizer, subject.mixed)
    check_same_codes(subject.mixed_codes, again, tolerated=0.0)
    pictures = decode(subject.tokenizer, again, seed=5)
    check_same_pictures(pictures, decode(subject.tokenizer, again, seed=5), tolerated=0.0)
    return "equal codes and equal pixels"


def _batch_independence(subject: Subject) -> str:
    alone = [encode(subject.tokenizer, [picture])[0] for picture in subject.mixed]
    codes = check_same_codes(alone, subject.mixed_codes, tolerated=TOLERATED_CODES)
    if subject.spec.stochastic:
        return f"{codes} (pixels not compared: decoding draws noise)"
    together = decode(subject.tokenizer, alone)
    one_by_one = [decode(subject.tokenizer, [item])[0] for item in alone]
    pixels = check_same_pictures(one_by_one, together, tolerated=TOLERATED_PIXEL)
    return f"{codes}, {pixels}"


def _inputs_unchanged(subject: Subject) -> str:
    # Drawn anew: a change that is made once, such as a clamp, shows on untouched pictures only.
    sizes = [picture.shape[:2] for picture in subject.mixed]
    pictures = [draw_picture(size, seed=30 + seed) for seed, size in enumerate(sizes)]
    before = [picture.copy() for picture in pictures]
    codes = encode(subject.tokenizer, pictures)
    if not all(map(np.array_equal, pictures, before)):
        raise Fault("encode changes the pictures it is given")
    arrays = [item.array.copy() for item in codes]
    decode(subject.tokenizer, codes)
    if not all(np.array_equal(a, item.array) for a, item in zip(arrays, codes, strict=True)):
        raise Fault("decode changes the codes it is given")
    return "pictures and codes are as before"


def _illegal_pictures(subject: Subject) -> str:
    height, width = subject.sizes[0]
    wrong = [size for size in ((height + 1, width), (height, width + 1), (1, 1))]
    wrong = [size for size in wrong if size not in subject.spec.sizes]
    for size in wrong:
        _expect_refusal(subject, draw_picture(size, seed=3))
    return f"sizes {wrong} are refused"


def _illegal_options(subject: Subject) -> str:
    picture = draw_picture(subject.sizes[0], seed=3)
    tried = []
    if not isinstance(subject.spec.default_layout, Ordered):
        _expect_refusal(subject, picture, length=1)
        _expect_refusal(subject, picture, quality=0.5)
        tried += ["length", "quality"]
    count = 2 if "encode" in subject.spec.captions_used else 1
    _expect_refusal(subject, picture, captions=["a drawing"] * count)
    return f"{', '.join([*tried, f'{count} captions'])} are refused"


def _expect_refusal(
    subject: Subject,
    picture: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    *,
    length: int | None = None,
    quality: float | None = None,
    captions: list[str] | None = None,
) -> None:
    if captions is None and "encode" in subject.spec.captions_used:
        captions = ["a drawing"]
    try:
        subject.tokenizer.encode([picture], length=length, quality=quality, captions=captions)
    except ValueError:
        return
    options = {"length": length, "quality": quality, "captions": captions}
    given = ", ".join(f"{key}={value!r}" for key, value in options.items() if value is not None)
    raise Fault(f"encode takes a picture {picture.shape[:2]}{given and ' with '}{given}")


ENCODING_CHECKS = (
    Check(
        name="spec",
        tried="read spec twice and after loading again",
        remedy="build the spec once, from settings that are saved, and return that object",
        run=_spec,
    ),
    Check(
        name="code vectors",
        tried="read code_vectors of each codebook",
        remedy="return a finite float32 table with one row for each code",
        run=_code_vectors,
    ),
    Check(
        name="codes",
        tried="encode drawn pictures of several sizes in one call",
        remedy="return one complete Codes for each picture: int64, [positions, codebooks], each "
        "code in 0..codebook_size-1, with the layout of the picture's size",
        run=_codes,
    ),
    Check(
        name="sizes",
        tried="encode a picture of each size in spec.sizes",
        remedy="list in spec.layouts what encode can do, no more",
        run=_sizes,
    ),
    Check(
        name="lengths",
        tried="encode with each length of the spec, with 0 and with one too many",
        remedy="give the layout Ordered(length); raise ValueError for a length not in the spec",
        run=_lengths,
    ),
    Check(
        name="empty batch",
        tried="encode and decode no items",
        remedy="return an empty list for an empty list",
        run=_empty_batch,
    ),
    Check(
        name="determinism",
        tried="encode and decode the same twice",
        remedy="put networks into eval mode and draw noise from the given seed alone",
        run=_determinism,
    ),
    Check(
        name="batch independence",
        tried="encode and decode pictures of several sizes one by one and together",
        remedy="keep statistics of the batch out of the result, and results in the given order",
        run=_batch_independence,
    ),
    Check(
        name="inputs unchanged",
        tried="compare the arguments before and after encode and decode",
        remedy="copy an array before changing it in place",
        run=_inputs_unchanged,
    ),
    Check(
        name="illegal pictures",
        tried="encode pictures of sizes that the spec does not list",
        remedy="raise ValueError; resizing is the caller's, by spec.resize",
        run=_illegal_pictures,
    ),
    Check(
        name="illegal options",
        tried="encode with options that the spec does not allow",
        remedy="raise ValueError for length, quality or captions that mean nothing here",
        run=_illegal_options,
    ),
)
