"""Keys of the networks, the diffusion process, the tasks and the post-processing."""

from detectron2.config import CfgNode as CN

# Keys with a fixed set of values: a config is checked before anything is built.
CHOICES = {
    "MODEL.LDMSEG.ID_ASSIGNMENT": ("random", "matched"),
    "MODEL.LDMSEG.DIFFUSION.PREDICTION_TYPE": ("epsilon", "sample", "v_prediction"),
    "MODEL.LDMSEG.DIFFUSION.LOSS_WEIGHTING": ("min_snr", "uniform"),
    "MODEL.LDMSEG.SAMPLER.NAME": ("DDIM", "DDPM", "DPMSolver++", "UniPC"),
    "MODEL.LDMSEG.TASK_MODE": ("separate", "joint"),
    "MODEL.LDMSEG.CLASSIFIER": ("none", "semantic_task", "mask_pooling"),
}


def add_model_config(cfg: CN) -> None:
    """Add the keys of ``MODEL.LDMSEG``, in place."""
    cfg.MODEL.LDMSEG = m = CN()
    # Bits of a segment id. 7 bits give ids 1..127 (0 is void), 8 bits 1..255. Allowed: 2..16.
    m.NUM_BITS = 7
    # How training assigns ids to segments:
    #   "random":  drawn without replacement for every sample (the paper);
    #   "matched": for every sample the ids that lie nearest to what the network itself predicts
    #              from pure noise (Hungarian matching over segments and ids; one more forward pass
    #              without gradient). The noise, not the data, decides between equivalent namings.
    m.ID_ASSIGNMENT = "random"
    _add_autoencoder_config(m)
    _add_diffusion_config(m)
    _add_network_config(m)
    _add_task_config(m)
    _add_postprocess_config(m)


def _add_autoencoder_config(m: CN) -> None:
    m.AUTOENCODER = ae = CN()
    # Stage 2 reads the trained autoencoder from here: a checkpoint of LDMSegAutoencoder (.pth) or
    # safetensors. Empty: random weights, with a warning.
    ae.WEIGHTS = ""
    # "conv": the paper's encoder (conv, then [conv, stride-2 conv, SiLU] for each factor 2);
    # "pixel_unshuffle": space-to-depth by DOWNSAMPLE_FACTOR, then 3x3 convs at low resolution.
    ae.ENCODER = "conv"
    # "transposed_conv": twice [2x2 stride-2 transposed conv, LayerNorm, SiLU], then bilinear
    #     upsampling of the logits for what is left of DOWNSAMPLE_FACTOR (the paper);
    # "pixel_shuffle": 3x3 convs at low resolution, then depth-to-space.
    ae.DECODER = "transposed_conv"
    # "id_logits": one output channel per id (the paper);
    # "factored": NUM_BITS bit logits and a void logit; the ids' logits are their fixed +-1 code
    #     times the bit logits.
    ae.HEAD = "id_logits"
    # Picture side over latent side; a power of 2.
    ae.DOWNSAMPLE_FACTOR = 8
    # Channels of the latent.
    ae.LATENT_CHANNELS = 4
    # "conv": channels after the first conv, doubled at each factor 2.
    # "pixel_unshuffle": channels of every conv.
    ae.ENCODER_CHANNELS = 32
    # Channels of the decoder.
    ae.DECODER_CHANNELS = 256
    # "pixel_unshuffle", "pixel_shuffle": number of residual blocks at low resolution.
    ae.NUM_LAYERS = 3
    # Gaussian posterior (mean and log-variance): sampled in training, its mean used after.
    # False: the encoder gives the latent directly.
    ae.VARIATIONAL = True
    # Noise added to the latents in training, in units of each channel's standard deviation:
    # a decoder that tolerates it tolerates what a diffusion model samples.
    ae.LATENT_NOISE = 0.0
    # How latents are scaled for the diffusion model: "fixed" multiplies by SCALING_FACTOR (the
    # paper); "standardize" subtracts each channel's mean and divides by its standard deviation
    # (running statistics of stage 1), then multiplies by SCALING_FACTOR.
    # Stage 2 may take another one than stage 1 had, but no "standardize" of latents that stage 1
    # did not measure.
    ae.NORMALIZATION = "fixed"
    ae.SCALING_FACTOR = 0.18215
    # Losses of stage 1 beside the cross-entropy over ids: weights of binary cross-entropy and dice
    # per ground-truth segment, and of the KL term, a mean over latent values: the method's first
    # implementation sums over them, so that its 1e-5, which badly hurts, is 0.16 here at 512 px.
    ae.LOSS = CN()
    ae.LOSS.BCE_WEIGHT = 1.0
    ae.LOSS.DICE_WEIGHT = 1.0
    ae.LOSS.KL_WEIGHT = 0.0
    # Weight of void pixels in the cross-entropy; 0: void is left out (the paper).
    ae.LOSS.VOID_WEIGHT = 0.0
    # Points per picture, chosen by uncertainty as in PointRend (arXiv 1912.08193): the most
    # uncertain of three times as many, and a quarter at random. 0: the losses see every pixel.
    ae.LOSS.NUM_POINTS = 12544


