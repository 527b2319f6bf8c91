"""Keys of the baselines: other models that train and are measured in the same harness."""

from detectron2.config import CfgNode as CN
from detectron2.projects.panoptic_deeplab import add_panoptic_deeplab_config


def add_baseline_config(cfg: CN) -> None:
    """Add the keys of HFMask2Former, of the small ResNet and of Panoptic-DeepLab, in place.

    Their classes are those of ``MODEL.LDMSEG.NUM_CLASSES`` and ``THING_CLASSES``, or the data
    set's. Panoptic FPN and Panoptic-DeepLab read Detectron2's own keys for all else.
    """
    optimizer = cfg.SOLVER.get("OPTIMIZER", "ADAMW")
    add_panoptic_deeplab_config(cfg)
    cfg.SOLVER.OPTIMIZER = optimizer  # it would be ADAM
    _add_mask2former_config(cfg)

    # The backbone of the two models of Detectron2, trained from scratch:
    # "build_small_resnet_backbone" and "build_small_resnet_fpn_backbone" in MODEL.BACKBONE.NAME.
    cfg.MODEL.SMALL_RESNET = r = CN()
    # Channels of the first conv and its stride, 1, 2 or 4.
    r.STEM_CHANNELS = 32
    r.STEM_STRIDE = 2
    # Channels, number of two-conv blocks and stride of each stage, res2 first. FPN needs strides 2
    # from the second stage on.
    r.CHANNELS = [32, 64, 128, 192]
    r.NUM_BLOCKS = [1, 1, 1, 1]
    r.STRIDES = [1, 2, 2, 2]


def _add_mask2former_config(cfg: CN) -> None:
    cfg.MODEL.MASK2FORMER = m = CN()
    # A Mask2Former that transformers' save_pretrained wrote: id on the Hugging Face hub, or local
    # folder. It brings its own sizes; the keys from BACKBONE to NUM_QUERIES are not read then.
    # Empty: built from these keys, with random weights.
    m.PRETRAINED = ""
    # One of transformers' backbones by its model_type ("resnet", "swin", "convnext", ...) and its
    # configuration, with the keys in capitals. All four stages are used.
    m.BACKBONE = "swin"
    m.BACKBONE_OPTIONS = CN(new_allowed=True)
    # Strides of the backbone's four stages in pixels, and the stride of the masks.
    m.FEATURE_STRIDES = [4, 8, 16, 32]
    m.COMMON_STRIDE = 4
    # Channels of the pixel decoder, of the masks' embeddings and of the queries; a multiple of 32.
    m.HIDDEN_DIM = 256
    m.NUM_HEADS = 8
    # Layers of the pixel decoder and of the transformer decoder (each query is decoded once more,
    # before the first layer), and the widths of their feed-forward parts.
    m.ENCODER_LAYERS = 6
    m.ENCODER_FEEDFORWARD_DIM = 1024
    m.DECODER_LAYERS = 9
    m.DECODER_FEEDFORWARD_DIM = 2048
    m.DROPOUT = 0.0
    m.NUM_QUERIES = 100
    # Weights of the losses, and of "no object" in the cross-entropy; the matching uses them too.
    m.LOSS = CN()
    m.LOSS.CLASS_WEIGHT = 2.0
    m.LOSS.MASK_WEIGHT = 5.0
    m.LOSS.DICE_WEIGHT = 5.0
    m.LOSS.NO_OBJECT_WEIGHT = 0.1
    # Points of a mask that the losses see, see MODEL.LDMSEG.AUTOENCODER.LOSS.
    m.LOSS.NUM_POINTS = 12544
    m.LOSS.OVERSAMPLE_RATIO = 3.0
    m.LOSS.IMPORTANCE_RATIO = 0.75
    # Photos are padded to a multiple of this, pixels: the backbone's largest stride.
    m.SIZE_DIVISIBILITY = 32
    m.POSTPROCESS = p = CN()
    # A query needs this probability of its class, else it is dropped.
    p.OBJECT_MASK_THRESHOLD = 0.8
    # A segment needs more than this share of its own mask (probability >= 0.5) to be its own.
    p.OVERLAP_THRESHOLD = 0.8
    # Pixels whose segment's mask has a lower probability become void; 0: none does.
    p.MASK_THRESHOLD = 0.5
    # Segments with fewer pixels of the full-size picture become void.
    p.MIN_AREA = 0
    # Regions of a thing that do not touch become segments where they have this many pixels, as in
    # MODEL.LDMSEG.POSTPROCESS. Below 1: a query is one segment (Mask2Former).
    p.SPLIT_AREA = -1
    # Regions of the queries' semantic map make the panoptic map, as in MODEL.LDMSEG.POSTPROCESS.
    # -1: a query is one segment (Mask2Former).
    p.REGION_AREA = -1
    p.PART_AREA = 1
    p.PART_SHARE = 0.1
