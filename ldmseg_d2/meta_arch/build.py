"""Build the networks that both meta-architectures share from a config."""

import logging

import torch
from detectron2.config import CfgNode
from diffusers import SchedulerMixin
from torch import nn

from ..config import CLASSIFIERS, PREDICTION_TYPES
from ..diffusion import build_scheduler
from ..modeling.class_head import MaskPoolingHead
from ..modeling.denoiser import Denoiser
from ..modeling.depth_autoencoder import DepthAutoencoder
from ..modeling.image_encoder import ImageEncoder
from ..modeling.latent_autoencoder import LatentAutoencoder
from ..modeling.mask_autoencoder import MaskAutoencoder
from ..modeling.weights import load_into, load_weights, without_prefixes
from .condition import condition_channels
from .tasks import Task, TaskLayout, dataset_classes, task_classes
from .tasks.classifier import MaskPooling, SegmentClassifier, SemanticVote
from .tasks.outputs import Fusion, check_parts

logger = logging.getLogger(__name__)


def build_mask_autoencoder(cfg: CfgNode) -> MaskAutoencoder:
    """The autoencoder of ``cfg.MODEL.LDMSEG.AUTOENCODER``, with random weights."""
    ae = cfg.MODEL.LDMSEG.AUTOENCODER
    size = cfg.INPUT.LDMSEG.IMAGE_SIZE
    if size % ae.DOWNSAMPLE_FACTOR:
        raise ValueError(
            f"INPUT.LDMSEG.IMAGE_SIZE {size} must be a multiple of "
            f"MODEL.LDMSEG.AUTOENCODER.DOWNSAMPLE_FACTOR {ae.DOWNSAMPLE_FACTOR}"
        )
    if not 2 <= cfg.MODEL.LDMSEG.NUM_BITS <= 16:
        raise ValueError(f"MODEL.LDMSEG.NUM_BITS must be 2..16, got {cfg.MODEL.LDMSEG.NUM_BITS}")
    return MaskAutoencoder(
        num_bits=cfg.MODEL.LDMSEG.NUM_BITS,
        encoder=ae.ENCODER,
        decoder=ae.DECODER,
        head=ae.HEAD,
        downsample_factor=ae.DOWNSAMPLE_FACTOR,
        latent_channels=ae.LATENT_CHANNELS,
        encoder_channels=ae.ENCODER_CHANNELS,
        decoder_channels=ae.DECODER_CHANNELS,
        num_upsamplings=ae.NUM_UPSAMPLINGS,
        num_layers=ae.NUM_LAYERS,
        variational=ae.VARIATIONAL,
        latent_noise=ae.LATENT_NOISE,
        normalization=ae.NORMALIZATION,
        scaling_factor=ae.SCALING_FACTOR,
    )


def build_depth_autoencoder(cfg: CfgNode) -> DepthAutoencoder:
    """The autoencoder of ``cfg.MODEL.LDMSEG.DEPTH.AUTOENCODER``, with random weights."""
    depth, masks = cfg.MODEL.LDMSEG.DEPTH.AUTOENCODER, cfg.MODEL.LDMSEG.AUTOENCODER
    return DepthAutoencoder(
        downsample_factor=masks.DOWNSAMPLE_FACTOR,
        latent_channels=masks.LATENT_CHANNELS,
        channels=depth.CHANNELS,
        num_layers=depth.NUM_LAYERS,
        latent_noise=depth.LATENT_NOISE,
        normalization=depth.NORMALIZATION,
        scaling_factor=depth.SCALING_FACTOR,
    )


def load_autoencoder_weights(autoencoder: LatentAutoencoder, path: str) -> None:
    """Load a trained autoencoder (a checkpoint of stage 1, or safetensors), in place.

    Args:
        autoencoder: as configured.
        path: the value of its config key ``WEIGHTS``; empty: random weights stay, with a warning.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file's tensors are not those of this autoencoder.
    """
    key = f"{autoencoder.config_key}.WEIGHTS"
    if not path:
        logger.warning(
            "%s is empty: the autoencoder has random weights, and nothing useful can be trained or "
            "sampled in its latents",
            key,
        )
        return
    state = load_weights(path)
    prefix = "autoencoder."
    inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    inner = inner or state
    if autoencoder.normalization == "fixed":
        # A standardised one's networks work without its statistics, which "fixed" does not use.
        inner = without_prefixes(inner, ("running_",))
    load_into(autoencoder, inner, source=f"{key} {path}")


