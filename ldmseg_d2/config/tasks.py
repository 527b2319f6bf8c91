"""Keys of the tasks: what one model generates, and how its segments get classes."""

from detectron2.config import CfgNode as CN

TASK_MODES = ("separate", "joint")
CLASSIFIERS = ("none", "semantic_task", "mask_pooling")


def add_task_config(cfg: CN) -> None:
    """Add the keys of tasks and classes to ``cfg.MODEL.LDMSEG``, in place."""
    ldmseg = cfg.MODEL.LDMSEG
    # What the model generates: any of "instance" (every segment, thing or stuff, under an id of
    # its own), "semantic" (a class for every pixel) and "depth", or a task of your own.
    ldmseg.TASKS = ["instance"]
    # "separate": each task is a sampling run of its own, told to the UNet by learnt tokens through
    #     its cross-attention (the paper); training draws one task for every picture.
    # "joint": one run generates all tasks together, their latents side by side as channels.
    ldmseg.TASK_MODE = "separate"
    # One weight for each of TASKS; empty: equal. "separate": how often training draws the task,
    # relative to the other tasks for which a picture has annotations. "joint": weight of its loss.
    ldmseg.TASK_WEIGHTS = []
    ldmseg.TASK_EMBEDDING = CN()
    # Learnt tokens of each task.
    ldmseg.TASK_EMBEDDING.NUM_TOKENS = 4
    # Add a learnt vector of the task to the timestep's embedding as well: small UNets have
    # cross-attention only at their lowest resolution, but read the timestep everywhere.
    ldmseg.TASK_EMBEDDING.IN_TIME_EMBEDDING = False

    # Number of classes C and which of 0..C - 1 are things. 0: what the metadata of the first data
    # set of DATASETS.TRAIN says.
    ldmseg.NUM_CLASSES = 0
    ldmseg.THING_CLASSES = []
    # How segments get classes, so that panoptic_seg has categories:
    #   "none":          they have none (class-agnostic);
    #   "semantic_task": each segment takes the class that the semantic map votes inside it; needs
    #                    both tasks (the paper);
    #   "mask_pooling":  a linear layer on the image encoder's features, averaged over the segment.
    ldmseg.CLASSIFIER = "none"
    # Weight of the cross-entropy of "mask_pooling".
    ldmseg.CLASS_LOSS_WEIGHT = 0.1

    ldmseg.SEMANTIC = CN()
    # Ids of the classes: "consecutive" (class + 1) or "spread" (codes that differ in as many bits
    # as the number of bits allows, so that one wrong bit does not make another class).
    ldmseg.SEMANTIC.CODES = "consecutive"

    # Share of the training samples in which a part of the segments is known: some latent cells of
    # the task "instance" are clean, a further input channel tells which, and only the other cells
    # are learnt. Above 0 the UNet has that channel, also at test, where it is 1 on the cells that
    # known_ids give. 0: off (the paper, whose inpainting needs no training).
    ldmseg.TRAIN_INPAINTING = CN()
    ldmseg.TRAIN_INPAINTING.PROB = 0.0
    # Of these samples the share in which whole segments are given; in the others it is square
    # groups of cells. In [0, 1].
    ldmseg.TRAIN_INPAINTING.SEGMENTS_SHARE = 0.5
    # With PROB above 0: also show the UNet a draft of the mask, as further input channels: latents
    # of the given part in which every other pixel has the id of the nearest given one. With
    # PREDICTION_TYPE "sample" a further output channel says where the draft is copied and where the
    # UNet's own x0 counts. So it starts at the draft and learns to correct it by the photo, and
    # cells of which only a part is given tell it that.
    ldmseg.TRAIN_INPAINTING.DRAFT = False

    ldmseg.DEPTH = d = CN()
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
    ae.NUM_LAYERS = 2
    ae.LATENT_NOISE = 0.0
    ae.NORMALIZATION = "standardize"
    ae.SCALING_FACTOR = 1.0

    # The panoptic map with classes: give pixels that no segment took to the stuff class that wins
    # there, where that class then has this many pixels. -1: they stay void (the paper).
    ldmseg.POSTPROCESS.FILL_STUFF_AREA = -1
    # The panoptic map with classes: regions of an id that look like another class than the rest of
    # it, and things that share an id but do not touch, become segments of their own where they have
    # this many pixels (`split_segments`). Below 1: what has one id is one segment (the paper).
    ldmseg.POSTPROCESS.SPLIT_AREA = -1
    # The panoptic map with classes, where this is above 0: the semantic map says what a pixel is,
    # in regions of at least this many pixels, and ids only which things are apart
    # (`fuse_regions`): an id cuts a thing's region where it has PART_AREA pixels and PART_SHARE of
    # it; regions of one id that have SPLIT_AREA pixels are things of their own. Where void is most
    # probable, pixels stay void with KEEP_VOID, else they take their most probable class. -1: the
    # pixels of a segment vote (the paper), as they always do where segments are given (inpainting).
    ldmseg.POSTPROCESS.REGION_AREA = -1
    ldmseg.POSTPROCESS.PART_AREA = 1
    ldmseg.POSTPROCESS.PART_SHARE = 0.1
    ldmseg.POSTPROCESS.KEEP_VOID = False
