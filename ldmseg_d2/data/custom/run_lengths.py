"""Run-length encodings of masks: COCO's, CVAT's and Label Studio's.

Lengths are checked before anything is allocated. pycocotools does not do that: for counts that are
too short it returns uninitialised memory. Label Studio's SDK needs pandas, lxml and nltk.
"""

import numpy as np


def _fill(counts: list[int], total: int) -> np.ndarray:
    """Runs of False and True in turn, beginning with False, as bool (total,)."""
    if any(c < 0 for c in counts) or sum(counts) != total:
        raise ValueError(f"run lengths sum to {sum(counts)}, expected {total} pixels")
    return np.repeat(np.arange(len(counts)) % 2 == 1, np.array(counts, dtype=np.int64))


def decode_coco(counts: list[int] | str | bytes, size: tuple[int, int]) -> np.ndarray:
    """Decodes COCO's RLE, column by column, beginning with background, as bool (H, W).

    `counts` are the run lengths, or their compressed form: runs from the fourth on as the
    difference to the run two before, each in groups of 5 bits, lowest first, as characters 48 +
    group + 32 if another follows
    (https://github.com/cocodataset/cocoapi/blob/8c9bcc3/common/maskApi.c).
    """
    if isinstance(counts, str):
        counts = counts.encode("ascii", errors="replace")
    if isinstance(counts, bytes):
        counts = _decompress(counts)
    height, width = size
    return _fill([int(c) for c in counts], height * width).reshape(width, height).T


def _decompress(text: bytes) -> list[int]:
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
    counts: list[int], box: tuple[int, int, int, int], size: tuple[int, int]
) -> np.ndarray:
    """Decodes the RLE of CVAT's XML, row by row in a box, background first, as bool (H, W).

    `box` is (left, top, width, height) in pixels.
    """
    left, top, width, height = box
    inside = left >= 0 and top >= 0 and left + width <= size[1] and top + height <= size[0]
    if not inside or width <= 0 or height <= 0:
        raise ValueError(
            f"mask at ({left}, {top}), {width}x{height}, is not inside the picture "
            f"({size[1]}x{size[0]})"
        )
    mask = np.zeros(size, dtype=bool)
    filled = _fill(counts, width * height).reshape(height, width)
    mask[top : top + height, left : left + width] = filled
    return mask


def unpack_words(content: bytes, expected: int) -> np.ndarray:
    """Unpacks thi.ng's rle-pack, a bit stream: https://www.npmjs.com/package/@thi.ng/rle-pack.

    32 bits: number of words; 5 bits: word size - 1; 4 x 4 bits: four sizes of run lengths - 1.
    Then, until all words are there: a bit (1: one word repeated, 0: a chunk of single words), 2
    bits that choose a size, in that size the number of words - 1, and the word or words. It must
    hold `expected` words; what follows the last is padding. Result: uint8, int64 for
    words above 8 bits.
    """
    position = 0

    def read(bits: int) -> int:
        nonlocal position
        start, position = position, position + bits
        if position > 8 * len(content):
            raise ValueError("run-length code ends too early")
        chunk = content[start // 8 : (position + 7) // 8]
        return (int.from_bytes(chunk, "big") >> (-position % 8)) & ((1 << bits) - 1)

    total = read(32)
    if total != expected:
        raise ValueError(f"run-length code holds {total} values, expected {expected}")
    word_bits = read(5) + 1
    run_bits = [read(4) + 1 for _ in range(4)]
    words = np.zeros(total, dtype=np.uint8 if word_bits <= 8 else np.int64)
    done = 0
    while done < total:
        repeated = read(1)
        number = read(run_bits[read(2)]) + 1
        if done + number > total:
            raise ValueError("run-length code holds more values than it announces")
        words[done : done + number] = (
            read(word_bits) if repeated else [read(word_bits) for _ in range(number)]
        )
        done += number
    return words


def decode_label_studio(rle: list[int], size: tuple[int, int]) -> np.ndarray:
    """Decodes the brush masks of Label Studio: an RGBA picture, packed, whose alpha is the mask.

    Bool (H, W): where alpha is above half of its largest value; brushes have soft edges.
    """
    height, width = size
    if not isinstance(rle, list):  # bytes(number) would allocate that many
        raise ValueError("its rle is no list of bytes")
    words = unpack_words(bytes(rle), 4 * height * width)
    alpha = words.reshape(height, width, 4)[..., 3]
    return alpha > alpha.max(initial=0) / 2
