"""Sharp-MAML: sharpness-aware model-agnostic meta-learning as pure functions of parameters.

This file is the public API, together with the modules `sharp_maml.train`, `sharp_maml.evaluate` and
`sharp_maml.classify`, which hold the functions of the same names. To read the package in order: `base.py`,
`ascent/gradient.py`, `meta.py`, `models/conv4.py`, `train.py`.
"""

from sharp_maml.allocator import keep_freed_memory
from sharp_maml.ascent import ASCENTS, Ascent, ascent
from sharp_maml.base import (
    Batch,
    BatchNorm,
    DataError,
    Direction,
    Episode,
    Execution,
    LossFn,
    MetaGradient,
    Method,
    NonFiniteError,
    Params,
    QueryLoss,
)
from sharp_maml.check import MethodCheck, MethodError, check_method
from sharp_maml.checkpoint import (
    Checkpoint,
    CheckpointError,
    InUseError,
    RunDirectoryLock,
    load_checkpoint,
    save_checkpoint,
    trained_params,
    write_atomically,
)
from sharp_maml.config import ADAPTATION, Config
from sharp_maml.data import (
    DATA_FORMS,
    DataForm,
    Dataset,
    EpisodeStream,
    Images,
    Protocol,
    check_protocol,
    episode,
    episode_digest,
    form_of,
    open_cache,
    open_dataset,
    write_cache,
)
from sharp_maml.distributed import end_with_parent, in_threads
from sharp_maml.estimates import (
    Estimate,
    clopper_pearson,
    holm,
    interval_over_episodes,
    interval_over_seeds,
    paired_difference,
)
from sharp_maml.laws import Law
from sharp_maml.matching import matching_method, matching_params
from sharp_maml.meta import adapt, meta_gradient, meta_loss
from sharp_maml.methods import build, network, sharp_maml_method
from sharp_maml.models import MODELS, Model, conv4, from_module, mlp, resnet12
from sharp_maml.module import SharpMAML
from sharp_maml.records import Record, provenance, read_records, write_record
from sharp_maml.results import KINDS, RecordError, Result, read_result, write_result
from sharp_maml.sharpness import (
    epsilon_sharpness,
    filter_normalised_direction,
    hessian,
    hessian_trace,
    leading_eigenvalues,
    loss_on_plane,
)
from sharp_maml.sources import joint_sources, sources
from sharp_maml.tree import add_scaled, dot, mean, norm

__all__ = [
    "ADAPTATION",
    "ASCENTS",
    "DATA_FORMS",
    "KINDS",
    "MODELS",
    "Ascent",
    "Batch",
    "BatchNorm",
    "Checkpoint",
    "CheckpointError",
    "Config",
    "DataError",
    "DataForm",
    "Dataset",
    "Direction",
    "Episode",
    "EpisodeStream",
    "Estimate",
    "Execution",
    "Images",
    "InUseError",
    "Law",
    "LossFn",
    "MetaGradient",
    "Method",
    "MethodCheck",
    "MethodError",
    "Model",
    "NonFiniteError",
    "Params",
    "Protocol",
    "QueryLoss",
    "Record",
    "RecordError",
    "Result",
    "RunDirectoryLock",
    "SharpMAML",
    "adapt",
    "add_scaled",
    "ascent",
    "build",
    "check_method",
    "check_protocol",
    "clopper_pearson",
    "conv4",
    "dot",
    "end_with_parent",
    "episode",
    "episode_digest",
    "epsilon_sharpness",
    "filter_normalised_direction",
    "form_of",
    "from_module",
    "hessian",
    "hessian_trace",
    "holm",
    "in_threads",
    "interval_over_episodes",
    "interval_over_seeds",
    "joint_sources",
    "keep_freed_memory",
    "leading_eigenvalues",
    "load_checkpoint",
    "loss_on_plane",
    "matching_method",
    "matching_params",
    "mean",
    "meta_gradient",
    "meta_loss",
    "mlp",
    "network",
    "norm",
    "open_cache",
    "open_dataset",
    "paired_difference",
    "provenance",
    "read_records",
    "read_result",
    "resnet12",
    "save_checkpoint",
    "sharp_maml_method",
    "sources",
    "trained_params",
    "write_atomically",
    "write_cache",
    "write_record",
    "write_result",
]
