"""The whole inference path on the reference implementation's weights, inputs and outputs."""

import pytest
import torch

from ldmseg_d2.modeling.mask_autoencoder import MaskAutoencoder
from ldmseg_d2.panoptic import logits_to_panoptic


@pytest.mark.parametrize("name", ["logits", "confident_logits"])
@pytest.mark.parametrize("image", [0, 1])
def test_panoptic_maps_are_the_references(reference, name, image):
    post = reference["metadata"]["post"]
    panoptic, segments_info = logits_to_panoptic(
        reference[name][image],
        tuple(post["original_size"]),
        mask_threshold=post["mask_th"],
        overlap_threshold=post["overlap_th"],
        count_threshold=post["count_th"],
    )
    expected = reference[f"panoptic_{name}_{image}"]
    assert torch.equal(panoptic, expected)
    assert {s["id"] for s in segments_info} == set(expected.unique().tolist()) - {0}
    assert all(s["area"] == int((expected == s["id"]).sum()) for s in segments_info)


@torch.no_grad()
def test_sampled_latents_decode_to_the_references_logits(reference):
    autoencoder = MaskAutoencoder().eval()
    autoencoder.load_state_dict({k[3:]: v for k, v in reference.items() if k.startswith("ae.")})
    logits = autoencoder.decode(autoencoder.denormalize(reference["sample_50_selfcond"]))
    torch.testing.assert_close(logits, reference["logits"], atol=1e-4, rtol=1e-4)