def _add_diffusion_config(m: CN) -> None:
    m.DIFFUSION = d = CN()
    # What the network predicts: "epsilon" (the paper), "sample" (x0) or "v_prediction".
    d.PREDICTION_TYPE = "epsilon"
    # Weight of the squared error at each timestep: "min_snr" (arXiv 2303.09556 with gamma 2, for
    # the chosen PREDICTION_TYPE) or "uniform" (1).
    d.LOSS_WEIGHTING = "min_snr"
    # Leave latent cells that are mostly void in the ground truth out of the loss.
    d.MASKED_LOSS = True
    # Latent cells weigh by the area of their segments: area^-SEGMENT_BALANCE for each pixel, a
    # picture's mean being 1. 0: every cell the same (the paper), 1: every segment the same.
    d.SEGMENT_BALANCE = 0.0
    # Feed the previous x0 prediction back (Analog Bits, arXiv 2208.04202): extra input channels,
    # and in training the probability of a first pass that makes the prediction.
    d.SELF_CONDITIONING = True
    d.SELF_CONDITIONING_PROB = 0.5

    m.SAMPLER = s = CN()
    # "DDIM" (the paper), "DDPM" (draws noise at every step), "DPMSolver++" or "UniPC" (second
    # order). A trained model works with each of them; docs/STUDIES.md compares them.
    s.NAME = "DDIM"
    # 1..1000. The timesteps are spread from T - 1, pure noise, on ("trailing" spacing).
    s.NUM_INFERENCE_STEPS = 50


def _add_network_config(m: CN) -> None:
    m.DENOISER = u = CN()
    # Pretrained UNet2DConditionModel: a local folder (Stable Diffusion's 1.x or 2.x layout, or what
    # save_pretrained wrote) or an id on the Hugging Face hub; its input conv is widened with zeros.
    # Empty: random weights, sizes below; a trained checkpoint loads into that as well, where the
    # sizes are the same.
    u.PRETRAINED = ""
    # Channels of the learnt tokens of several "separate" tasks, which the UNet's cross-attention
    # reads; PRETRAINED has its own. For one task the cross-attention is removed (the paper).
    u.CROSS_ATTENTION_DIM = 768
    # Add a learnt vector of the task to the timestep's embedding as well: small UNets have
    # cross-attention only at their lowest resolution, but read the timestep everywhere.
    u.TASK_IN_TIME_EMBEDDING = False
    # Sizes without PRETRAINED: arguments of diffusers' UNet2DConditionModel; the defaults are
    # Stable Diffusion 1.x's.
    u.BLOCK_OUT_CHANNELS = [320, 640, 1280, 1280]
    u.DOWN_BLOCK_TYPES = ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
    u.UP_BLOCK_TYPES = ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3
    u.LAYERS_PER_BLOCK = 2
    # diffusers' name for the number of heads, for historical reasons.
    u.ATTENTION_HEAD_DIM = 8
    u.NORM_NUM_GROUPS = 32
    # Name parts of parameters that stay frozen.
    u.FREEZE = ["time_embedding"]
    # Less memory and more time in training.
    u.GRADIENT_CHECKPOINTING = False
    # Memory format of the convolutions, often faster on GPUs; the results are the same.
    u.CHANNELS_LAST = False
    # torch.compile the UNet at its first call: minutes once, needs a C++ compiler. The keys of
    # checkpoints do not change.
    u.COMPILE = False

    m.IMAGE_ENCODER = e = CN()
    # Name in IMAGE_ENCODER_REGISTRY: "ConvImageEncoder", "VAEImageEncoder" (Stable Diffusion's),
    # "DINOv2ImageEncoder", "TimmImageEncoder", or your own.
    e.NAME = "ConvImageEncoder"
    # Channels of the image condition, which the UNet sees beside the latents.
    e.OUT_CHANNELS = 4
    # Frozen: eval mode, no gradient, not in the checkpoint. Of DINOv2 and timm's networks this is
    # the backbone (the projection after it is always trained), of the others the whole encoder.
    e.FREEZE = False
    # Further keyword arguments of that class, in capitals, e.g. for ConvImageEncoder
    # {WIDTHS: [32, 64, 128, 256], NUM_BLOCKS: 1}; an argument it does not take raises. All are
    # listed in docs/EXTENDING.md.
    e.OPTIONS = CN(new_allowed=True)