def build_autoencoders(cfg: CfgNode) -> dict[str, LatentAutoencoder]:
    """The trained autoencoders that ``MODEL.LDMSEG.TASKS`` need, by the attribute they become."""
    builders = {
        "autoencoder": (build_mask_autoencoder, cfg.MODEL.LDMSEG.AUTOENCODER),
        "depth_autoencoder": (build_depth_autoencoder, cfg.MODEL.LDMSEG.DEPTH.AUTOENCODER),
    }
    autoencoders = {}
    for name in dict.fromkeys(task.autoencoder_name for task in task_classes(cfg)):
        build, node = builders[name]
        autoencoders[name] = build(cfg)
        load_autoencoder_weights(autoencoders[name], node.WEIGHTS)
    return autoencoders


def build_layout(cfg: CfgNode, tasks: list[Task]) -> TaskLayout:
    """Where the tasks' latents are in a batch, by ``MODEL.LDMSEG.TASK_MODE``."""
    ldmseg = cfg.MODEL.LDMSEG
    return TaskLayout(tasks, mode=ldmseg.TASK_MODE, weights=ldmseg.TASK_WEIGHTS)


def build_classifier(cfg: CfgNode) -> SegmentClassifier:
    """What gives segments their classes, by ``MODEL.LDMSEG.CLASSIFIER``.

    Raises:
        ValueError: unknown name, a task is missing, or no data set tells the classes.
    """
    ldmseg = cfg.MODEL.LDMSEG
    if ldmseg.CLASSIFIER not in CLASSIFIERS:
        raise ValueError(
            f"MODEL.LDMSEG.CLASSIFIER is {ldmseg.CLASSIFIER!r}; allowed: {', '.join(CLASSIFIERS)}"
        )
    if ldmseg.CLASSIFIER == "none":
        return SegmentClassifier()
    needed = {"instance", "semantic"} if ldmseg.CLASSIFIER == "semantic_task" else {"instance"}
    if not needed <= set(ldmseg.TASKS):
        raise ValueError(
            f"MODEL.LDMSEG.CLASSIFIER {ldmseg.CLASSIFIER!r} needs {sorted(needed)} in "
            f"MODEL.LDMSEG.TASKS, which is {list(ldmseg.TASKS)}"
        )
    classes = dataset_classes(cfg)
    fusion = _build_fusion(ldmseg.POSTPROCESS)
    if ldmseg.CLASSIFIER == "semantic_task":
        return SemanticVote(classes, fusion=fusion)
    if fusion.region_area > 0:
        raise ValueError(
            f"MODEL.LDMSEG.POSTPROCESS.REGION_AREA {fusion.region_area} needs classes of pixels: "
            "MODEL.LDMSEG.CLASSIFIER 'semantic_task', which is 'mask_pooling'. Set it to -1"
        )
    head = MaskPoolingHead(in_channels=condition_channels(cfg), num_classes=classes.num_classes)
    return MaskPooling(
        classes,
        head=head,
        image_size=cfg.INPUT.LDMSEG.IMAGE_SIZE,
        loss_weight=ldmseg.CLASS_LOSS_WEIGHT,
        train_size=cfg.INPUT.LDMSEG.TRAIN_SIZE,
        fusion=fusion,
    )


def _build_fusion(post: CfgNode) -> Fusion:
    """From ``MODEL.LDMSEG.POSTPROCESS``; raises ValueError for values that make no sense."""
    check_parts(post, "MODEL.LDMSEG.POSTPROCESS")
    return Fusion(
        fill_stuff_area=post.FILL_STUFF_AREA,
        split_area=post.SPLIT_AREA,
        region_area=post.REGION_AREA,
        part_area=post.PART_AREA,
        part_share=post.PART_SHARE,
        keep_void=post.KEEP_VOID,
    )


def build_noise_scheduler(cfg: CfgNode) -> SchedulerMixin:
    """Forward process of ``MODEL.LDMSEG.DIFFUSION`` and sampler of ``MODEL.LDMSEG.SAMPLER``."""
    diffusion, sampler = cfg.MODEL.LDMSEG.DIFFUSION, cfg.MODEL.LDMSEG.SAMPLER
    if diffusion.PREDICTION_TYPE not in PREDICTION_TYPES:
        raise ValueError(
            f"MODEL.LDMSEG.DIFFUSION.PREDICTION_TYPE is {diffusion.PREDICTION_TYPE!r}; "
            f"allowed: {', '.join(PREDICTION_TYPES)}"
        )
    return build_scheduler(
        sampler.NAME,
        num_train_timesteps=diffusion.NUM_TRAIN_TIMESTEPS,
        beta_schedule=diffusion.BETA_SCHEDULE,
        beta_start=diffusion.BETA_START,
        beta_end=diffusion.BETA_END,
        prediction_type=diffusion.PREDICTION_TYPE,
        timestep_spacing=sampler.TIMESTEP_SPACING,
        rescale_betas_zero_snr=diffusion.RESCALE_BETAS_ZERO_SNR,
    )


