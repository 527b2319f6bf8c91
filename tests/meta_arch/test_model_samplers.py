"""Every sampler in a whole model: all tasks, self-conditioning, classes, one picture with hints."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from tiny import CLASSES, JOINT, tiny_config, tiny_multitask_batch

from ldmseg_d2.config import SAMPLERS

OPTS = (
    *CLASSES,
    *("MODEL.LDMSEG.DEPTH.NORMALIZATION", "relative", "MODEL.LDMSEG.DEPTH.SCALE", "linear"),
    *("MODEL.LDMSEG.DIFFUSION.PREDICTION_TYPE", "v_prediction"),
    *("MODEL.LDMSEG.DIFFUSION.SELF_CONDITIONING", True),
    *("MODEL.LDMSEG.POSTPROCESS.COUNT_THRESHOLD", 1),
    *("MODEL.LDMSEG.SAMPLER.REPAINT_JUMP_LENGTH", 1),
)


@pytest.mark.parametrize("method", ["fixed", "repaint"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_batch_in_which_one_picture_has_known_parts(name, method):
    torch.manual_seed(0)
    opts = ("MODEL.LDMSEG.SAMPLER.NAME", name, "MODEL.LDMSEG.SAMPLER.INPAINTING", method)
    model = build_model(tiny_config(JOINT, *OPTS, *opts)).eval()
    first, second = tiny_multitask_batch(2)
    known_mask = torch.zeros(64, 64, dtype=torch.bool)
    known_mask[:32] = True
    given = {**second, "known_ids": second["segment_ids"] * known_mask, "known_mask": known_mask}
    with torch.no_grad():
        alone = model([{**first, "return_steps": 2}])[0]
        together = model([{**first, "return_steps": 2}, given])
    for key in ("sem_seg", "depth"):
        torch.testing.assert_close(together[0][key], alone[key], atol=1e-4, rtol=1e-4)
    assert [s["timestep"] for s in alone["steps"]] == [999, 333 if name == "LCM" else 332]
    # Given ids come out as given, whatever the network does.
    ids = together[1]["panoptic_seg"][0][known_mask]
    wanted = second["segment_ids"][known_mask].to(ids.dtype)
    assert torch.equal(ids[wanted != 0], wanted[wanted != 0])
    # Training draws any timestep, also after a sampling run.
    with EventStorage():
        losses = model.train()([first, second])
    assert all(torch.isfinite(loss) for loss in losses.values())
