import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ldmseg_d2.structures import code_matrix, decode_bits, encode_bits, gray_code


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
