"""Stage 2: LDMSeg, the diffusion model that generates a photo's panoptic segmentation."""

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from diffusers import SchedulerMixin
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ID_ASSIGNMENTS
from ..diffusion import (
    diffusion_loss,
    initial_noise,
    predicted_x0,
    sample_latents,
    timestep_loss_weights,
)
from ..modeling.denoiser import Denoiser
from ..modeling.image_encoder import ImageEncoder
from ..modeling.mask_autoencoder import MaskAutoencoder
from ..structures import match_ids
from .batching import (
    SampleRandomness,
    image_generator,
    mostly_valid,
    spread_indices,
    stack_images,
    stack_segment_ids,
)
from .build import (
    FrozenPartsMixin,
    build_condition_encoder,
    build_denoiser,
    build_mask_autoencoder,
    build_noise_scheduler,
    encoder_parts,
    load_autoencoder_weights,
    pixel_statistics,
    postprocess_arguments,
)
from .latent_cache import LatentCache, build_latent_cache
from .mask_autoencoder import decode_panoptic, decoded_cross_entropy


@META_ARCH_REGISTRY.register()
class LDMSeg(FrozenPartsMixin, nn.Module):
    """Frozen mask autoencoder, image encoder, diffusers UNet and diffusers scheduler."""

    @configurable
    def __init__(
        self,
        *,
        autoencoder: MaskAutoencoder,
        image_encoder: ImageEncoder,
        denoiser: Denoiser,
        scheduler: SchedulerMixin,
        timestep_weights: Tensor,
        image_size: int,
        pixel_mean: list[float],
        pixel_std: list[float],
        id_assignment: str = "random",
        position_edges: tuple[list[float], list[float]] = ((), ()),
        num_inference_steps: int = 50,
        self_conditioning_prob: float = 0.5,
        masked_loss: bool = True,
        decoded_loss_weight: float = 0.0,
        freeze_image_encoder: bool = False,
        latent_cache: LatentCache | None = None,
        postprocess: dict | None = None,
        seed: int = 0,
    ) -> None:
        """
        Args:
            autoencoder: trained in stage 1, frozen here.
            image_encoder: photo to condition.
            denoiser: predicts what ``scheduler.config.prediction_type`` says.
            scheduler: forward process in training, sampler at test.
            timestep_weights: (T,) loss weight of each timestep.
            image_size: side S of the square that the networks see, pixels.
            pixel_mean, pixel_std: of the photo's R, G, B.
            id_assignment: "random", "ordered", "positional" or "matched".
            position_edges: inner bin edges of y and x for "positional"; empty: equal bins.
            num_inference_steps: of the sampler.
            self_conditioning_prob: probability of a first pass in training.
            masked_loss: leave cells that are mostly void out of the loss.
            decoded_loss_weight: weight of the cross-entropy of the decoded x0 prediction.
            freeze_image_encoder: freeze its ``backbone_names``, or all of it if it names none.
            latent_cache: keeps what a frozen image encoder gives in training.
            postprocess: keyword arguments of ``logits_to_panoptic``.
            seed: of the noise at test, together with the image's id.

        Raises:
            ValueError: a name that is not known, or sizes that do not fit.
        """
        super().__init__()
        if id_assignment not in ID_ASSIGNMENTS:
            raise ValueError(
                f"MODEL.LDMSEG.ID_ASSIGNMENT is {id_assignment!r}; allowed: {ID_ASSIGNMENTS}"
            )
        self.latent_size = image_size // autoencoder.downsample_factor
        if self.latent_size % denoiser.downsample_factor:
            raise ValueError(
                f"INPUT.LDMSEG.IMAGE_SIZE {image_size} gives latents of side {self.latent_size}; "
                f"the denoiser's levels need a multiple of {denoiser.downsample_factor}"
            )
        self.autoencoder = autoencoder
        self.image_encoder = image_encoder
        self.denoiser = denoiser
        self.scheduler = scheduler
        self.image_size = image_size
        self.id_assignment = id_assignment
        self.position_edges = position_edges
        self.num_inference_steps = num_inference_steps
        self.self_conditioning_prob = self_conditioning_prob
        self.masked_loss = masked_loss
        self.decoded_loss_weight = decoded_loss_weight
        self.latent_cache = latent_cache
        self.postprocess = postprocess or {}
        self.seed = seed
        mean, std = pixel_statistics(pixel_mean, pixel_std)
        self.register_buffer("pixel_mean", mean, persistent=False)
        self.register_buffer("pixel_std", std, persistent=False)
        self.register_buffer("timestep_weights", timestep_weights, persistent=False)
        frozen = encoder_parts("image_encoder", image_encoder) if freeze_image_encoder else []
        self.freeze_parts("autoencoder", *frozen)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        ldmseg = cfg.MODEL.LDMSEG
        autoencoder = build_mask_autoencoder(cfg)
        load_autoencoder_weights(autoencoder, ldmseg.AUTOENCODER.WEIGHTS)
        scheduler = build_noise_scheduler(cfg)
        return {
            "autoencoder": autoencoder,
            "image_encoder": build_condition_encoder(cfg),
            "denoiser": build_denoiser(cfg),
            "scheduler": scheduler,
            "timestep_weights": timestep_loss_weights(
                scheduler,
                weighting=ldmseg.DIFFUSION.LOSS_WEIGHTING,
                gamma=ldmseg.DIFFUSION.MIN_SNR_GAMMA,
            ),
            "image_size": cfg.INPUT.LDMSEG.IMAGE_SIZE,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "id_assignment": ldmseg.ID_ASSIGNMENT,
            "position_edges": (ldmseg.POSITIONAL.Y_EDGES, ldmseg.POSITIONAL.X_EDGES),
            "num_inference_steps": ldmseg.SAMPLER.NUM_INFERENCE_STEPS,
            "self_conditioning_prob": ldmseg.DIFFUSION.SELF_CONDITIONING_PROB,
            "masked_loss": ldmseg.DIFFUSION.MASKED_LOSS,
            "decoded_loss_weight": ldmseg.DIFFUSION.DECODED_LOSS_WEIGHT,
            "freeze_image_encoder": ldmseg.IMAGE_ENCODER.FREEZE,
            "latent_cache": build_latent_cache(cfg),
            "postprocess": postprocess_arguments(cfg),
            "seed": cfg.SEED,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one sample's latents."""
        return self.autoencoder.latent_channels, self.latent_size, self.latent_size

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """
        Args:
            batched_inputs: a list of dicts, one per picture, with

                * ``image``: uint8 (3, h, w) RGB, h and w at most ``image_size``;
                * ``height``, ``width``: size of the result (at test);
                * ``image_id``: seeds the noise at test, together with ``seed`` if given;
                * ``segment_ids``: int64 (h, w), 0 is void (in training);
                * ``sample_seed``: int, optional in training, see :class:`SampleRandomness`;
                * ``return_steps``: int, optional at test: decode this many intermediate x0
                  predictions as well.

        Returns:
            Training: ``loss_diffusion`` and, where it has a weight, ``loss_decoded``: scalars.
            Test: a list of dicts with ``panoptic_seg``, see :func:`logits_to_panoptic`, and where
            asked for ``steps``: dicts with ``timestep`` and ``panoptic_seg``.
        """
        images = stack_images(batched_inputs, self.image_size, self.pixel_mean, self.pixel_std)
        cache = self.latent_cache if self.training else None
        condition = cache(batched_inputs, images, self) if cache else self.encode_images(images)
        if self.training:
            return self._training_losses(batched_inputs, condition)
        return self._inference(batched_inputs, condition)

    def encode_images(self, images: Tensor) -> Tensor:
        """Condition (B, C', h, w) from photos (B, 3, S, S); on the latent's grid, unless tokens."""
        # What is frozen in it builds no graph: neither its weights nor photos need a gradient.
        condition = self.image_encoder(images)
        if self.denoiser.conditioning == "concat" and condition.shape[-1] != self.latent_size:
            condition = F.interpolate(
                condition, size=(self.latent_size,) * 2, mode="bilinear", align_corners=False
            )
        return condition

    @torch.no_grad()
    def encode_masks(
        self, segment_ids: Tensor, condition: Tensor, noise: Tensor, randomness: SampleRandomness
    ) -> tuple[Tensor, Tensor]:
        """Assign ids and encode them.

        Args:
            segment_ids: (B, S, S) int64, consecutive ids in each map.
            condition: (B, C', h, w), and
            noise: (B, C, h, w), the sample's own: "matched" ids depend on them.
            randomness: of "random" ids.

        Returns:
            Normalised latents (B, C, h, w), and the assigned ids (B, S, S).
        """
        segment_ids = segment_ids.to(self.device)
        if self.id_assignment == "matched":
            t = torch.full((len(noise),), len(self.timestep_weights) - 1, device=self.device)
            output = self.denoiser(noise, t, condition)
            x0 = predicted_x0(self.scheduler, output.float(), noise, t)
            decoded = self.autoencoder.decode(self.autoencoder.denormalize(x0))
            ids = match_ids(segment_ids, decoded, self.autoencoder.id_logits)
        else:
            ids = randomness.assign_ids(
                segment_ids,
                num_bits=self.autoencoder.num_bits,
                method=self.id_assignment,
                y_edges=self.position_edges[0],
                x_edges=self.position_edges[1],
            )
        return self.autoencoder.normalize(self.autoencoder.encode(ids).mean), ids

    def _training_losses(self, batched_inputs: list[dict], condition: Tensor) -> dict[str, Tensor]:
        max_segments = self.autoencoder.num_ids - 1
        segment_ids = stack_segment_ids(batched_inputs, self.image_size, max_segments)
        randomness = SampleRandomness(batched_inputs, self.device)
        noise = randomness.randn(*self.latent_shape)
        x0, ids = self.encode_masks(segment_ids, condition, noise, randomness)
        t = randomness.randint(len(self.timestep_weights))
        chosen = None
        if self.denoiser.self_conditioning:
            chosen = randomness.rand() < self.self_conditioning_prob
        valid = mostly_valid(ids, self.latent_size) if self.masked_loss else None
        result = diffusion_loss(
            lambda x_t, t, previous: self.denoiser(x_t, t, condition, previous),
            x0,
            t,
            noise,
            scheduler=self.scheduler,
            weights=self.timestep_weights,
            valid=valid,
            self_conditioning_mask=chosen,
        )
        losses = {"loss_diffusion": result.loss}
        if self.decoded_loss_weight > 0:
            loss = decoded_cross_entropy(self.autoencoder, result.x0, ids)
            losses["loss_decoded"] = self.decoded_loss_weight * loss
        return losses

    @torch.no_grad()
    def _inference(self, batched_inputs: list[dict], condition: Tensor) -> list[dict]:
        generators = [
            image_generator(entry.get("seed", self.seed), entry["image_id"], self.device)
            for entry in batched_inputs
        ]
        wanted = max(int(entry.get("return_steps", 0)) for entry in batched_inputs)
        shown = spread_indices(self.num_inference_steps, wanted)
        steps: list[tuple[int, Tensor]] = []

        def keep_step(i: int, t: int, x0: Tensor) -> None:
            if i in shown:
                steps.append((t, x0))

        x0 = sample_latents(
            lambda x_t, t, previous: self.denoiser(x_t, t, condition, previous),
            initial_noise(self.latent_shape, generators),
            scheduler=self.scheduler,
            num_inference_steps=self.num_inference_steps,
            self_conditioning=self.denoiser.self_conditioning,
            generators=generators,
            callback=keep_step,
        )
        outputs = [{"panoptic_seg": one} for one in self._decode(x0, batched_inputs)]
        for t, intermediate in steps:
            decoded = self._decode(intermediate, batched_inputs)
            for entry, output, one in zip(batched_inputs, outputs, decoded, strict=True):
                if entry.get("return_steps", 0):
                    output.setdefault("steps", []).append({"timestep": t, "panoptic_seg": one})
        return outputs

    def _decode(
        self, latents: Tensor, batched_inputs: list[dict]
    ) -> list[tuple[Tensor, list[dict]]]:
        head_output = self.autoencoder.decode(self.autoencoder.denormalize(latents))
        return [
            decode_panoptic(self.autoencoder, one, entry, self.postprocess)
            for one, entry in zip(head_output, batched_inputs, strict=True)
        ]
