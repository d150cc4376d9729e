"""Sharp-MAML: sharpness-aware model-agnostic meta-learning as pure functions of parameters.

This file is the public API, together with the two commands `sharp_maml.train` and `sharp_maml.evaluate`, whose modules
hold the functions of the same names. To read the package in order: `base.py`, `ascent.py`, `meta.py`, `models.py`, `train.py`.
"""

from .allocator import keep_freed_memory
from .ascent import ascent
from .base import (
    Batch,
    DataError,
    Episode,
    LossFn,
    MetaGradient,
    Method,
    NonFiniteError,
    Params,
    QueryLoss,
)
from .checkpoint import Checkpoint, CheckpointError, RunDirectoryLock, load_checkpoint, save_checkpoint
from .config import ADAPTATION, Config
from .data import (
    Dataset,
    EpisodeStream,
    Protocol,
    episode,
    episode_digest,
    open_cache,
    open_dataset,
    write_cache,
)
from .estimates import (
    Estimate,
    clopper_pearson,
    decide_against,
    holm,
    interval_over_episodes,
    interval_over_seeds,
    paired_difference,
    paired_over_seeds,
)
from .matching import matching_method, matching_params
from .meta import adapt, meta_gradient, meta_loss, sharp_maml_method
from .methods import build
from .models import Model, conv4, from_module, mlp
from .records import Record, RecordError, provenance, read_records, write_record
from .tree import add_scaled, dot, mean, norm

__all__ = [
    "ADAPTATION",
    "Batch",
    "Checkpoint",
    "CheckpointError",
    "Config",
    "DataError",
    "Dataset",
    "Episode",
    "EpisodeStream",
    "Estimate",
    "LossFn",
    "MetaGradient",
    "Method",
    "Model",
    "NonFiniteError",
    "Params",
    "Protocol",
    "QueryLoss",
    "Record",
    "RecordError",
    "RunDirectoryLock",
    "adapt",
    "add_scaled",
    "ascent",
    "build",
    "clopper_pearson",
    "conv4",
    "decide_against",
    "dot",
    "episode",
    "episode_digest",
    "from_module",
    "holm",
    "interval_over_episodes",
    "interval_over_seeds",
    "keep_freed_memory",
    "load_checkpoint",
    "matching_method",
    "matching_params",
    "mean",
    "meta_gradient",
    "meta_loss",
    "mlp",
    "norm",
    "open_cache",
    "open_dataset",
    "paired_difference",
    "paired_over_seeds",
    "provenance",
    "read_records",
    "save_checkpoint",
    "sharp_maml_method",
    "write_cache",
    "write_record",
]
