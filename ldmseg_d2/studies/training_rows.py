"""The rows of the study of training: a recipe, and what is changed in it, one factor at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from detectron2.config import CfgNode

BASELINE, REGRESSION, IDS = "baseline", "regression", "ids"
# Factor to its title, in the order of the table; "regression" is always there.
FACTORS = {
    IDS: "ids",
    "prediction": "prediction",
    "noise": "weight on high noise",
    "balance": "weight on small segments",
    "scaling": "latent scaling",
    "self_conditioning": "self-conditioning",
    "self_aligned": "own predictions in x_t",
    "decoded_loss": "cross-entropy on decoded logits",
    "cell_loss": "classes of the condition's cells",
    "latent_noise": "latent noise of the autoencoder",
    "resolution": "latent resolution",
    "image_encoder": "image encoder",
    "recipe": "recipe",
    REGRESSION: "one-step regression",
}

LDMSEG = "MODEL.LDMSEG"
DIFFUSION, AUTOENCODER = f"{LDMSEG}.DIFFUSION", f"{LDMSEG}.AUTOENCODER"
IMAGE_ENCODER = f"{LDMSEG}.IMAGE_ENCODER"
CELL_LOSS, CELL_PROBS = f"{IMAGE_ENCODER}.CELL_LOSS_WEIGHT", f"{IMAGE_ENCODER}.CELL_PROBS"
WITHOUT_CELLS = (CELL_LOSS, 0.0, CELL_PROBS, False, f"{IMAGE_ENCODER}.CELL_SHARE", 0.0)
OPTIONS = f"{IMAGE_ENCODER}.OPTIONS"
REGRESSION_OPTS = (
    *(f"{DIFFUSION}.REGRESSION", True, f"{DIFFUSION}.PREDICTION_TYPE", "sample"),
    *(f"{DIFFUSION}.SELF_CONDITIONING", False, f"{DIFFUSION}.SELF_ALIGNED_PROB", 0.0),
    *(f"{LDMSEG}.SAMPLER.NUM_INFERENCE_STEPS", 1, f"{LDMSEG}.SAMPLER.TIMESTEP_SPACING", "trailing"),
)


@dataclass(frozen=True)
class Row:
    """A line of the table: the same training for every seed.

    Attributes:
        factor: one of FACTORS, or BASELINE.
        value: of the factor, for readers.
        opts: keys and values that differ from the baseline.
        stage1: keys and values of the autoencoder that is trained first; None: the config's own
            autoencoder is used.
    """

    factor: str
    value: str
    opts: tuple[Any, ...] = ()
    stage1: tuple[Any, ...] | None = None

    @property
    def name(self) -> str:
        """Of the run's folder."""
        text = "".join(c if c.isalnum() else "_" for c in self.value.lower())
        return f"{self.factor}_{'_'.join(part for part in text.split('_') if part)}"

    @property
    def is_reference(self) -> bool:
        """Whether the rows of its factor are compared with it, and not with the baseline."""
        return self.stage1 == ()


def table_rows(cfg: CfgNode, factors: Sequence[str]) -> list[Row]:
    """The baseline, the rows of some factors, and one-step regression.

    Args:
        cfg: the baseline.
        factors: of FACTORS.

    Raises:
        ValueError: an unknown factor.
    """
    unknown = sorted(set(factors) - FACTORS.keys())
    if unknown:
        raise ValueError(f"unknown factor {unknown[0]!r}; allowed: {', '.join(FACTORS)}")
    rows = [Row(BASELINE, "the config")]
    for factor in FACTORS:
        if factor in factors or factor == REGRESSION:
            rows += _ROWS[factor](cfg.MODEL.LDMSEG)
    return rows


def _ids(ldmseg: CfgNode) -> Iterator[Row]:
    for method in ("random", "ordered", "positional", "matched"):
        title = "random (the paper)" if method == "random" else method
        yield Row(IDS, title, (f"{LDMSEG}.ID_ASSIGNMENT", method))
    for weight in (1.0, 4.0):
        opts = (f"{LDMSEG}.ID_ASSIGNMENT", "matched_positional")
        opts += (f"{LDMSEG}.MATCHED_POSITION_WEIGHT", weight)
        yield Row(IDS, f"matched + positional x {weight:g}", opts)


