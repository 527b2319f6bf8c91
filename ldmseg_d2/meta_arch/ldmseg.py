"""LDMSeg (arXiv 2401.10227): a diffusion model that generates a photo's segmentation.

Stage 1, in ``autoencoders.py``, has taught an autoencoder to turn segment ids into a small latent
x_0 and back. Here, stage 2, a UNet learns to predict x_0 from x_t = a_t x_0 + s_t noise and the
photo (:meth:`LDMSeg.compute_losses`), and so turns noise into masks (:meth:`LDMSeg.generate`).
"""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from diffusers import SchedulerMixin
from torch import Tensor, nn
from torch.nn import functional as F

from ..diffusion import (
    SampleRandomness,
    diffusion_loss,
    image_generator,
    initial_noise,
    predict_from_noise,
    sample_latents,
    spread_steps,
)
from ..inpainting import GivenSegments, draw_known_latents, encode_given, join_draws, repeat_draws
from ..modeling.denoiser import Denoiser
from ..modeling.image_encoder import ImageEncoder
from .batching import stack_images
from .build import FrozenPartsMixin, image_encoder_parts, ldmseg_from_config
from .segment_classes import SegmentClassifier, thing_instances
from .task_batches import Batch, TaskLayout, decode_tasks, encode_targets


@META_ARCH_REGISTRY.register()
class LDMSeg(FrozenPartsMixin, nn.Module):
    """Frozen autoencoders, image encoder, diffusers UNet and diffusers scheduler."""

    @configurable
    def __init__(
        self,
        *,
        autoencoders: dict[str, nn.Module],
        layout: TaskLayout,
        image_encoder: ImageEncoder,
        denoiser: Denoiser,
        scheduler: SchedulerMixin,
        timestep_weights: Tensor,
        image_size: int,
        train_size: int = 0,
        pixel_mean: list[float],
        pixel_std: list[float],
        num_inference_steps: int = 50,
        self_conditioning_prob: float = 0.5,
        train_inpainting_prob: float = 0.0,
        freeze_image_encoder: bool = False,
        classifier: SegmentClassifier | None = None,
        seed: int = 0,
    ) -> None:
        """
        Args:
            autoencoders: trained in stage 1, frozen here; each becomes the attribute of its name,
                "autoencoder" (masks) or "depth_autoencoder".
            layout: the tasks, and where their latents are in a batch.
            image_encoder: photo to condition.
            denoiser: predicts what ``scheduler.config.prediction_type`` says.
            scheduler: forward process in training, sampler at test.
            timestep_weights: (T,) loss weight of each timestep.
            image_size, train_size: side S of the square that the networks see at test and in
                training, pixels; a ``train_size`` of 0: the same.
            pixel_mean, pixel_std: of the photo's R, G, B.
            num_inference_steps: of the sampler.
            self_conditioning_prob, train_inpainting_prob: shares of training samples that see a
                first prediction, and of which some cells are given.
            freeze_image_encoder: freeze its ``backbone_names``, or all of it if it names none.
            classifier: gives segments their classes; None: they have none.
            seed: of the noise at test, together with the image's id.
        """
        super().__init__()
        self.image_size, self.train_size = image_size, train_size or image_size
        self.layout = layout
        layout.check_sides(denoiser.downsample_factor, image_size, self.train_size)
        for name, autoencoder in autoencoders.items():
            self.add_module(name, autoencoder)
        self.image_encoder = image_encoder
        self.denoiser = denoiser
        self.scheduler = scheduler
        self.num_inference_steps = num_inference_steps
        self.self_conditioning_prob = self_conditioning_prob
        self.train_inpainting_prob = train_inpainting_prob
        self.classifier = classifier or SegmentClassifier()
        self.seed = seed
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)
        self.register_buffer("timestep_weights", timestep_weights, persistent=False)
        frozen = image_encoder_parts(image_encoder) if freeze_image_encoder else []
        self.freeze_parts(*autoencoders, *frozen)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return ldmseg_from_config(cfg)

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C', h, w) of one row of latents: one task's, or all tasks' where they are joint."""
        size = self.train_size if self.training else self.image_size
        side = size * self.layout.latent_size // self.image_size
        return self.layout.latent_channels, side, side

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """
        Args:
            batched_inputs: a list of dicts, one per picture, with

                * ``image``: uint8 (3, h, w) RGB, h and w at most ``image_size`` (``train_size``);
                * ``height``, ``width``: size of the result (at test);
                * ``image_id``: seeds the noise at test, together with ``seed`` if given;
                * ``tasks``: names, optional at test: only these; without it all of the model's;
                * ``known_ids``: int (H, W), at test: ids of given segments, 0 elsewhere, which are
                  completed (inpainting); ``known_mask``: bool (H, W), the given pixels, without it
                  those with an id; ``known_classes``: their classes by id, optional;
                * ``num_samples``: int, at test: draw as many masks and give their consensus;
                * ``segment_ids``: int64 (h, w), 0 is void; ``segments_info``: its classes;
                  ``sem_seg``: int64 (h, w), 255 is void; ``depth``: float32 (h, w) metres, 0 is
                  invalid (in training; the tasks that a picture lacks teach nothing);
                * ``sample_seed``: int, optional in training, see :class:`SampleRandomness`;
                * ``return_steps``: int, optional at test: decode this many intermediate x0
                  predictions of the segments as well.

        Returns:
            Training: ``loss_diffusion``, or with several tasks ``loss_<task>`` for each, whose sum
            is the mean over the batch; with a head that classifies, ``loss_class``: scalars. Test:
            a list of dicts with those that were asked for: ``panoptic_seg``
            (:func:`logits_to_panoptic`; with classes :func:`merge_classes`, and then
            ``instances``), ``sem_seg`` (C, H, W) probabilities, ``depth`` (H, W); with several
            draws also ``uncertainty`` and ``samples`` (:func:`join_draws`); ``steps``: dicts with
            ``timestep`` and ``panoptic_seg``.
        """
        if self.training:
            return self.compute_losses(batched_inputs)
        return self.generate(batched_inputs)

    def compute_losses(self, batched_inputs: list[dict]) -> dict[str, Tensor]:
        """One training step (LDMSeg, section 3.2); see :meth:`forward`."""
        # 1. The photos, as a condition on the latents' grid.
        condition = self.encode_images(batched_inputs)  # [B, C'', h, w]

        # 2. Noise, and which tasks each picture teaches.
        randomness = SampleRandomness(batched_inputs, self.device)
        noise = randomness.randn(*self.latent_shape)  # [B, C', h, w]
        batch = self.layout.for_training(batched_inputs, randomness)
        conditions = {"condition": condition, "task": batch.tasks}

        # 3. Matched ids (not in the paper): the network's own x_0 from that noise names segments.
        predicted = self.predict_for_matching(noise, conditions)

        # 4. Clean latents x_0 of the ground truth.
        targets = encode_targets(
            batch, batched_inputs, like=noise, randomness=randomness, predicted=predicted
        )

        # 5. Training for inpainting (not in the paper): cells of some samples are given.
        known = None
        if self.train_inpainting_prob > 0:
            known = draw_known_latents(
                batch.segments,
                targets.ids,
                like=noise,
                prob=self.train_inpainting_prob,
                randomness=randomness,
            )
            conditions["known"] = known.any(dim=1, keepdim=True)

        # 6. Predict x_0 from x_t at a random t, for some samples with a first prediction beside it.
        t = randomness.randint(len(self.timestep_weights))  # [B]
        chosen = None
        if self.denoiser.self_conditioning:
            chosen = randomness.rand() < self.self_conditioning_prob
        result = diffusion_loss(
            self.denoiser,
            targets.x0,
            t,
            noise,
            conditions=conditions,
            scheduler=self.scheduler,
            weights=self.timestep_weights,
            valid=targets.valid,
            cell_weights=targets.weights,
            known=known,
            self_conditioning_mask=chosen,
        )
        losses = self.layout.losses(batch, targets, result)
        return {**losses, **self.classifier.losses(condition, batched_inputs)}

    @torch.no_grad()
    def generate(self, batched_inputs: list[dict]) -> list[dict]:
        """From photos to segmentations (LDMSeg, section 3.3); see :meth:`forward`."""
        # 1. The photos, as a condition on the latents' grid; several draws are inputs of their own.
        entries, condition = batched_inputs, self.encode_images(batched_inputs)  # [B, C'', h, w]
        several = any("num_samples" in entry for entry in batched_inputs)
        if several:
            pictures, entries = repeat_draws(batched_inputs)
            condition = condition[pictures]

        # 2. A row of latents for the asked tasks.
        batch = self.layout.for_inference(entries)
        conditions = {"condition": condition[batch.images], "task": batch.tasks}

        # 3. Noise that depends on nothing but seed, image, task and draw.
        keys = self.layout.noise_keys(entries, batch)
        generators = [
            image_generator(entries[i].get("seed", self.seed), key, self.device)
            for i, key in zip(batch.images, keys, strict=True)
        ]
        noise = initial_noise(self.latent_shape, generators)  # [R, C', h, w]

        # 4. Inpainting: what a user has given, as clean latents.
        given = None
        if any({"known_ids", "known_mask", "known_classes"} & entry.keys() for entry in entries):
            given = encode_given(
                entries,
                batch.segments,
                batch.images,
                like=noise,
                generators=generators,
                predicted=self.predict_for_matching(noise, conditions),
            )
            conditions["known"] = given.mask.any(dim=1, keepdim=True)

        # 5. From noise to latents, step by step.
        steps: list[tuple[int, Tensor]] = []
        wanted = max(int(entry.get("return_steps", 0)) for entry in entries)
        x0 = sample_latents(
            self.denoiser,
            noise,
            conditions=conditions,
            scheduler=self.scheduler,
            num_inference_steps=self.num_inference_steps,
            self_conditioning=self.denoiser.self_conditioning,
            generators=generators,
            callback=(lambda i, t, x0: steps.append((t, x0))) if wanted else None,
            known_latents=None if given is None else given.latents,
            known_mask=None if given is None else given.mask,
        )

        # 6. From latents to maps at the photos' sizes; segments get their classes.
        outputs = []
        for i, decoded in enumerate(self._decode(batch, x0, entries, given)):
            told = {} if given is None else given.told(i)
            outputs.append(self.classifier(decoded, entries[i], condition[i], **told))
        for t, intermediate in spread_steps(steps, wanted):
            decoded = self._decode(batch.only_segments(), intermediate, entries, given)
            for entry, output, one in zip(entries, outputs, decoded, strict=True):
                if entry.get("return_steps", 0) and one:
                    output.setdefault("steps", []).append({"timestep": t, **one})

        # 7. What several draws have in common; things as Detectron2's instances.
        if several:
            outputs = join_draws(
                pictures,
                outputs,
                given_ids=[[] if given is None else given.ids(i) for i in range(len(entries))],
                min_area=self.layout.min_area,
            )
        for output in outputs:
            # Segments have no classes where the task that votes was not asked for.
            if self.classifier.classes is not None and {"panoptic_seg", "sem_seg"} <= set(output):
                output["instances"] = thing_instances(*output["panoptic_seg"])
        return outputs

    def encode_images(self, batched_inputs: list[dict]) -> Tensor:
        """Condition (B, C'', h, w) of the photos, on the latents' grid."""
        side = self.train_size if self.training else self.image_size
        images = stack_images(batched_inputs, side, self.pixel_mean, self.pixel_std)
        features = self.image_encoder(images)
        size = self.latent_shape[1:]
        if features.shape[-2:] != size:
            features = F.interpolate(features, size=size, mode="bilinear", align_corners=False)
        return features

    def predict_for_matching(self, noise: Tensor, conditions: dict[str, Tensor]) -> Tensor | None:
        """x0 (R, C', h, w) that the network predicts from pure noise; None where ids are random."""
        if not any(task.needs_prediction for task in self.layout.tasks):
            return None
        return predict_from_noise(
            self.denoiser, noise, conditions=conditions, scheduler=self.scheduler
        )

    def _decode(
        self, batch: Batch, x0: Tensor, entries: list[dict], given: GivenSegments | None
    ) -> list[dict[str, Any]]:
        """What the tasks make of latents, with given pixels and ids put back."""
        if given is None:
            return decode_tasks(batch, x0, entries)
        outputs = decode_tasks(batch, x0, given.keep(entries))
        return given.put_back(outputs, min_area=self.layout.min_area)
