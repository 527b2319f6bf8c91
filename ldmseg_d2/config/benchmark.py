"""Keys of the benchmark: what belongs to a model beside its own training."""

from detectron2.config import CfgNode as CN


def add_benchmark_config(cfg: CN) -> None:
    """Add the keys that ``tools/benchmark.py`` reads to ``cfg.BENCHMARK``, in place."""
    cfg.BENCHMARK = b = CN()
    # Of the model in tables and folders. Empty: the name of its config file.
    b.NAME = ""
    # Config file of a model that is trained before this one, whose time counts as this one's, such
    # as LDMSeg's autoencoder. Empty: there is none.
    b.FIRST_STAGE = ""
    # Its share of the training budget, above 0 and below 1.
    b.FIRST_STAGE_SHARE = 0.25
    # The key of this config that receives its weights.
    b.FIRST_STAGE_KEY = "MODEL.LDMSEG.AUTOENCODER.WEIGHTS"
    # Further such stages: a list of [config file, share, key].
    b.MORE_STAGES = []
    # Numbers of sampling steps at which a model that samples is evaluated and timed, beside its own
    # MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS.
    b.STEPS = []