def _prediction(ldmseg: CfgNode) -> Iterator[Row]:
    for kind in ("epsilon", "sample", "v_prediction"):
        yield Row("prediction", kind, (f"{DIFFUSION}.PREDICTION_TYPE", kind))
    opts = (f"{DIFFUSION}.PREDICTION_TYPE", "epsilon", f"{DIFFUSION}.LOSS_WEIGHTING", "min_snr")
    yield Row("prediction", "epsilon, min-SNR (the paper)", opts)


def _noise(ldmseg: CfgNode) -> Iterator[Row]:
    uniform = (f"{DIFFUSION}.LOSS_WEIGHTING", "uniform")
    every_t = (f"{DIFFUSION}.TIMESTEP_SAMPLING", "uniform")
    yield Row("noise", "uniform t, weight 1", (*uniform, *every_t))
    min_snr = (f"{DIFFUSION}.LOSS_WEIGHTING", "min_snr", *every_t)
    yield Row("noise", "uniform t, min-SNR", min_snr)
    for power in (2.0, 4.0, 8.0):
        opts = (f"{DIFFUSION}.TIMESTEP_SAMPLING", "high_noise")
        opts += (f"{DIFFUSION}.TIMESTEP_POWER", power)
        yield Row("noise", f"t drawn as t^{power - 1:g}, weight 1", (*uniform, *opts))


def _balance(ldmseg: CfgNode) -> Iterator[Row]:
    for balance in (0.0, 0.5, 1.0):
        title = f"area^-{balance:g}" if balance else "every cell the same (the paper)"
        yield Row("balance", title, (f"{DIFFUSION}.SEGMENT_BALANCE", balance))


def _scaling(ldmseg: CfgNode) -> Iterator[Row]:
    # Statistics that stage 1 did not measure cannot be used.
    if ldmseg.AUTOENCODER.NORMALIZATION == "standardize":
        for factor in (1.0, 0.5, 0.18215):
            value = "unit variance" + (f" x {factor:g}" if factor != 1 else "")
            yield Row("scaling", value, (f"{AUTOENCODER}.SCALING_FACTOR", factor))
    opts = (f"{AUTOENCODER}.NORMALIZATION", "fixed", f"{AUTOENCODER}.SCALING_FACTOR", 0.18215)
    yield Row("scaling", "raw x 0.18215 (the paper)", opts)


def _self_conditioning(ldmseg: CfgNode) -> Iterator[Row]:
    for on, title in ((False, "off"), (True, "on (the paper)")):
        yield Row("self_conditioning", title, (f"{DIFFUSION}.SELF_CONDITIONING", on))


def _self_aligned(ldmseg: CfgNode) -> Iterator[Row]:
    for share in (0.0, 0.5, 1.0):
        title = f"{100 * share:g} % of the samples" if share else "none (the paper)"
        yield Row("self_aligned", title, (f"{DIFFUSION}.SELF_ALIGNED_PROB", share))


def _decoded_loss(ldmseg: CfgNode) -> Iterator[Row]:
    for weight, balance in ((0.0, 0.0), (0.1, 0.0), (0.1, 0.5), (1.0, 0.0)):
        opts = (f"{DIFFUSION}.DECODED_LOSS_WEIGHT", weight)
        opts += (f"{DIFFUSION}.DECODED_LOSS_BALANCE", balance)
        title = f"weight {weight:g}" + (f", area^-{balance:g}" if balance else "")
        yield Row("decoded_loss", title, opts)


def _cell_loss(ldmseg: CfgNode) -> Iterator[Row]:
    if "semantic" in ldmseg.TASKS:
        yield Row("cell_loss", "weight 0", WITHOUT_CELLS)
        for weight in (0.2, 1.0):
            yield Row("cell_loss", f"weight {weight:g}", (CELL_LOSS, weight))
        opts = (CELL_LOSS, 1.0, f"{IMAGE_ENCODER}.CELL_LOSS_SUBDIVISION", 2)
        for probs, where in ((False, ""), (True, ", probabilities in the condition")):
            yield Row("cell_loss", f"weight 1, 2 x 2 parts{where}", (*opts, CELL_PROBS, probs))


def _latent_noise(ldmseg: CfgNode) -> Iterator[Row]:
    own = ldmseg.AUTOENCODER.LATENT_NOISE
    yield Row("latent_noise", f"{own:g}, trained here", (), ())
    for noise in (0.0, 0.3, 0.6):
        if noise != own:
            opts = (f"{AUTOENCODER}.LATENT_NOISE", noise)
            yield Row("latent_noise", f"{noise:g}", opts, opts)


