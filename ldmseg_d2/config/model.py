"""Keys of the networks, the diffusion process and the post-processing."""

from detectron2.config import CfgNode as CN


def add_model_config(cfg: CN) -> None:
    """Add the keys of autoencoder, diffusion, sampler, networks and post-processing, in place."""
    _add_autoencoder_config(cfg)
    _add_diffusion_config(cfg)
    _add_postprocess_config(cfg)


def _add_autoencoder_config(cfg: CN) -> None:
    cfg.MODEL.LDMSEG.AUTOENCODER = ae = CN()
    # Stage 2 reads the trained autoencoder from here: a checkpoint of LDMSegAutoencoder (.pth) or
    # safetensors. Empty: random weights, with a warning.
    ae.WEIGHTS = ""
    # "conv": the paper's encoder (conv, then [conv, stride-2 conv, SiLU] for each factor 2);
    # "pixel_unshuffle": space-to-depth by DOWNSAMPLE_FACTOR, then 3x3 convs at low resolution.
    ae.ENCODER = "conv"
    # "transposed_conv": NUM_UPSAMPLINGS times [2x2 stride-2 transposed conv, LayerNorm, SiLU], then
    #     bilinear upsampling of the logits for what is left of DOWNSAMPLE_FACTOR (the paper);
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
    # "transposed_conv": how many times the decoder doubles the resolution with learnt layers.
    ae.NUM_UPSAMPLINGS = 2
    # "pixel_unshuffle", "pixel_shuffle": number of 3x3 convs at low resolution.
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
    # Losses of stage 1: weights of cross-entropy over ids, binary cross-entropy and dice per
    # ground-truth segment, and of the KL term (above 1e-5 it badly hurts reconstruction).
    ae.LOSS = CN()
    ae.LOSS.CE_WEIGHT = 1.0
    ae.LOSS.BCE_WEIGHT = 1.0
    ae.LOSS.DICE_WEIGHT = 1.0
    ae.LOSS.KL_WEIGHT = 0.0
    # Weight of void pixels in the cross-entropy; 0: void is left out (the paper).
    ae.LOSS.VOID_WEIGHT = 0.0
    # Points per picture, chosen by uncertainty as in PointRend (arXiv 1912.08193): OVERSAMPLE x
    # NUM_POINTS candidates, the IMPORTANCE_RATIO most uncertain, the rest uniform.
    # NUM_POINTS 0: the losses see every pixel.
    ae.LOSS.NUM_POINTS = 12544
    ae.LOSS.OVERSAMPLE_RATIO = 3.0
    ae.LOSS.IMPORTANCE_RATIO = 0.75
    # Train on random square crops of this many pixels (a multiple of DOWNSAMPLE_FACTOR): the
    # logits of 2^NUM_BITS ids dominate the cost. 0: whole pictures.
    ae.LOSS.CROP_SIZE = 0


