import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from ldmseg_d2.ids import code_matrix
from ldmseg_d2.losses import factored_cross_entropy, id_cross_entropy


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    num_bits=st.integers(2, 8),
    scale=st.sampled_from([0.1, 1.0, 5.0]),
    void_weight=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_the_factored_loss_is_that_of_the_expanded_logits(seed, num_bits, scale, void_weight):
    generator = torch.Generator().manual_seed(seed)
    head = (scale * torch.randn(2, num_bits + 1, 3, 4, generator=generator)).requires_grad_()
    ids = torch.randint(2**num_bits, (2, 3, 4), generator=generator)
    # By definition: void, then every code times the bit logits.
    codes = torch.einsum("kb,nbhw->nkhw", code_matrix(num_bits), head[:, :-1])
    logits = torch.cat([head[:, -1:], codes], dim=1)
    closed = factored_cross_entropy(head, ids, void_weight=void_weight)
    naive = id_cross_entropy(logits, ids, void_weight=void_weight)
    torch.testing.assert_close(closed, naive, atol=1e-4, rtol=1e-4)
    gradients = [torch.autograd.grad(loss, head)[0] for loss in (closed, naive)]
    torch.testing.assert_close(*gradients, atol=1e-3, rtol=1e-3)


def test_void_counts_as_much_as_its_weight():
    logits, ids = torch.randn(1, 4, 2, 2), torch.tensor([[[0, 2], [3, 0]]])
    each = [F.cross_entropy(logits[0, :, y, x], ids[0, y, x]) for y in (0, 1) for x in (0, 1)]
    for weight in (0.0, 0.3):
        expected = (weight * (each[0] + each[3]) + each[1] + each[2]) / (2 + 2 * weight)
        torch.testing.assert_close(id_cross_entropy(logits, ids, void_weight=weight), expected)
    assert id_cross_entropy(logits, torch.zeros_like(ids)) == 0
