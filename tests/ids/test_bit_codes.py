import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ldmseg_d2.ids import code_matrix, encode_bits, semantic_codes


@given(num_bits=st.integers(2, 12), seed=st.integers(0, 2**31))
def test_bits_are_the_ids_binary_digits_and_void_is_zero(num_bits, seed):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2**num_bits, (2, 3, 5), generator=generator)
    ids[0, 0, 0] = 0
    bits = encode_bits(ids, num_bits)
    assert bits.shape == (2, num_bits, 3, 5)
    for id_, code in zip(ids.flatten().tolist(), bits.movedim(1, -1).reshape(-1, num_bits)):
        digits = [2.0 * int(digit) - 1 for digit in f"{id_:0{num_bits}b}"[::-1]]
        assert code.tolist() == (digits if id_ else [0.0] * num_bits)
    assert torch.equal(code_matrix(num_bits)[ids[ids > 0] - 1], bits.movedim(1, -1)[ids > 0])


@pytest.mark.parametrize("id_", [-1, 4])
def test_ids_that_do_not_fit_raise(id_):
    with pytest.raises(ValueError, match="2 bits hold 0..3"):
        encode_bits(torch.tensor([[[0, id_]]]), 2)


def distance(a: int, b: int) -> int:
    return (a ^ b).bit_count()


@pytest.mark.parametrize(
    "num_classes, num_bits, least", [(3, 2, 1), (2, 5, 5), (11, 7, 3), (40, 8, None), (255, 8, 1)]
)
def test_spread_codes_are_the_widest_lexicographic_code(num_classes, num_bits, least):
    """Conway and Sloane's greedy code, by definition; 11 classes survive one wrong bit of 7."""
    found = semantic_codes(num_classes, num_bits, "spread").tolist()
    for wanted in range(num_bits, 0, -1):
        code: list[int] = []
        for word in range(1, 2**num_bits):
            if all(distance(word, other) >= wanted for other in code):
                code.append(word)
        if len(code) >= num_classes:
            break
    assert found == code[:num_classes]
    if least is not None:
        assert min(distance(a, b) for a in found for b in found if a < b) == least


def test_semantic_codes_by_name():
    assert semantic_codes(255, 8).tolist() == list(range(1, 256))
    with pytest.raises(ValueError, match="SEMANTIC.CODES is 'gray'; allowed: consecutive, spread"):
        semantic_codes(4, 7, "gray")
    for num_classes in (0, 128):
        with pytest.raises(ValueError, match=f"{num_classes} classes do not fit.*NUM_BITS"):
            semantic_codes(num_classes, 7)