def _add_diffusion_config(cfg: CN) -> None:
    cfg.MODEL.LDMSEG.DIFFUSION = d = CN()
    # Length T of the forward process and its betas.
    d.NUM_TRAIN_TIMESTEPS = 1000
    # "scaled_linear", "linear", or "cosine", which needs no start and end and which diffusers calls
    # "squaredcos_cap_v2" (allowed as well).
    d.BETA_SCHEDULE = "scaled_linear"
    d.BETA_START = 0.00085
    d.BETA_END = 0.012
    # Zero SNR at t = T - 1 (arXiv 2305.08891, section 3.1); needs "sample" or "v_prediction", and a
    # sampler other than "Heun".
    d.RESCALE_BETAS_ZERO_SNR = False
    # What the network predicts: "epsilon" (the paper), "sample" or "v_prediction".
    d.PREDICTION_TYPE = "epsilon"
    # Weight of the squared error at each timestep: "min_snr" (arXiv 2303.09556, for the chosen
    # PREDICTION_TYPE) or "uniform" (1).
    d.LOSS_WEIGHTING = "min_snr"
    d.MIN_SNR_GAMMA = 2.0
    # Which timesteps training draws: "uniform" (the paper), or "high_noise", with the density
    # p(t) = POWER t^(POWER - 1) / T^POWER on [0, T): t = T u^(1 / POWER), rounded down, u uniform.
    # POWER 1 is uniform, 2 draws the noisy half three times as often as the other.
    d.TIMESTEP_SAMPLING = "uniform"
    d.TIMESTEP_POWER = 2.0
    # Share of the samples whose x_t is made of what the network itself predicts from pure noise
    # instead of the truth, as in sampling: self-aligned denoising (DDP, arXiv 2303.17559).
    # "matched" ids need that prediction anyway; with others it costs a forward pass. 0: the paper.
    d.SELF_ALIGNED_PROB = 0.0
    # No diffusion at all: the same network learns to give x0 from zeros instead of noise, at
    # t = T - 1, and gives its result in one step. Needs PREDICTION_TYPE "sample", no
    # SELF_CONDITIONING, and SAMPLER.NUM_INFERENCE_STEPS 1 with "trailing" spacing; the keys of
    # noise, weights and timesteps have no effect. "matched" ids are then matched to the network's
    # one prediction for the photo, which makes a choice of its own between equivalent namings.
    d.REGRESSION = False
    # Leave latent cells that are mostly void in the ground truth out of the loss.
    d.MASKED_LOSS = True
    # Latent cells weigh by the area of their segments: area^-SEGMENT_BALANCE for each pixel, a
    # picture's mean being 1. 0: every cell the same (the paper), 1: every segment the same.
    d.SEGMENT_BALANCE = 0.0
    # Weight of a cross-entropy between the decoded x0 prediction and the ids (pixels that are not
    # void), beside the squared error of the latents; 0: off (the paper).
    d.DECODED_LOSS_WEIGHT = 0.0
    # Pixels of a segment weigh area^-DECODED_LOSS_BALANCE in it: 0: every pixel the same, 1: every
    # segment the same.
    d.DECODED_LOSS_BALANCE = 0.0
    # Feed the previous x0 prediction back (Analog Bits, arXiv 2208.04202): extra input channels,
    # and in training the probability of a first pass that makes the prediction.
    d.SELF_CONDITIONING = True
    d.SELF_CONDITIONING_PROB = 0.5

    cfg.MODEL.LDMSEG.SAMPLER = s = CN()
    # "DDIM" (the paper), "DDPM" (draws noise at every step), "DPMSolver++" and "UniPC" (second
    # order, from the step before), "LCM" (the x0 prediction, noised anew at every step) or "Heun"
    # (second order, two network passes a step: 2 NUM_INFERENCE_STEPS - 1 in all). A trained model
    # works with each of them; docs/STUDIES.md compares them.
    s.NAME = "DDIM"
    # 1..NUM_TRAIN_TIMESTEPS.
    s.NUM_INFERENCE_STEPS = 50
    # Which timesteps: "trailing" starts at T - 1, pure noise; "leading", "linspace": see arXiv
    # 2305.08891, table 2. "LCM" has "trailing" alone.
    s.TIMESTEP_SPACING = "trailing"

    # How given parts of a mask (known_ids) enter the sampler: "fixed" (the paper: clean at every
    # step), "noised" (noised to the step's level), "x0" (put into the x0 prediction alone) or
    # "repaint" ("noised", with jumps back up: arXiv 2201.09865).
    s.INPAINTING = "fixed"
    # Of "repaint": steps of a jump, and how often each stretch is sampled.
    s.REPAINT_JUMP_LENGTH = 5
    s.REPAINT_RESAMPLES = 3
    # A latent cell is known where "all" of its pixels are given, at least half ("most"), or "any".
    s.KNOWN_CELLS = "all"
    # Evidence of the given pixels for the pixels around them, when the result is decoded: the
    # network's log probabilities plus GIVEN_WEIGHT times those that a random walker on the photo
    # meets a given segment first, or dies: it lives for GIVEN_REACH pixels of the networks' square,
    # and an edge of the photo keeps it back. It helps a model that is weak. 0: off (the paper).
    s.GIVEN_WEIGHT = 0.0
    s.GIVEN_REACH = 256.0

    cfg.MODEL.LDMSEG.DENOISER = u = CN()
    # Pretrained UNet2DConditionModel: a local folder (Stable Diffusion's 1.x or 2.x layout, or what
    # save_pretrained wrote) or an id on the Hugging Face hub. Empty: random weights, sizes below;
    # a trained checkpoint loads into that as well, where the sizes are the same.
    u.PRETRAINED = ""
    # How the image condition enters: "concat" (the paper): as input channels; "cross_attention": as
    # tokens, one for each cell of the image encoder's own grid, with a sine-cosine position
    # embedding. The latter keeps the cross-attention, whatever CROSS_ATTENTION says.
    u.CONDITIONING = "concat"
    # "removed" (the paper, for one task), or "kept": it attends to the learnt tokens of the task
    # (MODEL.LDMSEG.TASK_EMBEDDING), which several tasks with TASK_MODE "separate" need.
    u.CROSS_ATTENTION = "removed"
    # Channels of the tokens, a multiple of 4, for kept cross-attention; PRETRAINED has its own.
    u.CROSS_ATTENTION_DIM = 768
    # Sizes without PRETRAINED: arguments of diffusers' UNet2DConditionModel; the defaults are
    # Stable Diffusion 1.x's.
    u.BLOCK_OUT_CHANNELS = [320, 640, 1280, 1280]
    u.DOWN_BLOCK_TYPES = ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
    u.UP_BLOCK_TYPES = ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3
    u.LAYERS_PER_BLOCK = 2
    # diffusers' name for the number of heads, for historical reasons.
    u.ATTENTION_HEAD_DIM = 8
    u.NORM_NUM_GROUPS = 32
    # Name parts of parameters that stay frozen, e.g. ["time_embedding"].
    u.FREEZE = ["time_embedding"]
    # Less memory and more time in training.
    u.GRADIENT_CHECKPOINTING = False
    # Memory format of the convolutions, often faster on GPUs; the results are the same.
    u.CHANNELS_LAST = False
    # torch.compile the UNet at its first call: minutes once, needs a C++ compiler. The keys of
    # checkpoints do not change.
    u.COMPILE = False

    cfg.MODEL.LDMSEG.IMAGE_ENCODER = e = CN()
    # Name in IMAGE_ENCODER_REGISTRY: "ConvImageEncoder", "FPNImageEncoder", "VAEImageEncoder"
    # (Stable Diffusion's), "TinyVAEImageEncoder", "DINOv2ImageEncoder", "TimmImageEncoder", or your
    # own.
    e.NAME = "ConvImageEncoder"
    # Channels of the image condition; see DENOISER.CONDITIONING for how it enters.
    e.OUT_CHANNELS = 4
    # What fills a photo up to the square of IMAGE_SIZE, at the right and bottom: "mean", the mean
    # photo, or "edge", its last column and row repeated. Crops seldom show an end of the photo, and
    # there a model that learnt from crops takes the mean photo for an object.
    e.PADDING = "mean"
    # Frozen: eval mode, no gradient, not in the checkpoint. Of DINOv2 and timm's networks this is
    # the backbone (the projection after it is always trained), of the others the whole encoder.
    e.FREEZE = False
    # Weight of a cross-entropy beside the loss of the latents, of the classes that a linear layer
    # sees in each cell of the condition: deep supervision as in PSPNet (arXiv 1612.01105), for
    # encoders that start from random weights. Needs "semantic" in TASKS; without CELL_PROBS and
    # CELL_SHARE, results do not use the layer. 0: off (the paper).
    e.CELL_LOSS_WEIGHT = 0.0
    # n: that layer tells the classes of n x n parts of each cell, for what is thinner than a cell.
    e.CELL_LOSS_SUBDIVISION = 1
    # The condition also holds that layer's probabilities, C n^2 channels beside OUT_CHANNELS.
    e.CELL_PROBS = False
    # Share of that layer's probabilities in the semantic map, in [0, 1]; the rest is the semantic
    # task's. It is for an encoder that was trained longer than the denoiser. 0: the task alone.
    e.CELL_SHARE = 0.0
    # File with a trained encoder: a checkpoint of LDMSegImageEncoder, or of an LDMSeg; the layer of
    # CELL_LOSS_WEIGHT is taken from it as well. MODEL.WEIGHTS goes before it. Empty: as OPTIONS
    # build it.
    e.WEIGHTS = ""
    # Folder in which training keeps what an encoder that is frozen as a whole gives for a picture
    # (float16, one file for each picture and flip), to read it in later epochs. Not worth it with
    # random crops, which never come back. Empty: computed every time.
    e.CACHE_DIR = ""
    # Further keyword arguments of that class, in capitals, e.g. for ConvImageEncoder
    # {WIDTHS: [32, 64, 128, 256], NUM_BLOCKS: 1}; an argument it does not take raises. All are
    # listed in docs/EXTENDING.md.
    e.OPTIONS = CN(new_allowed=True)


def _add_postprocess_config(cfg: CN) -> None:
    cfg.MODEL.LDMSEG.POSTPROCESS = p = CN()
    # The paper's three thresholds. A pixel needs this probability of its id, else it is void;
    p.MASK_THRESHOLD = 0.5
    # a segment needs this overlap between its pixels and its own sigmoid mask at 0.5
    p.OVERLAP_THRESHOLD = 0.5
    # and at least this many pixels in the full-size picture.
    p.COUNT_THRESHOLD = 512
    # Confidence filter before them: ids whose argmax region has a mean top probability below
    # MIN_SEGMENT_SCORE, or fewer pixels than MIN_SEGMENT_AREA at the decoder's resolution, are
    # struck out and a second argmax runs over the rest and void. 0: off (the paper).
    p.MIN_SEGMENT_SCORE = 0.0
    p.MIN_SEGMENT_AREA = 8
