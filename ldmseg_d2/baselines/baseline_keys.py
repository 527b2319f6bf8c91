"""Keys of the baselines, beside Detectron2's own for Panoptic FPN and Panoptic-DeepLab."""

from detectron2.config import CfgNode as CN
from detectron2.projects.panoptic_deeplab import add_panoptic_deeplab_config


def add_baseline_config(cfg: CN) -> None:
    """Add the keys of the baselines in place, after :func:`ldmseg_d2.config.add_ldmseg_config`.

    Their classes are those of ``MODEL.LDMSEG.NUM_CLASSES`` and ``THING_CLASSES``, or the data
    set's.
    """
    add_panoptic_deeplab_config(cfg)
    # Its key is not read: every model trains with AdamW.
    cfg.SOLVER.OPTIMIZER = "ADAMW"

    cfg.MODEL.MASK2FORMER = m = CN()
    # A Mask2Former that transformers' save_pretrained wrote: id on the Hugging Face hub, or local
    # folder. It brings its own sizes: of OPTIONS only the losses' are read. Empty: random weights.
    m.PRETRAINED = ""
    # Arguments of transformers' Mask2FormerConfig in capitals, e.g. NUM_QUERIES, HIDDEN_DIM (of
    # FEATURE_SIZE and MASK_FEATURE_SIZE as well, where they are not given), DECODER_LAYERS (one
    # more than there are: the prediction before the first counts), TRAIN_NUM_POINTS;
    # BACKBONE_CONFIG holds MODEL_TYPE ("resnet", "swin", ...) and what that one's configuration
    # takes. Where nothing is given, transformers' default holds.
    m.OPTIONS = CN(new_allowed=True)
    m.POSTPROCESS = p = CN()
    # A query needs more than this probability of its class, else it is dropped.
    p.OBJECT_MASK_THRESHOLD = 0.8
    # A segment needs more than this share of its own mask (probability >= 0.5) to be its own.
    p.OVERLAP_THRESHOLD = 0.8
    # Pixels whose segment's mask has a lower probability become void; 0: none does.
    p.MASK_THRESHOLD = 0.5
    # Segments with fewer pixels of the full-size picture become void.
    p.MIN_AREA = 0

    # "build_small_resnet_backbone" and "build_small_resnet_fpn_backbone" in MODEL.BACKBONE.NAME:
    # STEM_CHANNELS, STEM_STRIDE (1, 2 or 4), and of each stage, res2 first, CHANNELS, NUM_BLOCKS
    # (of two convs) and STRIDES (FPN needs 2 from the second stage on).
    cfg.MODEL.SMALL_RESNET = CN()
    cfg.MODEL.SMALL_RESNET.OPTIONS = CN(new_allowed=True)
