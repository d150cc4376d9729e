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
from dataclasses import Field, asdict, dataclass, field, fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from sharp_maml.ascent import ASCENTS
from sharp_maml.base import BatchNorm, Perturbation
from sharp_maml.models import MODELS

MethodName = Literal["sharp-maml", "matching", "matching-fce"]
"""Sharp-MAML (MAML is its case of zero radii), or Matching Networks without and with full context embeddings."""

InnerParams = Literal["all", "head", "body", "all-but-norm"]
"""What the inner loop adapts: see `inner_names` in `methods.py`."""

Schedule = Literal["constant", "cosine"]
"""The outer step size over the meta-iterations."""

Precision = Literal["full", "tf32", "bfloat16"]
"""How the network computes: in `dtype`; on a GPU with TF32 products; or in bfloat16, with parameters in float32."""

Role = Literal["experiment", "adaptation", "execution"]
"""What a setting decides: the experiment; within it the adaptation, which Matching Networks do not have; or where the
data lie and how the work is executed, which no digest sees."""

DIGEST_SCHEMA = 2
"""Version of the meaning of a digest: raised when a default changes, or a setting comes to mean something else."""

_IN_A_GRAPH = {"method": "sharp-maml", "optimizer": "adam", "ascent_every": 1, "episode_threads": 1, "compile": False}
"""What a meta-iteration must be to be captured: the same each time, with an optimizer that can be."""


def _is(
    meaning: str,
    *,
    at_least: int | None = None,
    above: int | None = None,
    among: Mapping[str, object] | None = None,
    role: Role = "experiment",
) -> dict[str, Any]:
    """All that is known of a setting beside its type and default; `among` are the names that text may have."""
    return {"meaning": meaning, "at_least": at_least, "above": above, "among": among, "role": role}


