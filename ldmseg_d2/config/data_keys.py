"""Keys of what the networks see of photos and annotations."""

from detectron2.config import CfgNode as CN


def add_data_config(cfg: CN) -> None:
    """Add the keys of INPUT, in place."""
    # Photos reach the model as RGB and are normalised to [-1, 1], as Stable Diffusion expects.
    cfg.INPUT.FORMAT = "RGB"
    cfg.MODEL.PIXEL_MEAN = [127.5, 127.5, 127.5]
    cfg.MODEL.PIXEL_STD = [127.5, 127.5, 127.5]
    # Name in DATASET_MAPPER_REGISTRY; an unknown name raises.
    cfg.INPUT.DATASET_MAPPER_NAME = "PanopticDatasetMapper"
    cfg.INPUT.LDMSEG = i = CN()
    # Side of the square that the networks see, in pixels; a multiple of the autoencoder's
    # downsampling and of the denoiser's.
    i.IMAGE_SIZE = 512
    # Side of the square in training where it is smaller than at test: random crops of photos that
    # are resized for IMAGE_SIZE; needs RESIZE "large_scale_jitter". The networks are convolutional:
    # what they learn on crops holds for whole photos, at a fraction of the cost. 0: IMAGE_SIZE.
    i.TRAIN_SIZE = 0
    # "square": resized to IMAGE_SIZE x IMAGE_SIZE without keeping the aspect ratio (the paper);
    # "longest_side": the longer side becomes IMAGE_SIZE, the model pads the rest;
    # "large_scale_jitter": in training, longest side x a random scale, then a random crop of at
    #     most TRAIN_SIZE x TRAIN_SIZE (Ghiasi et al., arXiv 2012.07177); at test "longest_side".
    i.RESIZE = "square"
    # How photos are resized, with PIL: "bilinear" or "bicubic" (the method's first implementation).
    i.INTERPOLATION = "bilinear"
    # Range of the random scale of "large_scale_jitter".
    i.JITTER_SCALE = (0.1, 2.0)
    # Segments with fewer pixels than this (after the resize) become void in training.
    i.MIN_SEGMENT_AREA = 10
    # Load segment ids at test as well: needed to evaluate reconstruction (stage 1).
    i.ANNOTATIONS_AT_TEST = False
    # Depth beside data sets that have none: a list of [data set, folder, PNG value of one metre],
    # e.g. [["coco_2017_train_panoptic", "coco/depth_train", 256.0]]. Folders hold 16-bit PNGs (0 is
    # invalid) named as the photos are; relative ones are taken below DETECTRON2_DATASETS. It
    # replaces a data set's own depth. Photos without a PNG serve the other tasks.
    i.DEPTH_ROOTS = []
