"""``python -m ldmseg_d2.benchmark.memory CONFIG [KEY VALUE ...]``: peak memory of an inference.

Writes one line of JSON, see :func:`ldmseg_d2.benchmark.costs.peak_memory`. A process of its own,
because a process' largest memory never falls.
"""

import json
import logging
import sys

from ldmseg_d2.data import build_test_loader
from ldmseg_d2.engine import load_config
from ldmseg_d2.engine.peak_memory import measure_here, peak_resident_bytes


def main(argv: list[str]) -> None:
    """Measure one config with random weights, on the first picture of its test set."""
    logging.getLogger("ldmseg_d2").setLevel(logging.ERROR)
    opts = [*argv[1:], "TEST.IMS_PER_BATCH", 1, "TEST.MAX_IMAGES", 1, "DATALOADER.NUM_WORKERS", 0]
    cfg = load_config(argv[0], opts)
    batch = next(iter(build_test_loader(cfg, cfg.DATASETS.TEST[0])))
    on_gpu = cfg.MODEL.DEVICE.startswith("cuda")
    before = 0.0 if on_gpu else peak_resident_bytes()
    peak = measure_here(cfg, "inference", 1, list(batch))
    sys.stdout.write(json.dumps({"peak_bytes": peak, "libraries_bytes": before}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
