"""Configuration keys that LDMSeg adds to Detectron2's defaults.

Every key is listed in this folder with its meaning, unit and allowed values: ``model.py`` holds the
networks, diffusion and thresholds, ``tasks.py`` tasks and classes, ``solver.py`` the
training, ``baselines.py`` other models, this file the rest. The
defaults are the paper's (arXiv 2401.10227) wherever it states one; ``configs/`` holds the small
recipes that differ.
"""

from detectron2.config import CfgNode as CN

from .baselines import add_baseline_config
from .model import add_model_config
from .solver import add_solver_config
from .tasks import CLASSIFIERS, TASK_MODES, add_task_config

__all__ = [
    "BETA_SCHEDULES",
    "CLASSIFIERS",
    "ID_ASSIGNMENTS",
    "LOSS_WEIGHTINGS",
    "MATCHED_ASSIGNMENTS",
    "PADDINGS",
    "PREDICTION_TYPES",
    "SAMPLERS",
    "TASK_MODES",
    "TIMESTEP_SPACINGS",
    "TIMESTEP_SAMPLINGS",
    "add_ldmseg_config",
]

# Those for which the network itself predicts first.
MATCHED_ASSIGNMENTS = ("matched", "matched_positional")
ID_ASSIGNMENTS = ("random", "ordered", "positional", *MATCHED_ASSIGNMENTS)
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")
LOSS_WEIGHTINGS = ("min_snr", "uniform")
SAMPLERS = ("DDIM", "DDPM", "DPMSolver++", "UniPC", "LCM", "Heun")
TIMESTEP_SPACINGS = ("trailing", "leading", "linspace")
BETA_SCHEDULES = ("scaled_linear", "linear", "cosine", "squaredcos_cap_v2")
TIMESTEP_SAMPLINGS = ("uniform", "high_noise")
PADDINGS = ("mean", "edge")


def add_ldmseg_config(cfg: CN) -> None:
    """Add LDMSeg's keys to a Detectron2 config, in place.

    Args:
        cfg: the node that ``detectron2.config.get_cfg()`` returns.

    Example:
        >>> from detectron2.config import get_cfg
        >>> cfg = get_cfg()
        >>> add_ldmseg_config(cfg)
        >>> cfg.MODEL.LDMSEG.NUM_BITS
        7
    """
    _add_input_config(cfg)
    add_solver_config(cfg)
    # Photos reach the model as RGB and are normalised to [-1, 1], as Stable Diffusion expects.
    cfg.INPUT.FORMAT = "RGB"
    cfg.MODEL.PIXEL_MEAN = [127.5, 127.5, 127.5]
    cfg.MODEL.PIXEL_STD = [127.5, 127.5, 127.5]

    cfg.MODEL.LDMSEG = CN()
    # Bits of a segment id. 7 bits give ids 1..127 (0 is void), 8 bits 1..255. Allowed: 2..16.
    cfg.MODEL.LDMSEG.NUM_BITS = 7
    # How training assigns ids to segments:
    #   "random":     drawn without replacement for every sample (the paper);
    #   "ordered":    1..K in raster order of the segments' centroids;
    #   "positional": Gray-coded bins of the centroid's y and x, see POSITIONAL;
    #   "matched":    for every sample the ids that lie nearest to what the network itself predicts
    #                 from pure noise (Hungarian matching over segments and ids; one more forward
    #                 pass without gradient). The noise, not the data, then decides between
    #                 equivalent namings;
    #   "matched_positional": matched, but an id costs MATCHED_POSITION_WEIGHT (logits) for every
    #                 bit in which it differs from the segment's positional code: 0 is "matched",
    #                 a very large one nearly "positional".
    cfg.MODEL.LDMSEG.ID_ASSIGNMENT = "random"
    cfg.MODEL.LDMSEG.MATCHED_POSITION_WEIGHT = 1.0
    cfg.MODEL.LDMSEG.POSITIONAL = CN()
    # Inner edges of the bins of a centroid's y and x, as increasing fractions of the picture's
    # height and width; 2^bits - 1 edges each. Empty: equal bins. The bits of y are
    # floor(NUM_BITS / 2), the bits of x are the rest. Quantiles of the training set's centroids
    # use the codes evenly: `tools/measure_centroids.py` prints them.
    cfg.MODEL.LDMSEG.POSITIONAL.Y_EDGES = []
    cfg.MODEL.LDMSEG.POSITIONAL.X_EDGES = []
    add_model_config(cfg)
    add_task_config(cfg)
    add_baseline_config(cfg)


def _add_input_config(cfg: CN) -> None:
    # Name in DATASET_MAPPER_REGISTRY; an unknown name raises.
    cfg.INPUT.DATASET_MAPPER_NAME = "PanopticDatasetMapper"
    cfg.INPUT.LDMSEG = CN()
    # Side of the square that the networks see, in pixels; a multiple of the autoencoder's
    # downsampling and of the denoiser's.
    cfg.INPUT.LDMSEG.IMAGE_SIZE = 512
    # Side of the square in training where it is smaller than at test: random crops of photos that
    # are resized for IMAGE_SIZE; needs RESIZE "large_scale_jitter". The networks are convolutional:
    # what they learn on crops holds for whole photos, at a fraction of the cost. 0: IMAGE_SIZE.
    cfg.INPUT.LDMSEG.TRAIN_SIZE = 0
    # "square": resized to IMAGE_SIZE x IMAGE_SIZE without keeping the aspect ratio (the paper);
    # "longest_side": the longer side becomes IMAGE_SIZE, the model pads the rest with void;
    # "large_scale_jitter": in training, longest side x a random scale, then a random crop of at
    #     most TRAIN_SIZE x TRAIN_SIZE (Ghiasi et al., arXiv 2012.07177); at test "longest_side".
    cfg.INPUT.LDMSEG.RESIZE = "square"
    # Range of the random scale of "large_scale_jitter".
    cfg.INPUT.LDMSEG.JITTER_SCALE = (0.1, 2.0)
    # Segments with fewer pixels than this (after the resize) become void in training.
    cfg.INPUT.LDMSEG.MIN_SEGMENT_AREA = 10
    # Load segment ids at test as well: needed to evaluate reconstruction (stage 1).
    cfg.INPUT.LDMSEG.ANNOTATIONS_AT_TEST = False
    # Memory in GB in which every process of the training loader keeps decoded photos and
    # annotations: of what fits, later epochs decode nothing. Batches are the same. 0: off.
    cfg.DATALOADER.CACHE_GB = 0.0
    # Depth beside data sets that have none: a list of [data set, folder, PNG value of one metre],
    # e.g. [["coco_2017_train_panoptic", "coco/depth_train", 256.0]]. Folders hold 16-bit PNGs (0 is
    # invalid) named as the photos are; relative ones are taken below DETECTRON2_DATASETS. It
    # replaces a data set's own depth. Photos without a PNG serve the other tasks.
    cfg.INPUT.LDMSEG.DEPTH_ROOTS = []
