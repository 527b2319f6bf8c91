"""Keys of optimization, averaging and evaluation."""

from detectron2.config import CfgNode as CN


def add_solver_config(cfg: CN) -> None:
    """Add the keys of SOLVER, MODEL.EMA, TEST and SEED, in place."""
    # The optimizer is AdamW. BASE_LR, WEIGHT_DECAY, WEIGHT_DECAY_NORM, WEIGHT_DECAY_BIAS, MAX_ITER,
    # IMS_PER_BATCH, WARMUP_ITERS, WARMUP_FACTOR and REFERENCE_WORLD_SIZE keep Detectron2's meaning.
    cfg.SOLVER.BASE_LR = 1e-4
    cfg.SOLVER.WEIGHT_DECAY = 0.05
    cfg.SOLVER.WEIGHT_DECAY_NORM = 0.0
    cfg.SOLVER.WEIGHT_DECAY_BIAS = 0.0
    # AdamW's (beta1, beta2).
    cfg.SOLVER.BETAS = (0.9, 0.999)
    # Micro-batches of one optimizer step: IMS_PER_BATCH, a multiple of processes x
    # ACCUMULATION_STEPS, is the batch of the whole step, and memory is needed for a micro-batch.
    # The gradient is that of the whole batch where losses are means over samples; with
    # MODEL.LDMSEG.DIFFUSION.MASKED_LOSS it is the mean of the micro-batches' means over valid cells
    # (as it is over processes), in which samples with few valid cells count a little more.
    cfg.SOLVER.ACCUMULATION_STEPS = 1
    # Divide AdamW's state among the processes (torch's ZeroRedundancyOptimizer).
    cfg.SOLVER.ZERO = False
    # Learning-rate multiplier of the image encoder's parameters, where it is trained.
    cfg.SOLVER.IMAGE_ENCODER_MULTIPLIER = 1.0
    # Layer-wise decay of it, for encoders that tell their layers (DINOv2): the rate of block i of n
    # is multiplied by DECAY^(n - i), as in BEiT's fine-tuning. In (0, 1]; 1: off.
    cfg.SOLVER.IMAGE_ENCODER_LAYER_DECAY = 1.0
    # "WarmupCosineLR" (the paper) or "WarmupFlatLinearLR": constant for FLAT_FRACTION of
    # MAX_ITER, then linear to zero. Detectron2's other names work as well.
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupCosineLR"
    cfg.SOLVER.FLAT_FRACTION = 0.6
    # Clipping of the Euclidean norm over all parameters together: CLIP_TYPE is "full_model".
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "full_model"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 1.0
    # Mixed precision where AMP.ENABLED: "bfloat16" or "float16" (CUDA only; with loss scaling).
    cfg.SOLVER.AMP.PRECISION = "bfloat16"

    # Exponential moving average of the weights, in float32: saved, resumed, and what is evaluated.
    cfg.MODEL.EMA = CN()
    cfg.MODEL.EMA.ENABLED = True
    # Weight of the past in each update, in [0, 1); the first updates weigh the past less.
    cfg.MODEL.EMA.DECAY = 0.9999

    # Pictures a process evaluates at once. Results do not depend on it.
    cfg.TEST.IMS_PER_BATCH = 1
    # Evaluate only the first N pictures of a data set; 0: all.
    cfg.TEST.MAX_IMAGES = 0
    # Seed of initialisation, data order and noise. Detectron2's -1 (none) breaks exact resume.
    cfg.SEED = 0
