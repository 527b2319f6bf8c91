"""The classes of a model: those of the data set that it is trained on."""

from typing import NamedTuple

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

IGNORE_LABEL = 255  # void in semantic maps


class Classes(NamedTuple):
    """How many classes there are, and which are things."""

    num_classes: int
    is_thing: tuple[bool, ...]


def dataset_classes(cfg: CfgNode) -> Classes:
    """The classes of ``MODEL.LDMSEG.NUM_CLASSES`` and ``THING_CLASSES``, or of the data set.

    Args:
        cfg: where NUM_CLASSES is 0, the metadata of the first of ``DATASETS.TRAIN`` (else of
            ``DATASETS.TEST``) tell: ``stuff_classes`` lists all classes, things included, as in
            Detectron2's panoptic data sets.

    Raises:
        ValueError: neither tells any classes.
    """
    ldmseg = cfg.MODEL.LDMSEG
    if ldmseg.NUM_CLASSES > 0:
        wrong = [c for c in ldmseg.THING_CLASSES if not 0 <= c < ldmseg.NUM_CLASSES]
        if wrong:
            raise ValueError(
                f"MODEL.LDMSEG.THING_CLASSES holds {wrong[0]}; it lists contiguous classes "
                f"0..{ldmseg.NUM_CLASSES - 1}"
            )
        things = set(ldmseg.THING_CLASSES)
        return Classes(ldmseg.NUM_CLASSES, tuple(c in things for c in range(ldmseg.NUM_CLASSES)))
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        metadata = MetadataCatalog.get(name)
        names = metadata.get("stuff_classes", None)
        if names:
            things = set((metadata.get("thing_dataset_id_to_contiguous_id", None) or {}).values())
            return Classes(len(names), tuple(c in things for c in range(len(names))))
    raise ValueError(
        "the model needs classes, but MODEL.LDMSEG.NUM_CLASSES is 0 and no data set of "
        f"DATASETS.TRAIN {tuple(cfg.DATASETS.TRAIN)} or DATASETS.TEST "
        f"{tuple(cfg.DATASETS.TEST)} names any (metadata 'stuff_classes')"
    )
