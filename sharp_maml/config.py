"""All settings of one training run: a frozen `Config`, read from a TOML file and `key=value` overrides.

Every value is checked when a `Config` is made, so the rest of the package trusts it. A setting that would be ignored or
that contradicts another one is refused: what a record prints is what was run. Read next: `train.py`, which is the only
module that turns these settings into work; `meta.py` says what the settings of the two levels mean.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from sharp_maml.base import BatchNorm
from sharp_maml.meta import Perturbation

MethodName = Literal["sharp-maml", "matching", "matching-fce"]
"""Sharp-MAML (MAML is its case of zero radii), or Matching Networks without and with full context embeddings."""

InnerParams = Literal["all", "head", "body", "all-but-norm"]
"""What the inner loop adapts: everything, the last layer (ANIL), the rest (BOIL), all but the batch norm affine."""

_AT_LEAST = {
    "image_size": 16,  # conv4 halves an image four times
    "ways": 2,
    "shots": 1,
    "queries": 1,
    "filters": 1,
    "alpha_low": 0,
    "alpha_up": 0,
    "steps": 1,
    "test_steps": 0,
    "meta_batch": 1,
    "iterations": 1,
    "validate_every": 1,
    "validation_episodes": 1,
    "checkpoint_every": 1,
    "ascent_every": 1,
    "seed": 0,
    "threads": 0,
    "episode_threads": 1,
}
_POSITIVE = ("beta_low", "beta_up")
ADAPTATION = (
    "alpha_low",
    "alpha_up",
    "beta_low",
    "steps",
    "test_steps",
    "perturb_at_test",
    "perturbation",
    "inner_params",
    "first_order",
    "ascent",
    "ascent_every",
)
"""Settings of the adaptation, which Matching Networks do not have."""

Ascent = Literal["gradient", "random", "norm", "half"]
"""What both ascents go along: see `DIRECTIONS` in `ascent.py`."""

Schedule = Literal["constant", "cosine"]
"""The outer step size over the meta-iterations."""

Precision = Literal["full", "tf32", "bfloat16"]
"""How the network computes: in `dtype`; on a GPU with TF32 products; or in bfloat16, with parameters in float32."""

EXECUTION = ("data", "device", "threads", "episode_threads", "compile")
"""Settings that say where the data lie and how the work is executed, not what is computed: no digest sees them."""

DIGEST_SCHEMA = 2
"""Version of the meaning of a digest: raised when a default changes, or a setting comes to mean something else."""


@dataclass(frozen=True)
class Config:
    """Settings of one training run; the defaults are MAML, both radii zero, at the size of the source's table.

    Numbers are those of the authors' released code. Where that code departs from the algorithm box (`perturbation`,
    `inner_params`), the default is the box.

    Attributes:
        method: The method.
        data: Path of the data; where it lies has no influence, so records hold the digest of what was found there.
        image_size: Side of an image, in pixels; at least 16.
        ways: Classes of an episode, at least 2.
        shots: Support examples of a class, at least 1.
        queries: Query examples of a class, at least 1.
        filters: Filters of each block of conv4, at least 1.
        alpha_low: Radius of the lower ascent, >= 0; 0 switches it off.
        alpha_up: Radius of the upper ascent, >= 0; 0 switches it off.
        beta_low: Inner step size, > 0.
        steps: Inner steps in training, at least 1.
        test_steps: Inner steps at validation and test; 0 means no adaptation.
        perturb_at_test: Whether the inner steps at validation and test are perturbed too.
        perturbation: What the lower perturbation is at the upper ascent point: see `meta_gradient`.
        inner_params: What the inner loop adapts and perturbs.
        first_order: Whether the Hessian products are left out.
        ascent: What both ascents go along: the normalised `gradient`; a `random` direction; the gradient of the `norm`
            layers' parameters alone; that of a random `half` of all parameters.
        ascent_every: Meta-iterations from one with ascents to the next, at least 1; those between are MAML's.
        batch_norm: Whose statistics normalise the query set: its own, or the support set's.
        optimizer: The outer optimizer.
        beta_up: Outer step size, > 0.
        schedule: What becomes of it: `constant`, or `cosine`, beta_up (1 + cos(pi t / iterations)) / 2 at step t, which
            ends at nothing, so that the last parameters depend less on the last episodes.
        meta_batch: Episodes of a meta-iteration, at least 1.
        iterations: Meta-iterations, at least 1.
        validate_every: Meta-iterations between validations, at least 1.
        validation_episodes: Episodes of a validation, at least 1.
        checkpoint_every: Meta-iterations between checkpoints, at least 1.
        seed: Seed of the initialisation and of the training episodes, >= 0.
        threads: Threads of torch; 0 leaves torch's choice.
        episode_threads: Episodes worked on at the same time, which share these threads; at least 1. Faster on several
            cores, most of all on small images, at the price of that many query passes in memory at once.
        compile: Compile the work of an episode: a minute or more at the start, then a few per cent faster on a CPU.
        dtype: Type of all floating-point numbers.
        precision: `full` computes in `dtype`; `tf32` lets a CUDA device round the factors of products to 10 bits;
            `bfloat16` runs the network in bfloat16. Parameters, gradients, their norms and all updates stay in
            float32 with all three.
        device: `cpu`, `cuda`, or one device such as `cuda:1`.

    Raises:
        ValueError: A value has the wrong type, is out of range or contradicts another one. The message names the
            argument, the value and what is allowed.

    Source: the numbers of the authors' released code; what it does differently from the algorithm box is an option.
    """

    method: MethodName = "sharp-maml"
    data: str = ""
    image_size: int = 84
    ways: int = 5
    shots: int = 1
    queries: int = 15
    filters: int = 64
    alpha_low: float = 0.0
    alpha_up: float = 0.0
    beta_low: float = 0.1
    steps: int = 5
    test_steps: int = 5
    perturb_at_test: bool = False
    perturbation: Perturbation = "reused"
    inner_params: InnerParams = "all"
    first_order: bool = False
    ascent: Ascent = "gradient"
    ascent_every: int = 1
    batch_norm: BatchNorm = "transductive"
    optimizer: Literal["adam", "sgd"] = "adam"
    beta_up: float = 1e-3
    schedule: Schedule = "constant"
    meta_batch: int = 4
    iterations: int = 60_000
    validate_every: int = 1_000
    validation_episodes: int = 200
    checkpoint_every: int = 500
    seed: int = 0
    threads: int = 0
    episode_threads: int = 1
    compile: bool = False
    dtype: Literal["float32", "float64"] = "float32"
    precision: Precision = "full"
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, kind in _kinds().items():
            # A whole number given for a real one is stored as a float: 1 and 1.0 must have one digest.
            object.__setattr__(self, name, _checked(name, kind, getattr(self, name)))
        if re.fullmatch(r"cpu|cuda(:\d+)?", self.device) is None:
            raise ValueError(f"device must be cpu, cuda or cuda:NUMBER, got {self.device!r}")
        if self.precision != "full" and self.dtype != "float32":
            raise ValueError(f"precision = {self.precision!r} needs dtype = 'float32', got {self.dtype!r}")
        if self.precision == "tf32" and self.device == "cpu":
            raise ValueError("precision = 'tf32' needs a CUDA device, got device = 'cpu'")
        if self.compile and self.method != "sharp-maml":
            raise ValueError(f"compile has no meaning for method = {self.method!r}: leave it false")
        if self.first_order and self.perturbation == "differentiated":
            raise ValueError("perturbation = 'differentiated' needs the second derivatives that first_order leaves out")
        if self.compile and self.ascent in ("random", "half"):
            raise ValueError(f"ascent = {self.ascent!r} draws numbers, which cannot be compiled: leave compile false")
        if self.method != "sharp-maml":
            for field in fields(self):
                value = getattr(self, field.name)
                if field.name in ADAPTATION and value != field.default:
                    raise ValueError(
                        f"{field.name} has no meaning for method = {self.method!r}, which does not adapt: leave it at "
                        f"its default {field.default!r}, got {value!r}"
                    )
        elif (self.ascent, self.ascent_every) != ("gradient", 1) and not (self.alpha_low or self.alpha_up):
            raise ValueError("ascent and ascent_every have no meaning without a radius: set alpha_low or alpha_up")

    @property
    def variant(self) -> str:
        """`maml`, `low`, `up` or `both`, read off the radii; the method's own name where there are none."""
        if self.method != "sharp-maml":
            return self.method
        names = {(False, False): "maml", (True, False): "low", (False, True): "up", (True, True): "both"}
        return names[self.alpha_low > 0, self.alpha_up > 0]

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of `DIGEST_SCHEMA` and of the settings that differ from their defaults.

        A setting that is added later, with a default under which everything is computed as before, leaves all digests
        as they are. The settings of `EXECUTION` do not count; what is run is decided by the others and by the content
        of the data, whose digest is recorded separately. So two runs of one digest are the same experiment, up to
        rounding (which devices and threads change; the provenance names them). What only decides which weights are
        kept (`validate_every`) does count.
        """
        settings = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in EXECUTION and getattr(self, field.name) != field.default
        }
        canonical = json.dumps({"schema": DIGEST_SCHEMA, "settings": settings}, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """All settings by name, ready for JSON; `from_mapping` is the inverse."""
        return asdict(self)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, object]) -> Config:
        """A config from settings by name; what is left out keeps its default.

        Args:
            settings: Values by field name.

        Returns:
            The config.

        Raises:
            ValueError: A name is unknown (the message has the nearest valid one), or see `Config`.
        """
        for name in settings:
            _check_name(name)
        return cls(**settings)  # type: ignore[arg-type]

    @classmethod
    def from_toml(cls, path: str | Path, overrides: Sequence[str] = ()) -> Config:
        """A config from a TOML file of plain `name = value` lines.

        Args:
            path: The file.
            overrides: `name=value` texts that win over the file, the last one over earlier ones. Values are written
                as in TOML; text needs no quotes.

        Returns:
            The config.

        Raises:
            ValueError: The file is not TOML, an override is not `name=value`, or see `from_mapping`.
            OSError: The file cannot be read.
        """
        try:
            settings = tomllib.loads(Path(path).read_text(encoding="utf-8"))
            for override in overrides:
                name, value = _parse_override(override)
                settings[name] = value
            return cls.from_mapping(settings)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{' '.join([str(path), *overrides])}: {error}") from error


@cache
def _kinds() -> dict[str, Any]:
    """Annotated type of each setting."""
    return get_type_hints(Config)


def _checked(name: str, kind: Any, value: Any) -> Any:
    """The value in the type of its setting, or a ValueError that names setting, value and what is allowed."""
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            choices = get_args(kind)
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}{_nearest(value, choices)}")
        return value
    # A bool is an int to Python; here True steps or a radius of False is a mistake.
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        article = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind]
        raise ValueError(f"{name} must be {article}, got {value!r}")
    if kind is int and value >= 2**63:
        raise ValueError(f"{name} must fit into 64 bits, got {value}")
    if kind is float and not abs(value) <= sys.float_info.max:  # nor a whole number beyond it
        raise ValueError(f"{name} must be finite, got {value}")
    if name in _AT_LEAST and value < _AT_LEAST[name]:
        raise ValueError(f"{name} must be >= {_AT_LEAST[name]}, got {value}")
    if name in _POSITIVE and value <= 0:
        raise ValueError(f"{name} must be > 0, got {value}")
    return float(value) if kind is float else value


def _parse_override(text: str) -> tuple[str, object]:
    """Name and value of a `name=value` text."""
    name, equals, written = (part.strip() for part in text.partition("="))
    if not equals:
        raise ValueError(f"an override must be name=value, got {text!r}")
    _check_name(name)
    try:
        parsed = tomllib.loads(f"value = {written}")
    except tomllib.TOMLDecodeError:
        parsed = {}
    is_text = _kinds()[name] is str or get_origin(_kinds()[name]) is Literal
    if is_text:  # `data=2024` names a folder, quoted or not
        return name, parsed["value"] if isinstance(parsed.get("value"), str) else written
    if set(parsed) != {"value"}:
        raise ValueError(f"{name} must be a TOML value such as 1, 0.5 or true, got {written!r}")
    return name, parsed["value"]


def _check_name(name: str) -> None:
    if name not in _kinds():
        raise ValueError(
            f"unknown setting {name!r}{_nearest(name, _kinds())}; the settings are {', '.join(sorted(_kinds()))}"
        )


def _nearest(word: object, valid: Collection[str]) -> str:
    """`; did you mean 'x'?` where one of the valid names is near, else nothing."""
    matches = get_close_matches(str(word), valid, n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""
