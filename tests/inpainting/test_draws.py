import pytest
import torch
from maps import segments_of

from ldmseg_d2.inpainting import consensus, join_draws, repeat_draws


def test_every_draw_is_an_input_of_its_own():
    pictures, entries = repeat_draws([{"image_id": 5, "num_samples": 2}, {"image_id": 6}])
    assert pictures == [0, 0, 1] and [e["draw"] for e in entries] == [0, 1, 0]
    assert [e["image_id"] for e in entries] == [5, 5, 6]
    for wrong in (0, 1.5, True, "2"):
        with pytest.raises(ValueError, match="a.png: its 'num_samples' is .*from 1 on"):
            repeat_draws([{"file_name": "a.png", "num_samples": wrong}])


def test_draws_are_joined_by_consensus_and_means():
    maps = [torch.tensor([[40, 40, 7, 7]]), torch.tensor([[40, 40, 40, 3]]), torch.zeros(1, 4)]
    draws = [
        {"panoptic_seg": (ids, segments_of(ids)), "depth": torch.full((1, 4), float(k)),
         "sem_seg": torch.full((2, 1, 4), float(k)), "steps": [k]}
        for k, ids in enumerate(maps)
    ]  # fmt: skip
    given_ids = [[40], [40], []]
    first, last = join_draws([0, 0, 1], draws, given_ids=given_ids, min_area=3)
    panoptic, info, uncertainty = consensus(
        [draws[k]["panoptic_seg"] for k in (0, 1)], min_area=3, fixed_ids=[40]
    )
    assert torch.equal(first["panoptic_seg"][0], panoptic) and first["panoptic_seg"][1] == info
    assert torch.equal(first["uncertainty"], uncertainty) and first["steps"] == [0]
    assert [one[0] for one in first["samples"]] == maps[:2]
    assert first["depth"].eq(0.5).all() and first["sem_seg"].eq(0.5).all()
    assert last == draws[2]
