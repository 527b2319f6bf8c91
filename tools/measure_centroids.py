#!/usr/bin/env python
"""Measures the bins of positional ids: quantiles of the segments' centroids in training.

python tools/measure_centroids.py --config-file configs/scenes/ldmseg_scenes64.yaml

Prints the YAML for MODEL.LDMSEG.POSITIONAL, with which every code is used about equally often.
"""

import argparse
import logging
import sys

import numpy as np
import torch
from tqdm import tqdm

from ldmseg_d2.data import build_dataset_mapper, load_dataset_dicts
from ldmseg_d2.engine import load_config
from ldmseg_d2.ids.id_maps import segment_centroids

logger = logging.getLogger("measure_centroids")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument("--num", type=int, default=4000, help="pictures of DATASETS.TRAIN to read")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="config keys and values")
    return parser.parse_args()


def measure(cfg, num: int) -> np.ndarray:
    """Centroids (N, 2), (y, x) as fractions, of all segments of the first ``num`` pictures."""
    mapper = build_dataset_mapper(cfg, is_train=True)
    centroids = []
    for entry in tqdm(load_dataset_dicts(cfg.DATASETS.TRAIN)[:num], unit="picture"):
        ids = mapper(entry)["segment_ids"]
        centroids.append(segment_centroids(ids, int(ids.max())))
    return torch.cat(centroids).numpy()


def format_edges(values: np.ndarray, bits: int) -> str:
    """Inner edges of 2^bits bins with equal shares of ``values``, as a YAML list."""
    edges = np.quantile(values, np.arange(1, 2**bits) / 2**bits)
    return "[" + ", ".join(f"{edge:.4f}" for edge in edges) + "]"


def main() -> None:
    args = parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    cfg = load_config(args.config_file, args.opts)
    # The mapper flips at random: one seed, one result.
    np.random.seed(max(cfg.SEED, 0))
    centroids = measure(cfg, args.num)
    y_bits = cfg.MODEL.LDMSEG.NUM_BITS // 2
    logger.info("%d centroids of %s", len(centroids), ", ".join(cfg.DATASETS.TRAIN))
    sys.stdout.write(
        "MODEL:\n  LDMSEG:\n    POSITIONAL:\n"
        f"      Y_EDGES: {format_edges(centroids[:, 0], y_bits)}\n"
        f"      X_EDGES: {format_edges(centroids[:, 1], cfg.MODEL.LDMSEG.NUM_BITS - y_bits)}\n"
    )


if __name__ == "__main__":
    try:
        main()
    except (FileNotFoundError, KeyError, ValueError) as error:
        sys.exit(f"error: {error}")
