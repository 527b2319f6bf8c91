"""Configuration keys that LDMSeg adds to Detectron2's defaults.

Every key is listed in this folder with its meaning, unit and allowed values: ``model_keys.py``
holds the networks, diffusion, tasks and thresholds, ``data_keys.py`` what the networks see,
``solver.py`` the training. The defaults are the paper's (arXiv 2401.10227) wherever it states one;
``configs/`` holds the small recipes that differ.
"""

from detectron2.config import CfgNode as CN

from .data_keys import add_data_config
from .model_keys import CHOICES, add_model_config
from .solver import add_solver_config

__all__ = ["CHOICES", "add_ldmseg_config"]


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
    add_data_config(cfg)
    add_solver_config(cfg)
    add_model_config(cfg)
