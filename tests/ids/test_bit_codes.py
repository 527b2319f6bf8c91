import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ldmseg_d2.ids import code_matrix, decode_bits, encode_bits, gray_code, semantic_codes


@given(num_bits=st.integers(2, 12), seed=st.integers(0, 2**31))
def test_bits_round_trip(num_bits, seed):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2**num_bits, (2, 5, 7), generator=generator)
    bits = encode_bits(ids, num_bits)
    assert bits.shape == (2, num_bits, 5, 7)
    assert set(bits.unique().tolist()) <= {-1.0, 0.0, 1.0}
    assert torch.equal(decode_bits(bits), ids)


def test_bits_are_least_significant_first_and_void_is_zero():
    bits = encode_bits(torch.tensor([[[0, 1, 6]]]), 3)[0, :, 0]  # [bit, pixel]
    assert bits.T.tolist() == [[0, 0, 0], [1, -1, -1], [-1, 1, 1]]


def test_ids_that_do_not_fit_raise():
    with pytest.raises(ValueError, match="2 bits hold 0..3"):
        encode_bits(torch.tensor([[[4]]]), 2)


def test_code_matrix_rows_are_the_codes_of_the_ids():
    codes = code_matrix(4)
    assert codes.shape == (15, 4)
    for k in range(1, 16):
        assert codes[k - 1].tolist() == [1.0 if k >> b & 1 else -1.0 for b in range(4)]


def test_gray_code_neighbours_differ_in_one_bit():
    codes = gray_code(torch.arange(64)).tolist()
    assert len(set(codes)) == 64
    assert all((a ^ b).bit_count() == 1 for a, b in zip(codes[:-1], codes[1:], strict=True))


def hamming(a: int, b: int) -> int:
    return (a ^ b).bit_count()


def lexicode(num_bits: int, least: int) -> list[int]:
    """Conway and Sloane's greedy code over 1..2^num_bits - 1, by definition."""
    chosen: list[int] = []
    for word in range(1, 2**num_bits):
        if all(hamming(word, other) >= least for other in chosen):
            chosen.append(word)
    return chosen


def test_consecutive_semantic_codes_are_the_class_plus_one():
    assert semantic_codes(5, 3).tolist() == [1, 2, 3, 4, 5]
    assert semantic_codes(255, 8, "consecutive").tolist() == list(range(1, 256))


def test_spread_semantic_codes_of_the_scenes():
    """11 classes in 7 bits differ in at least 3: one wrong bit is still nearest to its class."""
    codes = semantic_codes(11, 7, "spread").tolist()
    pairs = [(a, b) for a in codes for b in codes if a < b]
    assert min(hamming(a, b) for a, b in pairs) == 3


@pytest.mark.parametrize(
    "num_classes, num_bits", [(1, 2), (3, 2), (2, 5), (16, 5), (11, 7), (40, 8)]
)
def test_spread_semantic_codes_are_the_widest_lexicographic_code(num_classes, num_bits):
    wide_enough = (
        code
        for least in range(num_bits, 0, -1)
        if len(code := lexicode(num_bits, least)) >= num_classes
    )
    assert (
        semantic_codes(num_classes, num_bits, "spread").tolist() == next(wide_enough)[:num_classes]
    )


def test_spread_semantic_codes_up_to_the_last_id():
    codes = semantic_codes(255, 8, "spread").tolist()
    assert sorted(codes) == list(range(1, 256))


def test_spread_semantic_codes_of_many_bits_need_little_memory():
    """A matrix of all pairs of 16-bit ids would have 17 GB."""
    codes = semantic_codes(8, 16, "spread")
    assert len(set(codes.tolist())) == 8 and int(codes.min()) >= 1 and int(codes.max()) < 2**16


@pytest.mark.parametrize("num_classes, num_bits", [(0, 7), (128, 7), (256, 8), (4, 2)])
def test_classes_that_do_not_fit_the_bits_raise(num_classes, num_bits):
    with pytest.raises(ValueError, match=f"{num_classes} classes do not fit.*NUM_BITS"):
        semantic_codes(num_classes, num_bits)


def test_unknown_semantic_codes_raise():
    with pytest.raises(ValueError, match="SEMANTIC.CODES is 'gray'; allowed: consecutive, spread"):
        semantic_codes(4, 7, "gray")
