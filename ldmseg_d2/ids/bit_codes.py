"""Segment ids as analog bits (arXiv 2208.04202; LDMSeg, arXiv 2401.10227, section 3.1)."""

import torch
from torch import Tensor


def encode_bits(ids: Tensor, num_bits: int) -> Tensor:
    """Write every id as ``num_bits`` analog bits, least significant first.

    Args:
        ids: (B, H, W) integer ids in 0..2^num_bits - 1; 0 is void.
        num_bits: bits of an id.

    Returns:
        (B, num_bits, H, W) float32: -1 or 1 for a bit of 0 or 1; 0 in every bit where void, so that
        void is equally far from all ids.

    Raises:
        ValueError: an id is negative or needs more bits.
    """
    if ids.numel() and not (0 <= int(ids.min()) and int(ids.max()) < 2**num_bits):
        raise ValueError(
            f"ids span {int(ids.min())}..{int(ids.max())}, but {num_bits} bits hold 0.."
            f"{2**num_bits - 1}: reduce the segments or raise MODEL.LDMSEG.NUM_BITS"
        )
    shifts = torch.arange(num_bits, device=ids.device).view(1, -1, 1, 1)
    bits = (ids.long().unsqueeze(1) >> shifts) & 1  # [B, num_bits, H, W]
    return (2 * bits - 1).float() * (ids != 0).unsqueeze(1)


def code_matrix(num_bits: int) -> Tensor:
    """The +-1 codes of the ids 1..2^num_bits - 1, one row each.

    Returns:
        (2^num_bits - 1, num_bits) float32 in {-1, 1}, least significant bit first.
    """
    ids = torch.arange(1, 2**num_bits).unsqueeze(1)
    return 2.0 * ((ids >> torch.arange(num_bits)) & 1) - 1


def semantic_codes(num_classes: int, num_bits: int, method: str = "consecutive") -> Tensor:
    """The id under which each class is encoded, the same in all pictures.

    Args:
        num_classes: C.
        num_bits: bits of an id; they hold 2^num_bits - 1 classes.
        method: "consecutive": class + 1; "spread": ids whose codes differ in as many bits as
            possible, found greedily as a lexicographic code (Conway and Sloane, 1986,
            doi 10.1109/TIT.1986.1057187), so that a wrong bit does not make another class.

    Returns:
        (C,) int64 on the CPU in 1..2^num_bits - 1, increasing.

    Raises:
        ValueError: too many classes, or an unknown method.
    """
    num_ids = 2**num_bits
    if not 0 < num_classes < num_ids:
        raise ValueError(
            f"{num_classes} classes do not fit {num_bits} bits, which hold 1..{num_ids - 1}: "
            "change MODEL.LDMSEG.NUM_BITS (8 hold 255)"
        )
    if method == "consecutive":
        return torch.arange(1, num_classes + 1, device="cpu")
    if method != "spread":
        raise ValueError(f"MODEL.LDMSEG.SEMANTIC.CODES is {method!r}; allowed: consecutive, spread")
    for least in range(num_bits, 0, -1):
        chosen: list[int] = []
        for code in range(1, num_ids):
            if all((code ^ other).bit_count() >= least for other in chosen):
                chosen.append(code)
            if len(chosen) == num_classes:
                return torch.tensor(chosen, device="cpu")
    raise AssertionError("at a distance of 1 all ids are free")
