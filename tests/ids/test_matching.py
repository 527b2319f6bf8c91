import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from maps import scattered

from ldmseg_d2.ids import code_matrix, encode_bits, matched_id_table, random_ids, relabel


def expand(bits):
    """Logits of void and the 15 ids of 4 bits."""
    logits = torch.einsum("kb,nbhw->nkhw", code_matrix(4), bits)
    return torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1)


@given(seed=st.integers(0, 10**6), count=st.integers(1, 3))
def test_no_other_naming_has_a_larger_score(seed, count):
    ids = scattered(seed, count, (5, 6))
    generator = torch.Generator().manual_seed(seed)
    predicted = torch.randn(4, 5, 6, generator=generator)
    weights = torch.randn(6, 4, generator=generator)
    table = matched_id_table(
        ids, count, predicted, lambda x: torch.einsum("kc,nchw->nkhw", weights, x)
    )
    logits = torch.einsum("kc,chw->khw", weights, predicted)

    def total(names):
        return sum(float(logits[name][ids == k + 1].mean()) for k, name in enumerate(names))

    assert table[0] == 0 and len(set(table.tolist())) == count + 1
    best = max(total(names) for names in itertools.permutations(range(1, 6), count))
    assert total(table[1:].tolist()) == pytest.approx(best, abs=1e-4)


@given(seed=st.integers(0, 10**6), order=st.permutations(range(1, 7)))
def test_a_naming_is_found_again_whatever_the_ids_are_called(seed, order):
    ids = scattered(seed, 6)
    generator = torch.Generator().manual_seed(seed)
    named = random_ids(ids[None], 4, [generator])
    noisy = (encode_bits(named, 4) + 0.2 * torch.randn(1, 4, 12, 16, generator=generator))[0]
    for own in (ids, relabel(ids, torch.tensor([0, *order]))):
        assert torch.equal(relabel(own, matched_id_table(own, 6, noisy, expand)), named[0])


def test_more_segments_than_ids_raise():
    with pytest.raises(ValueError, match="16 segments, but there are 15 ids"):
        matched_id_table(scattered(0, 16), 16, torch.zeros(4, 12, 16), expand)
