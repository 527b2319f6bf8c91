"""Hooks of the trainer: buffers, EMA, checkpoints, pictures."""

import logging
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from detectron2.engine import HookBase, hooks

from ldmseg_d2.visualization import PANELS, Style, draw_annotations, draw_outputs, enlarge, grid

logger = logging.getLogger(__name__)

# Pixels: smaller pictures are enlarged by a whole factor.
MIN_DRAWN_SIDE = 256
# Pictures from the front of a batch.
MAX_DRAWN = 4


class SyncBuffersHook(HookBase):
    """Gives all processes the running statistics of the first one, after every step.

    Otherwise each would have those of its own pictures, evaluate differently, and lose them when
    training is resumed.
    """

    def after_step(self) -> None:
        for buffer in self.trainer.unwrapped_model.buffers():
            if buffer.is_floating_point():
                dist.broadcast(buffer, src=0)


class EMAHook(HookBase):
    """Updates ``trainer.ema`` after every optimizer step."""

    def after_step(self) -> None:
        self.trainer.ema.update(self.trainer.unwrapped_model)


class PeriodicCheckpointer(hooks.PeriodicCheckpointer):
    """Detectron2's, which also deletes the oldest checkpoints of the run that it resumes."""

    def before_train(self) -> None:
        super().before_train()
        for path in sorted(Path(self.checkpointer.save_dir).glob("model_*.pth")):
            number = path.stem.removeprefix("model_")
            if number.isdigit() and int(number) < self.trainer.start_iter:
                self.recent_checkpoints.append(str(path))


class VisualizationHook(HookBase):
    """Puts pictures of the current batch into the event storage, see :func:`draw_sample`."""

    def __init__(self, period: int) -> None:
        """``period``: iterations between pictures; 0: none."""
        self._period = period

    def after_step(self) -> None:
        if self._period <= 0 or (self.trainer.iter + 1) % self._period != 0:
            return
        try:
            self._put_images()
        except Exception:
            # A picture is not worth a training.
            logger.exception("Drawing pictures failed: no more of them in this training.")
            self._period = 0

    @torch.no_grad()
    def _put_images(self) -> None:
        inputs = []
        for sample in self.trainer.batch[:MAX_DRAWN]:
            height, width = sample["image"].shape[-2:]
            # The truth has the size of the photo after augmentation: the prediction shall, too.
            inputs.append({**sample, "height": height, "width": width})
        model = self.trainer.evaluation_model
        was_training = model.training
        try:
            outputs = model.eval()(inputs)
        finally:
            model.train(was_training)
        for index, (sample, output) in enumerate(zip(inputs, outputs)):
            picture = draw_sample(sample, output)
            self.trainer.storage.put_image(f"train/{index}", picture.transpose(2, 0, 1))


def draw_sample(sample: dict, output: dict) -> np.ndarray:
    """Draw a photo beside its ground truth and its predictions, as far as they exist.

    Args:
        sample: ``image`` (uint8 CHW, RGB) and annotations, see :func:`draw_annotations`.
        output: of the model, see :func:`draw_outputs`.

    Returns:
        uint8 RGB: the photo, then truth and prediction of segments, classes and depth.
    """
    image = sample["image"].permute(1, 2, 0).cpu().numpy()
    # Pictures of 64 px are too small to look at.
    style = Style(scale=max(1, MIN_DRAWN_SIDE // max(image.shape[:2])))
    truths = draw_annotations(image, sample, style)
    predictions = draw_outputs(image, output, style, sample)
    panels = {"photo": enlarge(image, style.scale)}
    for kind in PANELS:
        # Of what the model does not give, segments alone are shown: they are the usual subject.
        if kind in truths and (kind in predictions or (kind == "panoptic" and not predictions)):
            panels[f"true {kind}"] = truths[kind]
        if kind in predictions:
            panels[kind] = predictions[kind]
    return grid([list(panels.values())], [list(panels)])
