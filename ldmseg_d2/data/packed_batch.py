"""Sends a batch from a loader's worker as one block of memory.

PyTorch moves every tensor through a shared-memory file of its own. A batch of small pictures has
hundreds of small tensors, and opening their files costs more than reading the pictures.
"""

from typing import Any

import torch

__all__ = ["PackedBatch"]

# Bytes: a view of another dtype must start at a multiple of its item size.
ALIGNMENT = 8


class PackedBatch(list):
    """A list of dicts that is pickled with all its CPU tensors in one uint8 tensor.

    Unpickling gives a plain list; its tensors are views of that one block. Use it as a loader's
    `collate_fn`; without workers nothing is packed.

    Example:
        >>> batch = PackedBatch([{"image": torch.ones(3, 2, 2), "image_id": 7}])
        >>> batch[0]["image_id"]
        7
    """

    def __reduce__(self) -> tuple[Any, ...]:
        offset = 0
        chunks, layout, rest = [], [], []
        for record in self:
            tensors = {k: v for k, v in record.items() if _can_pack(v)}
            rest.append({k: v for k, v in record.items() if k not in tensors})
            places = []
            for key, tensor in tensors.items():
                block = tensor.contiguous().view(-1).view(torch.uint8)
                padding = -block.numel() % ALIGNMENT
                chunks.extend([block, block.new_zeros(padding)] if padding else [block])
                places.append((key, offset, tensor.dtype, tuple(tensor.shape)))
                offset += block.numel() + padding
            layout.append(places)
        buffer = torch.cat(chunks) if chunks else torch.empty(0, dtype=torch.uint8)
        # The keys' order is not kept; dicts compare without it.
        return _unpack, (buffer, layout, rest)


def _can_pack(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.device.type == "cpu" and value.numel() > 0


def _unpack(
    buffer: torch.Tensor,
    layout: list[list[tuple[str, int, torch.dtype, tuple[int, ...]]]],
    rest: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    """Rebuilds the records around views of `buffer`."""
    for record, places in zip(rest, layout):
        for key, offset, dtype, shape in places:
            numel = torch.Size(shape).numel()
            block = buffer[offset : offset + numel * dtype.itemsize]
            record[key] = block.view(dtype).view(shape)
    return rest
