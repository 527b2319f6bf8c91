"""Stage 2: LDMSeg, the diffusion model that generates a photo's segmentation."""

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from diffusers import SchedulerMixin
from torch import Tensor, nn
from torch.nn import functional as F

from ..diffusion import predicted_x0
from ..modeling.denoiser import Denoiser
from ..modeling.image_encoder import ImageEncoder
from .batching import check_padding, stack_images
from .build import (
    FrozenPartsMixin,
    build_autoencoders,
    build_classifier,
    build_denoiser,
    build_layout,
    build_noise_scheduler,
    encoder_parts,
    pixel_statistics,
)
from .condition import CellSupervision, build_condition_encoder, build_supervision
from .generation import generate
from .inpainting import InpaintingOptions
from .latent_cache import LatentCache, build_latent_cache
from .noise import NoiseOptions, build_noise_options, build_timestep_weights
from .tasks import Task, TaskLayout, build_tasks
from .tasks.classifier import SegmentClassifier
from .training import training_losses


@META_ARCH_REGISTRY.register()
class LDMSeg(FrozenPartsMixin, nn.Module):
    """Frozen autoencoders, image encoder, diffusers UNet and diffusers scheduler."""

    @configurable
    def __init__(
        self,
        *,
        autoencoders: dict[str, nn.Module],
        tasks: list[Task],
        layout: TaskLayout,
        image_encoder: ImageEncoder,
        denoiser: Denoiser,
        scheduler: SchedulerMixin,
        timestep_weights: Tensor,
        image_size: int,
        pixel_mean: list[float],
        pixel_std: list[float],
        num_inference_steps: int = 50,
        inpainting: InpaintingOptions | None = None,
        noise_options: NoiseOptions | None = None,
        self_conditioning_prob: float = 0.5,
        decoded_loss_weight: float = 0.0,
        train_inpainting_prob: float = 0.0,
        given_segments_share: float = 0.5,
        train_size: int = 0,
        padding: str = "mean",
        freeze_image_encoder: bool = False,
        latent_cache: LatentCache | None = None,
        classifier: SegmentClassifier | None = None,
        supervision: CellSupervision | None = None,
        seed: int = 0,
    ) -> None:
        """
        Args:
            autoencoders: trained in stage 1, frozen here; each becomes the attribute of its name,
                "autoencoder" (masks) or "depth_autoencoder".
            tasks: what is generated, each with one of the autoencoders.
            layout: where the tasks' latents are in a batch.
            image_encoder: photo to condition.
            denoiser: predicts what ``scheduler.config.prediction_type`` says.
            scheduler: forward process in training, sampler at test.
            timestep_weights: (T,) loss weight of each timestep.
            image_size: side S of the square that the networks see, pixels.
            pixel_mean, pixel_std: of the photo's R, G, B.
            num_inference_steps: of the sampler.
            inpainting: how given parts of a mask enter the sampler; None: the paper's way.
            noise_options: which timesteps training draws, or that it is a regression; None: the
                paper's.
            self_conditioning_prob: probability of a first pass in training.
            decoded_loss_weight: weight of a loss of the decoded x0 prediction.
            train_inpainting_prob: share of training samples that have some cells given.
            given_segments_share: share of these in which whole segments are given.
            train_size: side of the square in training, pixels; 0: ``image_size``.
            padding: of photos, see :func:`stack_images`.
            freeze_image_encoder: freeze its ``backbone_names``, or all of it if it names none.
            latent_cache: keeps what a frozen image encoder gives in training.
            classifier: gives segments their classes; None: they have none.
            supervision: a loss on the condition; None: none.
            seed: of the noise at test, together with the image's id.

        Raises:
            ValueError: a name that is not known, or sizes that do not fit.
        """
        super().__init__()
        for key, size in (("IMAGE_SIZE", image_size), ("TRAIN_SIZE", train_size or image_size)):
            side, rest = divmod(size * layout.latent_size, image_size)
            if rest or side % denoiser.downsample_factor:
                raise ValueError(
                    f"INPUT.LDMSEG.{key} {size} gives latents of side {side}; the denoiser's "
                    f"levels need a multiple of {denoiser.downsample_factor}"
                )
        for name, autoencoder in autoencoders.items():
            self.add_module(name, autoencoder)
        self.tasks = tasks
        self.layout = layout
        self.image_encoder = image_encoder
        self.denoiser = denoiser
        self.scheduler = scheduler
        self.image_size = image_size
        self.train_size = train_size or image_size
        self.padding = check_padding(padding)
        self.num_inference_steps = num_inference_steps
        self.inpainting = inpainting or InpaintingOptions()
        self.noise_options = noise_options or NoiseOptions()
        self.self_conditioning_prob = self_conditioning_prob
        self.decoded_loss_weight = decoded_loss_weight
        self.train_inpainting_prob = train_inpainting_prob
        self.given_segments_share = given_segments_share
        self.latent_cache = latent_cache
        self.classifier = classifier or SegmentClassifier()
        self.supervision = supervision
        self.seed = seed
        mean, std = pixel_statistics(pixel_mean, pixel_std)
        self.register_buffer("pixel_mean", mean, persistent=False)
        self.register_buffer("pixel_std", std, persistent=False)
        self.register_buffer("timestep_weights", timestep_weights, persistent=False)
        frozen = encoder_parts("image_encoder", image_encoder) if freeze_image_encoder else []
        self.freeze_parts(*autoencoders, *frozen)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        ldmseg = cfg.MODEL.LDMSEG
        autoencoders = build_autoencoders(cfg)
        tasks = build_tasks(cfg, autoencoders)
        scheduler = build_noise_scheduler(cfg)
        return {
            "autoencoders": autoencoders,
            "tasks": tasks,
            "layout": build_layout(cfg, tasks),
            "image_encoder": build_condition_encoder(cfg),
            "denoiser": build_denoiser(cfg),
            "scheduler": scheduler,
            "timestep_weights": build_timestep_weights(cfg, scheduler),
            "image_size": cfg.INPUT.LDMSEG.IMAGE_SIZE,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "num_inference_steps": ldmseg.SAMPLER.NUM_INFERENCE_STEPS,
            "inpainting": InpaintingOptions.from_config(cfg),
            "noise_options": build_noise_options(cfg),
            "self_conditioning_prob": ldmseg.DIFFUSION.SELF_CONDITIONING_PROB,
            "decoded_loss_weight": ldmseg.DIFFUSION.DECODED_LOSS_WEIGHT,
            "train_inpainting_prob": ldmseg.TRAIN_INPAINTING.PROB,
            "given_segments_share": ldmseg.TRAIN_INPAINTING.SEGMENTS_SHARE,
            "train_size": cfg.INPUT.LDMSEG.TRAIN_SIZE,
            "padding": ldmseg.IMAGE_ENCODER.PADDING,
            "freeze_image_encoder": ldmseg.IMAGE_ENCODER.FREEZE,
            "latent_cache": build_latent_cache(cfg),
            "classifier": build_classifier(cfg),
            "supervision": build_supervision(cfg),
            "seed": cfg.SEED,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C', h, w) of one row of latents: one task's, or all tasks' where they are joint."""
        return self.layout.latent_channels, self.latent_size, self.latent_size

    @property
    def latent_size(self) -> int:
        """Side h of the latents, in training that of its crops."""
        size = self.train_size if self.training else self.image_size
        return size * self.layout.latent_size // self.image_size

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
            is the mean over the batch; where they have a weight, ``loss_decoded``, ``loss_class``
            and ``loss_cells``: scalars. Test: a list of dicts, see :func:`assemble_output`:
            ``panoptic_seg`` (:func:`logits_to_panoptic`; :func:`merge_classes` with a classifier),
            ``instances``, ``sem_seg`` (C, H, W) probabilities, ``depth`` (H, W), those that were
            asked for; with several draws also ``uncertainty`` (H, W) in [0, 1] and ``samples``
            (:func:`join_draws`); where asked for ``steps``: dicts with ``timestep`` and
            ``panoptic_seg``.
        """
        side = self.train_size if self.training else self.image_size
        images = stack_images(
            batched_inputs, side, self.pixel_mean, self.pixel_std, padding=self.padding
        )
        cache = self.latent_cache if self.training else None
        if cache:
            condition = self._condition(cache(batched_inputs, images, self))
        else:
            condition = self.encode_images(images)
        if self.training:
            return training_losses(self, batched_inputs, condition)
        return generate(self, batched_inputs, condition)

    def encode_images(self, images: Tensor) -> Tensor:
        """Condition (B, C', h, w) from photos (B, 3, S, S); on the latent's grid, unless tokens."""
        return self._condition(self.image_features(images))

    def _condition(self, features: Tensor) -> Tensor:
        return features if self.supervision is None else self.supervision.extend(features)

    def image_features(self, images: Tensor) -> Tensor:
        """As :meth:`encode_images`, without what :meth:`CellSupervision.extend` appends."""
        # What is frozen in it builds no graph: neither its weights nor photos need a gradient.
        features = self.image_encoder(images)
        size = self.latent_size
        if self.denoiser.conditioning == "concat" and features.shape[-1] != size:
            features = F.interpolate(
                features, size=(size, size), mode="bilinear", align_corners=False
            )
        return features

    @torch.no_grad()
    def predict_from_noise(self, noise: Tensor, condition: Tensor, told: Tensor) -> Tensor:
        """x0 (R, C', h, w) that the network predicts at t = T - 1; "matched" ids depend on it."""
        t = torch.full((len(noise),), len(self.timestep_weights) - 1, device=self.device)
        output = self.denoiser(noise, t, condition, task=told)
        return predicted_x0(self.scheduler, output.float(), noise, t)
