import pytest
import torch
from bit_autoencoder import BitAutoencoder
from torch.nn import functional as F

from ldmseg_d2.ids import encode_bits
from ldmseg_d2.inpainting import encode_given
from ldmseg_d2.inpainting.given_parts import fill_unknown
from ldmseg_d2.meta_arch.task_batches import Block
from ldmseg_d2.meta_arch.tasks import InstanceTask

BITS, SIDE = 4, 16


def entry_of(shown=(12, 16), scale=2):
    """A photo that fills the square's top, a result twice as large, and its given left half."""
    size = (shown[0] * scale, shown[1] * scale)
    ids = torch.zeros(size, dtype=torch.int64)
    ids[:8, :14], ids[8:, :14], ids[:4, :4] = 70, 9, 0
    entry = {"image": torch.zeros(3, *shown, dtype=torch.uint8), "file_name": "photo.png"}
    return entry | {"height": size[0], "width": size[1], "known_ids": ids, "known_classes": {9: 5}}


def encode(entries, rows=(0, 2), predicted=None, seed=0):
    """Two pictures; the segments' latents are rows 0 and 2, in the last channels."""
    task = InstanceTask(BitAutoencoder(BITS), image_size=SIDE)
    block = None if rows is None else Block(task, list(rows), slice(16, 32))
    like = torch.zeros(4, 32, SIDE // 2, SIDE // 2)
    generators = [torch.Generator().manual_seed(seed + row) for row in range(4)]
    return encode_given(
        entries, block, [1, 0, 0, 0], like=like, generators=generators, predicted=predicted
    )


def test_latents_and_cells_are_those_of_the_given_part():
    nothing = {"image": torch.zeros(3, 16, 16), "height": 16, "width": 16}
    known = encode([entry_of(), nothing])
    assert known.latents.shape == known.mask.shape == (4, 32, 8, 8) and list(known.parts) == [0]
    assert not known.mask[[0, 1, 3]].any() and not known.mask[2, :16].any()
    assert not known.latents[[0, 1, 3]].any() and not known.latents[2, :16].any()
    # 14 of 32 columns are 7 of 16, which fill 3 cells; the given void has no id.
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[:6, :3], expected[0, 0] = True, False
    assert torch.equal(known.mask[2, 16:], expected.expand(16, 8, 8))
    # The latents under the codes, continued to the nearest given pixels.
    codes = {given: code - 1 for code, given in known.codes[0].items()}
    small = entry_of()["known_ids"][::2, ::2]
    named = torch.zeros_like(small)
    for label in (9, 70):
        named[small == label] = codes[label]
    filled = F.pad(fill_unknown(named, small != 0), (0, 0, 0, 4))
    wanted = 0.5 * F.pixel_unshuffle(encode_bits(filled[None], BITS), 2)[0]
    torch.testing.assert_close(known.latents[2, 16:], wanted)
    assert known.keep([{}, {}]) == [{"keep_ids": list(codes[i] for i in (9, 70))}, {"keep_ids": []}]
    assert known.ids(0) == [9, 70] and known.ids(1) == []
    assert known.told(0)["given_classes"] == {9: 5, 70: None} and known.told(1) == {}


def test_matched_codes_are_what_the_network_predicts_in_the_given_part():
    entry = entry_of()
    named = torch.full((SIDE, SIDE), 3)
    named[:4, :7], named[4:, :7] = 5, 12
    predicted = torch.zeros(4, 32, 8, 8)
    predicted[2, 16:] = 0.5 * F.pixel_unshuffle(encode_bits(named[None], BITS), 2)[0]
    nothing = {"image": torch.zeros(3, 16, 16), "height": 16, "width": 16}
    assert encode([entry, nothing], predicted=predicted).codes == {0: {6: 70, 13: 9}}


def test_pixels_and_ids_are_put_back_only_where_something_is_given():
    entry = entry_of()
    known = encode([entry, dict(entry, known_ids=torch.zeros(24, 32, dtype=torch.int64),
                                known_classes=None)])  # fmt: skip
    panoptic = torch.full((24, 32), next(iter(known.codes[0])), dtype=torch.int32)
    info = [{"id": int(panoptic[0, 0]), "category_id": 0, "isthing": True, "score": 0.5}]
    outputs = [{"panoptic_seg": (panoptic, info)} for _ in range(2)]
    first, second = known.put_back([dict(one) for one in outputs], min_area=1)
    ids, parts = first["panoptic_seg"][0], known.parts[0]
    assert torch.equal(ids[parts.mask].long(), entry["known_ids"][parts.mask])
    assert second["panoptic_seg"][0] is panoptic
    assert known.put_back([{"depth": 1}, {}], min_area=1) == [{"depth": 1}, {}]


def test_given_segments_without_a_row_for_them():
    for rows in (None, (0,)):
        with pytest.raises(ValueError, match="photo.png.*completed by the task 'instance'"):
            encode([entry_of(), {}], rows=rows)
