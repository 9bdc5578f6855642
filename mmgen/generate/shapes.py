"""Which layout a picture gets from the size and length that are asked for, and its beginning."""

from __future__ import annotations

from mmgen.document import DocumentCodec
from mmgen.errors import SettingsError
from mmgen.visual_tokenizer import Codes, Layout, Ordered

__all__ = ["begun_ids", "has_open_length", "wanted_layout"]


def wanted_layout(
    codec: DocumentCodec, name: str, size: tuple[int, int] | None, length: int | None
) -> Layout:
    """Return the layout of pictures of a size `(height, width)` and a number of positions.

    Of what neither of them decides, it is the default.
    """
    sizes = codec.sizes(name)
    if size is not None and size not in sizes:
        known = ", ".join(f"{width}x{height}" for height, width in sizes)
        raise SettingsError(
            f"no pictures of {size[1]}x{size[0]} pixels (width x height); choose one of {known}"
        )
    if length is None:
        return next(iter(sizes.values())) if size is None else sizes[size]
    pixels = codec.visual_tokenizers[name].spec.pixels
    lengths: dict[int, Layout] = {}
    for layout in codec.vocabulary.tokenizer(name).layouts:
        if isinstance(layout, Ordered) and size in (None, pixels.size_of(layout)):
            lengths.setdefault(layout.length, layout)
    if not lengths:
        raise SettingsError(
            f"pictures of {name!r} have no lengths to choose from, as their size says how many "
            f"codes they have; leave out the length {length}"
        )
    if length not in lengths:
        known = ", ".join(map(str, sorted(lengths)))
        raise SettingsError(f"no pictures of {name!r} have the length {length}; there are {known}")
    return lengths[length]


def begun_ids(codec: DocumentCodec, name: str, layout: Layout, begun: Codes | None) -> list[int]:
    """Return the ids of the codes with which a picture of a layout begins."""
    if begun is None:
        return []
    if not codec.visual_tokenizers[name].spec.prefix_decodable:
        raise SettingsError(
            f"pictures of {name!r} cannot be continued: a shorter one is not the beginning of a "
            "longer one"
        )
    if len(begun.array) >= layout.num_positions:
        raise SettingsError(
            f"the picture to be continued has {len(begun.array)} positions, and "
            f"{layout.num_positions} are wanted; ask for more"
        )
    ids: list[int] = codec.vocabulary.code_ids(name, begun.array).tolist()
    return ids


def has_open_length(codec: DocumentCodec, name: str) -> bool:
    """Return whether the model spells the length that its picture needs, and nothing else of it."""
    spec = codec.visual_tokenizers[name].spec
    return spec.chooses_length and len(codec.sizes(name)) == 1
