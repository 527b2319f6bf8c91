"""Linear scaling: the learning rate grows with the batch, the number of iterations shrinks."""

import logging

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer

logger = logging.getLogger(__name__)

# Counted in iterations: scaled inversely to the batch, as Detectron2 does for other world sizes.
ITERATION_KEYS = (
    ("SOLVER", "MAX_ITER"),
    ("SOLVER", "WARMUP_ITERS"),
    ("SOLVER", "CHECKPOINT_PERIOD"),
    ("TEST", "EVAL_PERIOD"),
)


def scale_config(cfg: CfgNode, world_size: int) -> CfgNode:
    """Scale a config to its batch and to the number of processes (arXiv 1706.02677, section 2.1).

    First to the batch: where ``SOLVER.IMS_PER_BATCH`` differs from ``SOLVER.REFERENCE_BATCH``, see
    :func:`scale_to_batch`. Then to the processes: where their number differs from
    ``SOLVER.REFERENCE_WORLD_SIZE``, Detectron2's ``auto_scale_workers`` keeps the pictures that
    each takes, so that the batch changes, and the rest with it.

    Args:
        cfg: is not changed.
        world_size: number of processes.

    Returns:
        A config in which both references, where they are not 0, are what is used.

    Raises:
        ValueError: IMS_PER_BATCH is no multiple of REFERENCE_WORLD_SIZE, or one is negative.
    """
    reference = cfg.SOLVER.REFERENCE_WORLD_SIZE
    if reference < 0 or (reference and cfg.SOLVER.IMS_PER_BATCH % reference):
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH} must be a multiple of "
            f"SOLVER.REFERENCE_WORLD_SIZE {reference}, the number of processes it was chosen for "
            "(0: no scaling to the number of processes)."
        )
    cfg = DefaultTrainer.auto_scale_workers(scale_to_batch(cfg), world_size)
    if cfg.SOLVER.REFERENCE_BATCH in (0, cfg.SOLVER.IMS_PER_BATCH):
        return cfg
    return _changed(cfg, [("SOLVER", "REFERENCE_BATCH", cfg.SOLVER.IMS_PER_BATCH)])


def scale_to_batch(cfg: CfgNode) -> CfgNode:
    """Scale learning rate and iterations from ``SOLVER.REFERENCE_BATCH`` to ``IMS_PER_BATCH``.

    ``BASE_LR`` is multiplied by batch / reference; MAX_ITER, WARMUP_ITERS, STEPS, CHECKPOINT_PERIOD
    and TEST.EVAL_PERIOD are divided by it, so that a training sees the same number of pictures.

    Args:
        cfg: is not changed.

    Returns:
        The config itself where there is nothing to scale.

    Raises:
        ValueError: a negative reference.
    """
    reference, batch = cfg.SOLVER.REFERENCE_BATCH, cfg.SOLVER.IMS_PER_BATCH
    if reference < 0:
        raise ValueError(f"SOLVER.REFERENCE_BATCH must be at least 0, got {reference}.")
    if reference in (0, batch):
        return cfg
    scale = batch / reference
    values = [
        ("SOLVER", "REFERENCE_BATCH", batch),
        ("SOLVER", "BASE_LR", cfg.SOLVER.BASE_LR * scale),
        ("SOLVER", "STEPS", tuple(round(step / scale) for step in cfg.SOLVER.STEPS)),
    ]
    for section, key in ITERATION_KEYS:
        old = cfg[section][key]
        # A period of 0 says "never", and must not come out of rounding.
        values.append((section, key, max(round(old / scale), 1) if old > 0 else old))
    logger.info(
        "The batch is %d, the config's reference %d: %s.",
        batch,
        reference,
        ", ".join(f"{s}.{k} {cfg[s][k]} -> {v}" for s, k, v in values if cfg[s][k] != v),
    )
    return _changed(cfg, values)


def _changed(cfg: CfgNode, values: list[tuple[str, str, object]]) -> CfgNode:
    """A copy with other values, frozen where the original is."""
    changed = cfg.clone()
    changed.defrost()
    for section, key, value in values:
        changed[section][key] = value
    if cfg.is_frozen():
        changed.freeze()
    return changed