def _resolution(ldmseg: CfgNode) -> Iterator[Row]:
    """The number of latent values stays."""
    factor, channels = ldmseg.AUTOENCODER.DOWNSAMPLE_FACTOR, ldmseg.AUTOENCODER.LATENT_CHANNELS
    yield Row("resolution", f"1/{factor}, {channels} channels, trained here", (), ())
    for new, kept in ((2 * factor, 4 * channels), (factor // 2, channels // 4)):
        if new >= 2 and kept >= 1:
            opts = (f"{AUTOENCODER}.DOWNSAMPLE_FACTOR", new)
            opts += (f"{AUTOENCODER}.LATENT_CHANNELS", kept)
            yield Row("resolution", f"1/{new}, {kept} channels", opts, opts)


def _image_encoder(ldmseg: CfgNode) -> Iterator[Row]:
    options = ldmseg.IMAGE_ENCODER.OPTIONS
    # Another encoder cannot have the weights of this one.
    fresh = (f"{IMAGE_ENCODER}.WEIGHTS", "") if ldmseg.IMAGE_ENCODER.WEIGHTS else ()
    if fresh:
        yield Row("image_encoder", "not trained before", fresh)
    if not {"WIDTHS", "NUM_BLOCKS"} <= set(options):
        return
    widths = list(options.WIDTHS)
    # Stride of the first width. FPN's grid stays the same: its coarsest level changes, and there is
    # no further one.
    if ldmseg.IMAGE_ENCODER.NAME == "ConvImageEncoder":
        stride, others = 1, (widths[:-1], [*widths, widths[-1]])
    elif ldmseg.IMAGE_ENCODER.NAME == "FPNImageEncoder":
        stride, others = options.get("STEM_STRIDE", 4), (widths[:-1],)
    else:
        return
    coarsest = stride * 2 ** (len(widths) - 1)
    for new in filter(None, others):
        title = f"1/{stride * 2 ** (len(new) - 1)} instead of 1/{coarsest}"
        yield Row("image_encoder", title, (f"{OPTIONS}.WIDTHS", str(new), *fresh))
    blocks = 2 * options.NUM_BLOCKS
    title = f"{blocks} blocks a stage instead of {options.NUM_BLOCKS}"
    yield Row("image_encoder", title, (f"{OPTIONS}.NUM_BLOCKS", blocks, *fresh))


def _recipe(ldmseg: CfgNode) -> Iterator[Row]:
    """The paper's, but for networks, optimizer and the autoencoder."""
    opts = (f"{LDMSEG}.ID_ASSIGNMENT", "random", f"{DIFFUSION}.PREDICTION_TYPE", "epsilon")
    opts += (f"{DIFFUSION}.LOSS_WEIGHTING", "min_snr", f"{DIFFUSION}.MASKED_LOSS", True)
    opts += (f"{DIFFUSION}.TIMESTEP_SAMPLING", "uniform")
    opts += (f"{DIFFUSION}.SELF_ALIGNED_PROB", 0.0)
    opts += (f"{DIFFUSION}.SELF_CONDITIONING", True, f"{LDMSEG}.SAMPLER.NAME", "DDIM")
    opts += (f"{AUTOENCODER}.NORMALIZATION", "fixed", f"{AUTOENCODER}.SCALING_FACTOR", 0.18215)
    opts += (f"{DIFFUSION}.SEGMENT_BALANCE", 0.0, f"{DIFFUSION}.DECODED_LOSS_WEIGHT", 0.0)
    opts += WITHOUT_CELLS
    yield Row("recipe", "the paper's", opts)


def _regression(ldmseg: CfgNode) -> Iterator[Row]:
    for method in dict.fromkeys((ldmseg.ID_ASSIGNMENT, "positional")):
        opts = (f"{LDMSEG}.ID_ASSIGNMENT", method)
        yield Row(REGRESSION, f"{method} ids", (*REGRESSION_OPTS, *opts))


_ROWS = {
    IDS: _ids,
    "prediction": _prediction,
    "noise": _noise,
    "balance": _balance,
    "scaling": _scaling,
    "self_conditioning": _self_conditioning,
    "self_aligned": _self_aligned,
    "decoded_loss": _decoded_loss,
    "cell_loss": _cell_loss,
    "latent_noise": _latent_noise,
    "resolution": _resolution,
    "image_encoder": _image_encoder,
    "recipe": _recipe,
    REGRESSION: _regression,
}
