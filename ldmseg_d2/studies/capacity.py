"""How many segments can a picture have? Runs on generated mosaics, table and picture."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from matplotlib.figure import Figure
from tabulate import tabulate
from torch import nn

from ldmseg_d2.data import build_test_loader
from ldmseg_d2.data.datasets.mosaics import log_uniform_counts, register_mosaics, write_mosaics
from ldmseg_d2.data.annotations import read_id_png
from ldmseg_d2.evaluation import ClassAgnosticPanopticEvaluator
from ldmseg_d2.ids import assign_ids
from ldmseg_d2.meta_arch.batching import image_generator, stack_segment_ids
from ldmseg_d2.meta_arch.mask_autoencoder import LDMSegAutoencoder
from ldmseg_d2.meta_arch.tasks.instance import decode_panoptic

from .runs import Run, do_run

# Least and most segments of the pictures of a bin.
BINS = ((1, 4), (5, 8), (9, 16), (17, 32), (33, 64), (65, 127), (128, 255))
LABELS = tuple(f"{least}-{most}" for least, most in BINS)
ASSIGNMENTS = ("random", "ordered")
STAGES = ("reconstruction", "full model")
# It breaks at the first bin whose PQ is below this share of the best bin's.
BREAKS_BELOW = 0.9
# A model whose best bin is below this PQ has not been trained enough to say where it breaks.
LEAST_PQ = 50.0
TRAIN, VAL = "mosaics_train", "mosaics_val"
AUTOENCODER_CONFIG = "configs/scenes/autoencoder_scenes64.yaml"
LDMSEG_CONFIG = "configs/scenes/ldmseg_scenes64.yaml"

# What differs from the configs of scenes: small networks, and segments of a few pixels.
OPTS: tuple[Any, ...] = (
    *("DATASETS.TRAIN", (TRAIN,), "DATASETS.TEST", (VAL,)),
    *("SOLVER.AMP.ENABLED", True, "TEST.IMS_PER_BATCH", 12),
    *("INPUT.LDMSEG.MIN_SEGMENT_AREA", 4),
    *("MODEL.LDMSEG.AUTOENCODER.ENCODER_CHANNELS", 96),
    *("MODEL.LDMSEG.AUTOENCODER.DECODER_CHANNELS", 96),
    *("MODEL.LDMSEG.DENOISER.BLOCK_OUT_CHANNELS", [64, 96]),
    *("MODEL.LDMSEG.IMAGE_ENCODER.OUT_CHANNELS", 64),
    *("MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS", 10),
    *("MODEL.LDMSEG.POSTPROCESS.COUNT_THRESHOLD", 4),
    *("MODEL.LDMSEG.POSTPROCESS.MIN_SEGMENT_AREA", 4),
    *("MODEL.LDMSEG.POSTPROCESS.MIN_SEGMENT_SCORE", 0.5),
)

# (stage, bits, assignment) to bin to metrics.
Curves = dict[tuple[str, int, str], dict[str, dict[str, float]]]


def prepare_mosaics(
    output: str | Path, *, size: int, num_train: int, num_a_bin: int, seed: int
) -> None:
    """Write the study's pictures below `output` and register them as TRAIN and VAL.

    Args:
        output: folder of the study.
        size: side of the pictures, pixels.
        num_train: pictures whose number of segments is log-uniform over all bins.
        num_a_bin: test pictures of each bin.
        seed: of both; they share no picture.
    """
    counts = log_uniform_counts(num_train, BINS[0][0], BINS[-1][1], seed=seed)
    test_counts = [n for b in BINS for n in log_uniform_counts(num_a_bin, *b, seed=seed)]
    for name, numbers, stream in ((TRAIN, counts, 2 * seed), (VAL, test_counts, 2 * seed + 1)):
        root = write_mosaics(Path(output, name), numbers, size=size, seed=stream)
        DatasetCatalog.pop(name, None)
        MetadataCatalog.pop(name, None)
        register_mosaics(name, root)


class BinnedEvaluator(DatasetEvaluator):
    """Class-agnostic PQ for each of BINS, by the number of segments that a picture has."""

    def __init__(self, dataset_name: str) -> None:
        """
        Args:
            dataset_name: a registered data set without crowds.

        Raises:
            ValueError: a picture has more segments than the last bin, or none.
        """
        self.counts: dict[Any, int] = {}
        for record in DatasetCatalog.get(dataset_name):
            labels = np.unique(read_id_png(record["pan_seg_file_name"]))
            self.counts[record["image_id"]] = int(np.count_nonzero(labels))
        self._evaluators = [ClassAgnosticPanopticEvaluator(dataset_name) for _ in BINS]

    def reset(self) -> None:
        """Forget all predictions."""
        for evaluator in self._evaluators:
            evaluator.reset()

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """See :class:`ClassAgnosticPanopticEvaluator`."""
        for entry, output in zip(inputs, outputs, strict=True):
            index = bin_index(self.counts[entry["image_id"]])
            self._evaluators[index].process([entry], [output])

    def evaluate(self) -> dict[str, dict[str, float]]:
        """The metrics of each bin, over the segments of all its pictures."""
        results = [next(iter(one.evaluate().values())) for one in self._evaluators]
        return dict(zip(LABELS, results, strict=True))


def bin_index(count: int) -> int:
    """Which of BINS a number of segments belongs to; ValueError for one outside of them."""
    for index, (least, most) in enumerate(BINS):
        if least <= count <= most:
            return index
    raise ValueError(f"a picture has {count} segments; the bins are {', '.join(LABELS)}")


def lost_share(counts: Iterable[int], num_bits: int) -> dict[str, float]:
    """Share of the segments of each bin, in percent, for which there is no id."""
    total, lost = dict.fromkeys(LABELS, 0), dict.fromkeys(LABELS, 0)
    for count in counts:
        label = LABELS[bin_index(count)]
        total[label] += count
        lost[label] += max(count - (2**num_bits - 1), 0)
    return {label: 100 * lost[label] / max(total[label], 1) for label in LABELS}


@torch.no_grad()
def reconstruct(model: LDMSegAutoencoder, entries: Sequence[dict], assignment: str) -> list[dict]:
    """Reconstruct pictures as the autoencoder's META_ARCH does, with other ids.

    Args:
        model: in eval mode.
        entries: inputs with ``segment_ids``.
        assignment: "random" or "ordered".

    Returns:
        Dicts with ``panoptic_seg``.
    """
    autoencoder = model.autoencoder
    maps = stack_segment_ids(entries, model.image_size, autoencoder.num_ids - 1)
    ids = [
        assign_ids(
            one.unsqueeze(0),
            num_bits=autoencoder.num_bits,
            method=assignment,
            generator=image_generator(model.seed, entry["image_id"], torch.device("cpu")),
        )
        for one, entry in zip(maps, entries, strict=True)
    ]
    head_output, _ = autoencoder(torch.cat(ids).to(model.device))
    return [
        {"panoptic_seg": decode_panoptic(autoencoder, one, entry, model.postprocess)}
        for one, entry in zip(head_output, entries, strict=True)
    ]


def evaluate_bins(
    cfg: CfgNode, predict: Callable[[Sequence[dict]], list[dict]], *, num_bits: int
) -> dict[str, dict[str, float]]:
    """The metrics of each bin on VAL, and as "lost" the share of segments above the id limit.

    Args:
        cfg: of the test loader.
        predict: from inputs to outputs with ``panoptic_seg``.
        num_bits: of an id.
    """
    evaluator = BinnedEvaluator(VAL)
    with torch.no_grad():
        for entries in build_test_loader(cfg, VAL):
            evaluator.process(entries, predict(entries))
    results = evaluator.evaluate()
    lost = lost_share(evaluator.counts.values(), num_bits)
    return {label: {**metrics, "lost": lost[label]} for label, metrics in results.items()}


def evaluate_autoencoder(cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
    """Reconstruction by assignment and bin."""
    return {
        assignment: evaluate_bins(
            cfg,
            lambda entries, assignment=assignment: reconstruct(model, entries, assignment),
            num_bits=cfg.MODEL.LDMSEG.NUM_BITS,
        )
        for assignment in ASSIGNMENTS
    }


def evaluate_ldmseg(cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
    """The full model by bin, under the name of its assignment."""
    ldmseg = cfg.MODEL.LDMSEG
    return {ldmseg.ID_ASSIGNMENT: evaluate_bins(cfg, model, num_bits=ldmseg.NUM_BITS)}


def run_all(
    output: str | Path,
    *,
    bits: Iterable[int],
    size: int,
    autoencoder_iterations: int,
    iterations: int,
    seed: int,
    opts: Sequence[Any],
) -> tuple[list[dict[str, Any]], Curves]:
    """Train one autoencoder for each number of bits, and on it a model for each assignment.

    Returns:
        The records of all runs, and PQ and the like by stage, bits and assignment.
    """
    records: list[dict[str, Any]] = []
    curves: Curves = {}
    for num_bits in bits:
        common = (*OPTS, "MODEL.LDMSEG.NUM_BITS", num_bits, "INPUT.LDMSEG.IMAGE_SIZE", size)
        common += ("SEED", seed, *opts)
        name = f"autoencoder_{num_bits}bits"
        run = Run(name, AUTOENCODER_CONFIG, autoencoder_iterations, common)
        records.append(do_run(run, output, evaluate=evaluate_autoencoder))
        for assignment, found in records[-1]["results"].items():
            curves[STAGES[0], num_bits, assignment] = found
        weights = str(Path(output, name, "model_final.pth"))
        for assignment in ASSIGNMENTS:
            chosen = ("MODEL.LDMSEG.ID_ASSIGNMENT", assignment)
            chosen += ("MODEL.LDMSEG.AUTOENCODER.WEIGHTS", weights)
            name_of_run = f"ldmseg_{num_bits}bits_{assignment}"
            run = Run(name_of_run, LDMSEG_CONFIG, iterations, (*common, *chosen))
            records.append(do_run(run, output, evaluate=evaluate_ldmseg))
            curves[STAGES[1], num_bits, assignment] = records[-1]["results"][assignment]
    return records, curves


def breaking_bin(curve: dict[str, dict[str, float]]) -> str | None:
    """The first bin after the best one whose PQ is below BREAKS_BELOW of the best; or None.

    None as well where the best one is below LEAST_PQ.
    """
    values = [curve[label]["PQ"] for label in LABELS]
    best = max(range(len(LABELS)), key=lambda i: values[i])
    if values[best] < LEAST_PQ:
        return None
    for label, value in zip(LABELS[best:], values[best:], strict=True):
        if value < BREAKS_BELOW * values[best]:
            return label
    return None


def table(curves: Curves) -> str:
    """Markdown: PQ by bin, where it breaks, and what has no id."""
    lines = []
    for (stage, num_bits, assignment), curve in sorted(
        curves.items(), key=lambda item: (STAGES.index(item[0][0]), item[0][1:])
    ):
        numbers = [f"{curve[label]['PQ']:.1f}" for label in LABELS]
        taught = max(curve[label]["PQ"] for label in LABELS) >= LEAST_PQ
        breaks = (breaking_bin(curve) or "-") if taught else "not trained enough to say"
        lines.append([stage, num_bits, assignment, *numbers, breaks])
    for num_bits in sorted({key[1] for key in curves}):
        curve = next(curve for key, curve in curves.items() if key[1] == num_bits)
        lost = [f"{curve[label]['lost']:.1f}" for label in LABELS]
        lines.append(["segments without an id, %", num_bits, "", *lost, ""])
    header = ["PQ", "bits", "ids", *LABELS, "breaks at"]
    return tabulate(lines, header, tablefmt="pipe", disable_numparse=True)


def plot(curves: Curves, path: Path) -> None:
    """PQ over the number of segments, a panel for each stage; a ring marks where it breaks."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, len(STAGES), sharey=True)
    bits = sorted({key[1] for key in curves})
    for (stage, num_bits, assignment), curve in curves.items():
        panel = panels[STAGES.index(stage)]
        values = [curve[label]["PQ"] for label in LABELS]
        colour = f"C{bits.index(num_bits)}"
        style = "-" if assignment == "random" else "--"
        name = f"{num_bits} bits, {assignment} ids"
        panel.plot(values, style, color=colour, marker=".", label=name)
        broken = breaking_bin(curve)
        if broken is not None:
            x = LABELS.index(broken)
            panel.plot(x, values[x], "o", color=colour, markersize=10, fillstyle="none")
    for panel, stage in zip(panels, STAGES, strict=True):
        panel.set_title(f"{stage}, class-agnostic PQ", fontsize=9)
        panel.set_xticks(range(len(LABELS)), LABELS, fontsize=7)
        panel.set_xlabel("segments in the picture", fontsize=8)
        panel.set_ylim(0, 100)
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7)
    figure.savefig(path, dpi=110)