@dataclass(frozen=True)
class Config:
    """Settings of one training run; the defaults are MAML, both radii zero, at the size of the source's table.

    Numbers are those of the authors' released code. Where that code departs from the algorithm box (`perturbation`,
    `inner_params`), the default is the box.

    What each setting means is said where it is defined, and on the page of settings of the documentation (`reference`).

    Raises:
        ValueError: A value has the wrong type, is out of range or contradicts another one. The message names the
            argument, the value and what is allowed.

    Source: the numbers of the authors' released code; what it does differently from the algorithm box is an option.
    """

    method: MethodName = field(default="sharp-maml", metadata=_is("The method."))
    data: str = field(
        default="",
        metadata=_is(
            "Path of the data. Records hold the digest of what was found there, and not the path.", role="execution"
        ),
    )
    model: str = field(default="conv4", metadata=_is("The network.", among=MODELS))
    image_size: int = field(
        default=84, metadata=_is("Side of an image, in pixels; the networks halve it four times.", at_least=16)
    )
    ways: int = field(default=5, metadata=_is("Classes of an episode.", at_least=2))
    shots: int = field(default=1, metadata=_is("Support examples of a class.", at_least=1))
    queries: int = field(default=15, metadata=_is("Query examples of a class.", at_least=1))
    filters: int = field(
        default=64, metadata=_is("Filters of each block of conv4, or of the first block of resnet12.", at_least=1)
    )
    alpha_low: float = field(
        default=0.0, metadata=_is("Radius of the lower ascent; 0 switches it off.", at_least=0, role="adaptation")
    )
    alpha_up: float = field(
        default=0.0, metadata=_is("Radius of the upper ascent; 0 switches it off.", at_least=0, role="adaptation")
    )
    beta_low: float = field(default=0.1, metadata=_is("Inner step size.", above=0, role="adaptation"))
    steps: int = field(default=5, metadata=_is("Inner steps in training.", at_least=1, role="adaptation"))
    test_steps: int = field(
        default=5,
        metadata=_is("Inner steps at validation and test; 0 means no adaptation.", at_least=0, role="adaptation"),
    )
    perturb_at_test: bool = field(
        default=False,
        metadata=_is("Whether the inner steps at validation and test are perturbed too.", role="adaptation"),
    )
    perturbation: Perturbation = field(
        default="reused",
        metadata=_is(
            "What the lower perturbation is at the upper ascent point: see `meta_gradient`.", role="adaptation"
        ),
    )
    inner_params: InnerParams = field(
        default="all",
        metadata=_is(
            "What the inner loop adapts and perturbs: everything, the last layer (`head`, ANIL), all but it "
            "(`body`, BOIL), or all but the parameters of normalisation layers.",
            role="adaptation",
        ),
    )
    first_order: bool = field(
        default=False, metadata=_is("Whether the Hessian products are left out.", role="adaptation")
    )
    ascent: str = field(
        default="gradient",
        metadata=_is(
            "What both ascents go along: the normalised `gradient`; that of `asam`, in proportion to each "
            "parameter; a `random` direction; the gradient of the `norm` layers' parameters alone; that of a "
            "random `half` of all entries.",
            among=ASCENTS,
            role="adaptation",
        ),
    )
    ascent_every: int = field(
        default=1,
        metadata=_is(
            "Meta-iterations from one with ascents to the next; those between are MAML's.",
            at_least=1,
            role="adaptation",
        ),
    )
    batch_norm: BatchNorm = field(
        default="transductive",
        metadata=_is("Whose statistics normalise the query set: its own (`transductive`), or the `support` set's."),
    )
    optimizer: Literal["adam", "sgd"] = field(default="adam", metadata=_is("The outer optimizer."))
    beta_up: float = field(default=1e-3, metadata=_is("Outer step size.", above=0))
    schedule: Schedule = field(
        default="constant",
        metadata=_is(
            "What becomes of it: `constant`, or `cosine`, beta_up (1 + cos(pi t / iterations)) / 2 at step t, "
            "which ends at nothing, so that the last parameters depend less on the last episodes."
        ),
    )
    meta_batch: int = field(default=4, metadata=_is("Episodes of a meta-iteration.", at_least=1))
    iterations: int = field(default=60_000, metadata=_is("Meta-iterations.", at_least=1))
    validate_every: int = field(default=1_000, metadata=_is("Meta-iterations between validations.", at_least=1))
    validation_episodes: int = field(default=200, metadata=_is("Episodes of a validation.", at_least=1))
    checkpoint_every: int = field(default=500, metadata=_is("Meta-iterations between checkpoints.", at_least=1))
    seed: int = field(default=0, metadata=_is("Seed of the initialisation and of the training episodes.", at_least=0))
    threads: int = field(
        default=0, metadata=_is("Threads of torch; 0 leaves torch's choice.", at_least=0, role="execution")
    )
    episode_threads: int = field(
        default=1,
        metadata=_is(
            "Episodes worked on at the same time, which share these threads. Faster on several cores, most of all "
            "on small images, at the price of that many query passes in memory at once.",
            at_least=1,
            role="execution",
        ),
    )
    compile: bool = field(
        default=False,
        metadata=_is(
            "Compile the work of an episode: a minute or more at the start, then a few per cent faster on a CPU.",
            role="execution",
        ),
    )
    cuda_graphs: bool = field(
        default=False,
        metadata=_is(
            "Replay whole meta-iterations as a CUDA graph, with the training images on the device; losses are read and "
            "signals heard once in a hundred of them. On a CPU the same without a graph. Not run on a GPU so far.",
            role="execution",
        ),
    )
    dtype: Literal["float32", "float64"] = field(default="float32", metadata=_is("Type of all floating-point numbers."))
    precision: Precision = field(
        default="full",
        metadata=_is(
            "`full` computes in `dtype`; `tf32` lets a CUDA device round the factors of products to 10 bits; "
            "`bfloat16` runs the network in bfloat16. Parameters, gradients, their norms and all updates stay in "
            "float32 with all three."
        ),
    )
    device: str = field(default="cpu", metadata=_is("`cpu`, `cuda`, or one device such as `cuda:1`.", role="execution"))

    def __post_init__(self) -> None:
        for setting in fields(Config):
            # A whole number given for a real one is stored as a float: 1 and 1.0 must have one digest.
            object.__setattr__(self, setting.name, _checked(setting, getattr(self, setting.name)))
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
        if (self.compile or self.cuda_graphs) and ASCENTS[self.ascent].draws:
            raise ValueError(f"ascent = {self.ascent!r} draws numbers: leave compile and cuda_graphs false")
        if self.cuda_graphs:
            for name, needed in _IN_A_GRAPH.items():
                if (value := getattr(self, name)) != needed:
                    raise ValueError(f"cuda_graphs = true needs {name} = {needed!r}, got {value!r}")
        if self.method != "sharp-maml":
            for setting in fields(Config):
                value = getattr(self, setting.name)
                if setting.metadata["role"] == "adaptation" and value != setting.default:
                    raise ValueError(
                        f"{setting.name} has no meaning for method = {self.method!r}, which does not adapt: leave it "
                        f"at its default {setting.default!r}, got {value!r}"
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
        as they are. Settings of the execution do not count; what is run is decided by the others and by the content
        of the data, whose digest is recorded separately. So two runs of one digest are the same experiment, up to
        rounding (which devices and threads change; the provenance names them). What only decides which weights are
        kept (`validate_every`) does count.
        """
        settings = {
            setting.name: getattr(self, setting.name)
            for setting in fields(self)
            if setting.metadata.get("role") != "execution" and getattr(self, setting.name) != setting.default
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


ADAPTATION = tuple(setting.name for setting in fields(Config) if setting.metadata["role"] == "adaptation")
"""Settings of the adaptation, which Matching Networks do not have."""


def reference() -> str:
    """All settings as a page in Markdown, that of the documentation."""
    lines = [
        "# Settings",
        "",
        "A configuration is a TOML file of `name = value` lines; `name=value` on the command line wins over it, and",
        "what is left out has its default. A run's digest is made of the settings that differ from their defaults, but",
        "for those of the execution. `make publish` writes this page.",
        "",
        "| setting | default | allowed | decides | meaning |",
        "|---|---|---|---|---|",
    ]
    for setting in fields(Config):
        kind, limits = _kinds()[setting.name], setting.metadata
        words = {bool: "true, false", int: "whole number", float: "number", str: "text"}
        choices = _choices(setting)
        allowed = ", ".join(choices) if choices else words[kind] + _bound(limits)
        default = json.dumps(setting.default)
        lines.append(f"| `{setting.name}` | `{default}` | {allowed} | {limits['role']} | {limits['meaning']} |")
    return "\n".join(lines) + "\n"


@cache
def _kinds() -> dict[str, Any]:
    """Annotated type of each setting."""
    return get_type_hints(Config)


def _choices(setting: Field[Any]) -> Collection[str]:
    """The names that a setting may have; none for one that is not a name."""
    kind = _kinds()[setting.name]
    return setting.metadata["among"] or (get_args(kind) if get_origin(kind) is Literal else ())


def _bound(limits: Mapping[str, Any]) -> str:
    """` >= 1`, ` > 0`, or nothing."""
    least, above = limits["at_least"], limits["above"]
    return f" >= {least}" if least is not None else f" > {above}" if above is not None else ""


def _checked(setting: Field[Any], value: Any) -> Any:
    """The value in the type of its setting, or a ValueError that names setting, value and what is allowed."""
    name, kind, limits = setting.name, _kinds()[setting.name], setting.metadata
    if choices := _choices(setting):
        if value not in choices:
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
    least, above = limits["at_least"], limits["above"]
    if (least is not None and value < least) or (above is not None and value <= above):
        raise ValueError(f"{name} must be{_bound(limits)}, got {value}")
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
