"""Run-length encodings of masks: COCO's, CVAT's and Label Studio's.

All three come from files of strangers: lengths are checked before anything is allocated. (Some
versions of pycocotools write out of bounds when they decode counts that are too long.)
"""

import numpy as np

__all__ = ["decode_coco", "decode_cvat", "decode_label_studio", "unpack_words"]


def _fill(counts: list[int], total: int) -> np.ndarray:
    """Runs of False and True in turn, beginning with False, as bool (total,)."""
    if any(c < 0 for c in counts) or sum(counts) != total:
        raise ValueError(f"run lengths sum to {sum(counts)}, expected {total} pixels")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, np.array(counts, dtype=np.int64))


def decode_coco(counts: list[int] | str | bytes, size: tuple[int, int]) -> np.ndarray:
    """Decodes COCO's RLE: column by column, beginning with background.

    Args:
        counts: the run lengths, or their compressed form: runs from the fourth on as the
            difference to the run two before, each in groups of 5 bits, lowest first, as characters
            48 + group + 32 if another follows
            (https://github.com/cocodataset/cocoapi/blob/8c9bcc3cf640524c4c20a9c40e89cb6a2f2fa0e9/common/maskApi.c).
        size: (height, width).

    Returns:
        bool (H, W).

    Raises:
        ValueError: if the runs do not fill the mask, or the text is no such code.
    """
    if isinstance(counts, str):
        counts = counts.encode("ascii", errors="replace")
    if isinstance(counts, bytes):
        counts = _decompress(counts)
    height, width = size
    return _fill([int(c) for c in counts], height * width).reshape(width, height).T


def _decompress(text: bytes) -> list[int]:
    """The run lengths of COCO's compressed form."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        group = character - 48
        if not 0 <= group < 64 or shift > 60:
            raise ValueError(f"character {chr(character)!r} is not part of COCO's compressed RLE")
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:  # the highest group carries the sign
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("COCO's compressed RLE ends in the middle of a number")
    return counts


def decode_cvat(
    counts: list[int], *, left: int, top: int, width: int, height: int, size: tuple[int, int]
) -> np.ndarray:
    """Decodes the RLE of CVAT's XML: row by row inside a box, beginning with background.

    Args:
        counts: the run lengths.
        left, top, width, height: the box, pixels.
        size: (height, width) of the picture.

    Returns:
        bool (H, W).

    Raises:
        ValueError: if the runs do not fill the box, or the box is not inside the picture.
    """
    if left < 0 or top < 0 or left + width > size[1] or top + height > size[0]:
        raise ValueError(
            f"mask at ({left}, {top}), {width}x{height}, is not inside the picture "
            f"({size[1]}x{size[0]})"
        )
    if width <= 0 or height <= 0:
        raise ValueError(f"mask is {width}x{height} pixels")
    mask = np.zeros(size, dtype=bool)
    mask[top : top + height, left : left + width] = _fill(counts, width * height).reshape(
        height, width
    )
    return mask


class _Bits:
    """Reads numbers of any width from bytes, highest bit first."""

    def __init__(self, content: bytes):
        self.content = content
        self.position = 0

    def read(self, bits: int) -> int:
        """The next `bits` bits as a number."""
        start, end = self.position, self.position + bits
        if end > 8 * len(self.content):
            raise ValueError("run-length code ends too early")
        self.position = end
        chunk = self.content[start // 8 : (end + 7) // 8]
        return (int.from_bytes(chunk, "big") >> (-end % 8)) & ((1 << bits) - 1)

    def read_words(self, number: int, bits: int) -> np.ndarray:
        """The next `number` words of `bits` bits, int64 (number,)."""
        start, end = self.position, self.position + number * bits
        if end > 8 * len(self.content):
            raise ValueError("run-length code ends too early")
        self.position = end
        chunk = np.frombuffer(self.content[start // 8 : (end + 7) // 8], dtype=np.uint8)
        flat = np.unpackbits(chunk)[start % 8 : start % 8 + number * bits]
        weights = 1 << np.arange(bits - 1, -1, -1, dtype=np.int64)
        return flat.reshape(number, bits) @ weights


def unpack_words(content: bytes, expected: int) -> np.ndarray:
    """Unpacks thi.ng's rle-pack, a bit stream: https://www.npmjs.com/package/@thi.ng/rle-pack.

    32 bits: number of words; 5 bits: word size - 1; 4 x 4 bits: four sizes of run lengths - 1.
    Then, until all words are there: a bit (1: one word repeated, 0: a chunk of single words), 2
    bits that choose a size, in that size the number of words - 1, and the word or words.

    Args:
        content: the packed bytes; what follows the last word is padding.
        expected: the number of words that it must hold.

    Returns:
        uint8 (expected,), int64 where words have more than 8 bits.

    Raises:
        ValueError: if it holds another number, or ends early.
    """
    bits = _Bits(content)
    total = bits.read(32)
    if total != expected:
        raise ValueError(f"run-length code holds {total} values, expected {expected}")
    word_bits = bits.read(5) + 1
    run_bits = [bits.read(4) + 1 for _ in range(4)]
    words = np.zeros(total, dtype=np.uint8 if word_bits <= 8 else np.int64)
    done = 0
    while done < total:
        repeated = bits.read(1)
        number = bits.read(run_bits[bits.read(2)]) + 1
        if done + number > total:
            raise ValueError("run-length code holds more values than it announces")
        if repeated:
            words[done : done + number] = bits.read(word_bits)
        else:
            words[done : done + number] = bits.read_words(number, word_bits)
        done += number
    return words


def decode_label_studio(rle: list[int], size: tuple[int, int]) -> np.ndarray:
    """Decodes the brush masks of Label Studio: an RGBA picture, packed, whose alpha is the mask.

    Args:
        rle: bytes as numbers.
        size: (height, width) of the picture.

    Returns:
        bool (H, W): where alpha is above half of its largest value; brushes have soft edges.

    Raises:
        ValueError: if it is no such code or of another size.
    """
    height, width = size
    if not isinstance(rle, list):  # bytes(number) would allocate that many
        raise ValueError("its rle is no list of bytes")
    words = unpack_words(bytes(rle), 4 * height * width)
    alpha = words.reshape(height, width, 4)[..., 3]
    return alpha > alpha.max(initial=0) / 2