def build_denoiser(cfg: CfgNode) -> Denoiser:
    """The UNet of ``MODEL.LDMSEG.DENOISER``, with an input for every latent and condition."""
    unet, embedding = cfg.MODEL.LDMSEG.DENOISER, cfg.MODEL.LDMSEG.TASK_EMBEDDING
    given = cfg.MODEL.LDMSEG.TRAIN_INPAINTING
    task_channels = cfg.MODEL.LDMSEG.AUTOENCODER.LATENT_CHANNELS
    joint = cfg.MODEL.LDMSEG.TASK_MODE == "joint"
    num_tasks = len(cfg.MODEL.LDMSEG.TASKS)
    return Denoiser(
        latent_channels=task_channels * (num_tasks if joint else 1),
        condition_channels=condition_channels(cfg),
        self_conditioning=cfg.MODEL.LDMSEG.DIFFUSION.SELF_CONDITIONING,
        block_out_channels=unet.BLOCK_OUT_CHANNELS,
        down_block_types=unet.DOWN_BLOCK_TYPES,
        up_block_types=unet.UP_BLOCK_TYPES,
        layers_per_block=unet.LAYERS_PER_BLOCK,
        attention_head_dim=unet.ATTENTION_HEAD_DIM,
        norm_num_groups=unet.NORM_NUM_GROUPS,
        pretrained=unet.PRETRAINED,
        conditioning=unet.CONDITIONING,
        cross_attention=unet.CROSS_ATTENTION,
        cross_attention_dim=unet.CROSS_ATTENTION_DIM,
        num_tasks=1 if joint else num_tasks,
        tokens_per_task=embedding.NUM_TOKENS,
        task_in_time_embedding=embedding.IN_TIME_EMBEDDING,
        known_channel=given.PROB > 0,
        draft_channels=task_channels if given.PROB > 0 and given.DRAFT else 0,
        draft_start=_draft_start(cfg),
        freeze=unet.FREEZE,
        gradient_checkpointing=unet.GRADIENT_CHECKPOINTING,
        channels_last=unet.CHANNELS_LAST,
        compile_unet=unet.COMPILE,
    )


def _draft_start(cfg: CfgNode) -> int | None:
    """First channel of the segments in the output; None where the output is not x0."""
    ldmseg = cfg.MODEL.LDMSEG
    if ldmseg.DIFFUSION.PREDICTION_TYPE != "sample" or "instance" not in ldmseg.TASKS:
        return None
    position = list(ldmseg.TASKS).index("instance") if ldmseg.TASK_MODE == "joint" else 0
    return position * ldmseg.AUTOENCODER.LATENT_CHANNELS


class FrozenPartsMixin:
    """Frozen sub-networks stay in eval mode inside ``train()`` and out of the checkpoint.

    ``frozen_prefixes`` names them as prefixes of the state dict, e.g.
    ``("autoencoder.", "image_encoder.backbone.")``.
    """

    frozen_prefixes: tuple[str, ...] = ()

    def freeze_parts(self, *names: str) -> None:
        """Freeze further sub-modules for good, such as ``image_encoder.backbone``."""
        self.frozen_prefixes += tuple(f"{name}." for name in names)
        for name in names:
            self.get_submodule(name).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)
        for prefix in self.frozen_prefixes:
            self.get_submodule(prefix[:-1]).eval()
        return self


def encoder_parts(name: str, encoder: ImageEncoder) -> list[str]:
    """What ``MODEL.LDMSEG.IMAGE_ENCODER.FREEZE`` freezes: dotted names of sub-modules."""
    return [f"{name}.{part}" for part in encoder.backbone_names] or [name]


def pixel_statistics(mean: list[float], std: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """``MODEL.PIXEL_MEAN`` and ``PIXEL_STD`` as (3, 1, 1) tensors."""
    return torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)