def _add_task_config(m: CN) -> None:
    # What the model generates, any of:
    #   "instance": every segment, thing or stuff, under an id of its own. It gives panoptic_seg,
    #               class-agnostic unless CLASSIFIER names the segments' classes;
    #   "semantic": a class for every pixel, sem_seg;
    #   "depth":    depth;
    # or a task of your own (docs/EXTENDING.md).
    m.TASKS = ["instance"]
    # "separate": each task is a sampling run of its own, told to the UNet by learnt tokens through
    #     its cross-attention (the paper); training draws one task for every picture.
    # "joint": one run generates all tasks together, their latents side by side as channels.
    m.TASK_MODE = "separate"
    # One weight for each of TASKS; empty: equal. "separate": how often training draws the task,
    # relative to the other tasks for which a picture has annotations. "joint": weight of its loss.
    m.TASK_WEIGHTS = []
    # Number of classes C and which of 0..C - 1 are things. 0: what the metadata of the first data
    # set of DATASETS.TRAIN says.
    m.NUM_CLASSES = 0
    m.THING_CLASSES = []
    # How segments get classes, so that panoptic_seg has categories:
    #   "none":          they have none (class-agnostic);
    #   "semantic_task": each segment takes the class that the semantic map votes inside it; needs
    #                    both tasks (the paper);
    #   "mask_pooling":  a linear layer on the image encoder's features, averaged over the segment.
    m.CLASSIFIER = "none"
    m.SEMANTIC = CN()
    # Ids of the classes: "consecutive" (class + 1) or "spread" (codes that differ in as many bits
    # as the number of bits allows, so that one wrong bit does not make another class).
    m.SEMANTIC.CODES = "consecutive"
    # Share of the training samples in which a part of the segments is known: some latent cells of
    # the task "instance" are clean, a further input channel tells which, and only the other cells
    # are learnt. Above 0 the UNet has that channel, also at test, where it is 1 on the cells that
    # known_ids give. 0: off (the paper, whose inpainting needs no training).
    m.TRAIN_INPAINTING = CN()
    m.TRAIN_INPAINTING.PROB = 0.0

    m.DEPTH = d = CN()
    # "relative": each picture's 2 % and 98 % quantiles become -1 and 1 (the result is known up to
    # scale and shift); "metric": RANGE, in metres, becomes [-1, 1], and the result is in metres.
    d.NORMALIZATION = "relative"
    d.RANGE = (0.5, 80.0)
    # "linear" or "log" (equal ratios of depth become equal steps).
    d.SCALE = "linear"
    # Its autoencoder: latents of the same shape as the masks'. WEIGHTS is a checkpoint of
    # LDMSegDepthAutoencoder or safetensors; the others are as in MODEL.LDMSEG.AUTOENCODER.
    d.AUTOENCODER = ae = CN()
    ae.WEIGHTS = ""
    ae.CHANNELS = 64
    ae.LATENT_NOISE = 0.0


def _add_postprocess_config(m: CN) -> None:
    m.POSTPROCESS = p = CN()
    # The paper's three thresholds. A pixel needs this probability of its id, else it is void;
    p.MASK_THRESHOLD = 0.5
    # a segment needs this overlap between its pixels and its own mask (sigmoid at MASK_THRESHOLD)
    p.OVERLAP_THRESHOLD = 0.5
    # and at least this many pixels in the full-size picture.
    p.COUNT_THRESHOLD = 512
    # Confidence filter before them: ids whose argmax region has a mean top probability below
    # MIN_SEGMENT_SCORE, or fewer pixels than MIN_SEGMENT_AREA at the decoder's resolution, are
    # struck out and a second argmax runs over the rest and void. 0: off (the paper).
    p.MIN_SEGMENT_SCORE = 0.0
    p.MIN_SEGMENT_AREA = 8
    # With classes: regions of an id that look like another class than the rest of it, and things
    # that share an id but do not touch, become segments of their own where they have this many
    # pixels (`split_segments`). Below 1: what has one id is one segment (the paper).
    p.SPLIT_AREA = -1
