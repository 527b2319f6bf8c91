"""What is given of a batch: as clean latents before sampling, as pixels and ids after it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..ids import matched_id_table, random_id_table
from .given_parts import (
    GivenParts,
    fill_unknown,
    known_cells,
    put_back,
    read_given_parts,
    resize_nearest,
)


class GivenSegments(NamedTuple):
    """The given segments of a batch."""

    latents: Tensor  # (R, C', h, w) normalised: the given ids, continued to the nearest pixels
    mask: Tensor  # (R, C', h, w) bool, the cells that are given, in the segments' channels
    parts: Mapping[int, GivenParts]  # by the sample's index, where something is given
    codes: Mapping[int, Mapping[int, int]]  # id in the decoded map to given id

    def keep(self, entries: Sequence[dict]) -> list[dict]:
        """The input dicts with ``keep_ids``, channels that no threshold may delete."""
        codes = [self.codes.get(i, ()) for i in range(len(entries))]
        return [
            {**entry, "keep_ids": [code - 1 for code in own]} for entry, own in zip(entries, codes)
        ]

    def ids(self, index: int) -> list[int]:
        """A sample's given ids."""
        return list(self.codes.get(index, {}).values())

    def told(self, index: int) -> dict[str, Any]:
        """What the user says of a sample's segments, for the classifier."""
        if index not in self.parts:
            return {}
        return {"given_ids": self.parts[index].ids, "given_classes": self.parts[index].classes}

    def put_back(self, outputs: list[dict[str, Any]], *, min_area: int) -> list[dict[str, Any]]:
        """Put the given pixels and ids into what was decoded, see :func:`put_back`."""
        for i, parts in self.parts.items():
            if "panoptic_seg" in outputs[i]:
                outputs[i]["panoptic_seg"] = put_back(
                    *outputs[i]["panoptic_seg"], parts, codes=self.codes[i], min_area=min_area
                )
        return outputs


@torch.no_grad()
def encode_given(
    entries: Sequence[dict],
    block: Any,
    images: Sequence[int],
    *,
    like: Tensor,
    generators: Sequence[torch.Generator],
    predicted: Tensor | None,
) -> GivenSegments:
    """Latents of what is given.

    A given segment gets an id as in training: drawn at random, or the one that the network's own
    prediction comes nearest to in the given part, so that what is new agrees with what is given.
    Around the given pixels, which the autoencoder's convolutions see as well, the nearest given id
    continues: void would be something that nobody has said.

    Args:
        entries: B input dicts, see :func:`read_given_parts`; ``image`` (3, h, w) says what of the
            square is no padding.
        block: where the segments' latents are: ``rows`` and ``channels`` of it, and the ``task``,
            whose mask autoencoder encodes; None: no segments are asked for.
        images: (R,) index among the entries of each row.
        like: (R, C', h, w), whose shape, type and device the result gets.
        generators: of the rows, from which the noise has been drawn already.
        predicted: (R, C', h, w) x0 that the network predicts from their noise, for matched ids;
            None: random ids.

    Raises:
        ValueError: see :func:`read_given_parts`; or something is given of an input for which no
            segments are asked.
    """
    rows = {} if block is None else {images[row]: row for row in block.rows}
    latents, mask = torch.zeros_like(like), torch.zeros_like(like, dtype=torch.bool)
    all_parts, all_codes = {}, {}
    for i, entry in enumerate(entries):
        max_segments = block.task.autoencoder.num_ids - 1 if rows else 0
        parts = read_given_parts(entry, max_segments=max_segments, asked=i in rows)
        if parts is None:
            continue
        row, autoencoder, side = rows[i], block.task.autoencoder, block.task.image_size
        parts = parts._replace(ids=parts.ids.to(like.device), mask=parts.mask.to(like.device))
        labels = parts.labels()
        size = tuple(entry["image"].shape[-2:])
        ids, known = resize_nearest(parts.ids, size), resize_nearest(parts.mask, size)
        numbers = torch.where(ids == 0, 0, torch.searchsorted(labels, ids) + 1)  # [h, w] 0..K
        if predicted is None:
            table = random_id_table(len(labels), autoencoder.num_bits, generators[row])
        else:
            decoded = autoencoder.decode_normalized(predicted[row : row + 1, block.channels])[0]
            padded = _to_square(numbers, side)
            table = matched_id_table(padded, len(labels), decoded, autoencoder.id_logits)
        table = table.to(like.device)
        filled = _to_square(table[fill_unknown(numbers, known)], side)
        mean = autoencoder.encode(filled[None]).mean
        latents[row, block.channels] = autoencoder.normalize(mean)[0].to(like.dtype)
        factor = autoencoder.downsample_factor
        cells = known_cells(known, image_size=side, downsample_factor=factor)  # [h, w]
        mask[row, block.channels] = cells
        all_parts[i] = parts
        # Decoded maps hold channels + 1.
        all_codes[i] = dict(zip((table[1:] + 1).tolist(), labels.tolist()))
    return GivenSegments(latents, mask, all_parts, all_codes)


def _to_square(ids: Tensor, size: int) -> Tensor:
    """Pad (h, w) with void at the right and bottom to (size, size)."""
    return F.pad(ids, (0, size - ids.shape[1], 0, size - ids.shape[0]))
