from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharp_maml.config import DIGEST_SCHEMA, Config, reference


def write(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


DEFAULTS_OF_SCHEMA_2: dict[str, Any] = {
    "method": "sharp-maml",
    "data": "",
    "model": "conv4",
    "image_size": 84,
    "ways": 5,
    "shots": 1,
    "queries": 15,
    "filters": 64,
    "alpha_low": 0.0,
    "alpha_up": 0.0,
    "beta_low": 0.1,
    "steps": 5,
    "test_steps": 5,
    "perturb_at_test": False,
    "perturbation": "reused",
    "inner_params": "all",
    "first_order": False,
    "batch_norm": "transductive",
    "optimizer": "adam",
    "beta_up": 0.001,
    "meta_batch": 4,
    "iterations": 60000,
    "validate_every": 1000,
    "validation_episodes": 200,
    "checkpoint_every": 500,
    "seed": 0,
    "threads": 0,
    "episode_threads": 1,
    "compile": False,
    "cuda_graphs": False,
    "dtype": "float32",
    "precision": "full",
    "device": "cpu",
}

configs = st.builds(
    Config,
    data=st.text(max_size=10),
    ways=st.integers(2, 100),
    alpha_low=st.floats(0, 10),
    alpha_up=st.integers(0, 10),
    beta_low=st.floats(1e-9, 10),
    perturbation=st.sampled_from(["reused", "recomputed", "differentiated"]),
    perturb_at_test=st.booleans(),
    seed=st.integers(0, 2**63 - 1),
    device=st.sampled_from(["cpu", "cuda", "cuda:3"]),
)


@given(configs)
def test_a_config_survives_json(config: Config) -> None:
    again = Config.from_mapping(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert again.digest == config.digest


def test_the_default_numbers_are_those_of_the_released_code() -> None:
    config = Config()
    assert (config.ways, config.shots, config.queries, config.image_size, config.filters) == (5, 1, 15, 84, 64)
    assert (config.beta_low, config.steps, config.beta_up, config.meta_batch) == (0.1, 5, 1e-3, 4)
    assert (config.optimizer, config.batch_norm, config.iterations) == ("adam", "transductive", 60_000)


def test_by_default_the_algorithm_is_maml_and_its_choices_are_those_of_the_algorithm_box() -> None:
    config = Config()
    assert (config.variant, config.perturbation, config.inner_params) == ("maml", "reused", "all")
    assert (config.first_order, config.perturb_at_test) == (False, False)


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("alpha_low", "alpha_up", "variant"), [(0, 0, "maml"), (0.1, 0, "low"), (0, 0.1, "up"), (0.1, 0.1, "both")]
)
def test_the_variant_is_read_off_the_radii(alpha_low: float, alpha_up: float, variant: str) -> None:
    assert Config(alpha_low=alpha_low, alpha_up=alpha_up).variant == variant


def test_the_variant_of_matching_networks_is_their_name() -> None:
    assert Config(method="matching-fce").variant == "matching-fce"


def test_the_digest_does_not_see_the_place_of_the_data_nor_how_the_work_is_executed() -> None:
    elsewhere = Config(data="elsewhere", device="cuda:1", threads=3, episode_threads=2, compile=True)
    assert Config(cuda_graphs=True).digest == Config().digest
    assert elsewhere.digest == Config().digest


EXECUTION = {"data", "threads", "episode_threads", "compile", "cuda_graphs", "device"}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Config) if field.name not in EXECUTION])
def test_the_digest_sees_every_other_setting(name: str) -> None:
    other: dict[str, Any] = {
        "method": "matching",
        "model": "resnet12",
        "alpha_low": 1e-9,
        "alpha_up": 1e-9,
        "perturb_at_test": True,
        "perturbation": "recomputed",
        "inner_params": "head",
        "first_order": True,
        "ascent": "random",
        "batch_norm": "support",
        "optimizer": "sgd",
        "schedule": "cosine",
        "dtype": "float64",
        "precision": "bfloat16",
    }
    value = other[name] if name in other else getattr(Config(), name) + 1
    base = {"alpha_low": 0.1} if name.startswith("ascent") else {}  # without a radius there is nothing to set
    assert Config(**{**base, name: value}).digest != Config(**base).digest


def test_a_setting_with_a_default_can_be_added_and_no_digest_changes() -> None:
    @dataclasses.dataclass(frozen=True)
    class Later(Config):
        added: bool = False

    config = Config(alpha_low=0.1, seed=2, iterations=7)
    later = Later(alpha_low=0.1, seed=2, iterations=7)
    assert "added" in later.to_dict()
    assert later.digest == config.digest
    assert Later(added=True).digest != Later().digest


def test_defaults_are_those_that_the_schema_of_digests_was_made_with() -> None:
    """A record names only what differs from the defaults: another default is another DIGEST_SCHEMA."""
    assert DIGEST_SCHEMA == 2
    assert Config.from_mapping(DEFAULTS_OF_SCHEMA_2) == Config()


def test_the_digest_does_not_depend_on_how_a_number_is_written() -> None:
    assert Config(alpha_low=1).digest == Config(alpha_low=1.0).digest
    assert isinstance(Config(alpha_low=1).alpha_low, float)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": True}, "steps must be a whole number, got True"),
        ({"steps": 5.0}, "steps must be a whole number, got 5.0"),
        ({"alpha_low": False}, "alpha_low must be a number, got False"),
        ({"alpha_low": "0.1"}, "alpha_low must be a number, got '0.1'"),
        ({"first_order": 1}, "first_order must be true or false, got 1"),
        ({"first_order": "False"}, "first_order must be true or false, got 'False'"),
        ({"data": 3}, "data must be text, got 3"),
        ({"ways": {"a": 1}}, "ways must be a whole number, got"),
        ({"method": 3}, "method must be one of sharp-maml, matching, matching-fce, got 3"),
    ],
)
def test_a_wrong_type_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config.from_mapping(settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ways": 1}, "ways must be >= 2, got 1"),
        ({"shots": 0}, "shots must be >= 1, got 0"),
        ({"image_size": 15}, "image_size must be >= 16, got 15"),
        ({"alpha_up": -0.1}, "alpha_up must be >= 0, got -0.1"),
        ({"alpha_low": float("nan")}, "alpha_low must be finite, got nan"),
        ({"beta_up": float("inf")}, "beta_up must be finite, got inf"),
        ({"beta_low": 0}, "beta_low must be > 0, got 0"),
        ({"seed": 2**63}, "seed must fit into 64 bits, got 9223372036854775808"),
        ({"device": "tpu"}, "device must be cpu, cuda or cuda:NUMBER, got 'tpu'"),
        ({"model": "conv5"}, "model must be one of conv4, resnet12, got 'conv5'; did you mean 'conv4'?"),
        ({"ascent": "assam"}, "ascent must be one of gradient, asam, random, norm, half, got 'assam'; did you mean"),
        ({"optimizer": "adamw"}, "optimizer must be one of adam, sgd, got 'adamw'; did you mean 'adam'?"),
        ({"dtype": "float16"}, "dtype must be one of float32, float64, got 'float16'"),
    ],
)
def test_a_value_out_of_range_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        Config.from_mapping(settings)


def test_differentiated_perturbations_exclude_first_order() -> None:
    with pytest.raises(ValueError, match="'differentiated' needs the second derivatives that first_order leaves out"):
        Config(perturbation="differentiated", first_order=True)


@pytest.mark.parametrize(
    "change",
    [
        {"alpha_low": 0.1},
        {"alpha_up": 0.1},
        {"beta_low": 0.4},
        {"steps": 1},
        {"test_steps": 10},
        {"perturb_at_test": True},
        {"perturbation": "recomputed"},
        {"inner_params": "head"},
        {"first_order": True},
    ],
)
def test_matching_networks_refuse_settings_of_the_inner_loop(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(change))} has no meaning for method = 'matching'"):
        Config(method="matching", **change)


@pytest.mark.parametrize("change", [{"ascent": "random"}, {"ascent_every": 2}])
def test_settings_of_the_ascent_need_a_radius(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="ascent and ascent_every have no meaning without a radius"):
        Config(**change)
    Config(alpha_up=0.1, **change)


@pytest.mark.parametrize("ascent", ["random", "half"])
def test_an_ascent_that_draws_numbers_cannot_be_compiled(ascent: str) -> None:
    with pytest.raises(ValueError, match=f"ascent = '{ascent}' draws numbers"):
        Config(alpha_up=0.1, ascent=ascent, compile=True)


def test_an_unknown_setting_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match=r"unknown setting 'alpha_lo'; did you mean 'alpha_low'\?"):
        Config.from_mapping({"alpha_lo": 0.1})


def test_an_unknown_setting_that_resembles_nothing_is_refused_with_the_list() -> None:
    with pytest.raises(ValueError, match="unknown setting 'xyzzy'; the settings are alpha_low, alpha_up, ascent"):
        Config.from_mapping({"xyzzy": 1})


def test_a_toml_file_gives_a_config(tmp_path: Path) -> None:
    path = write(tmp_path, 'method = "sharp-maml"\nalpha_up = 5e-4\nseed = 3\n')
    assert Config.from_toml(path) == Config(alpha_up=5e-4, seed=3)


def test_overrides_win_over_the_file_and_later_ones_over_earlier_ones(tmp_path: Path) -> None:
    path = write(tmp_path, "seed = 3\nsteps = 2\n")
    overrides = ["seed=4", "seed = 5", "first_order=true", "alpha_low=1", "dtype=float64", 'optimizer="sgd"']
    expected = Config(seed=5, steps=2, first_order=True, alpha_low=1.0, dtype="float64", optimizer="sgd")
    assert Config.from_toml(path, overrides) == expected


@pytest.mark.parametrize("text", ["../data/mini", "2024", "a=b", "true", ""])
def test_text_needs_no_quotes_in_an_override(tmp_path: Path, text: str) -> None:
    assert Config.from_toml(write(tmp_path, ""), [f"data={text}"]).data == text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "an override must be name=value, got 'seed'"),
        ("sed=1", r"unknown setting 'sed'; did you mean 'seed'\?"),
        ("seed=one", "seed must be a TOML value such as 1, 0.5 or true, got 'one'"),
        ("seed=1\nways = 7", "seed must be a TOML value"),
        ("first_order=True", "first_order must be a TOML value"),
        ("seed=1.5", "seed must be a whole number, got 1.5"),
        ("perturbation=resued", r"got 'resued'; did you mean 'reused'\?"),
    ],
)
def test_a_bad_override_is_refused(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config.from_toml(write(tmp_path, ""), [override])


def test_a_file_that_is_not_toml_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.toml: .*line 1"):
        Config.from_toml(write(tmp_path, "seed: 3"))


def test_a_wrong_value_in_a_file_is_refused_with_the_name_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.toml: ways must be >= 2, got 1"):
        Config.from_toml(write(tmp_path, "ways = 1"))


def test_the_page_of_settings_is_that_of_the_code() -> None:
    page = Path(__file__).parents[2] / "docs/settings.md"
    assert page.read_text(encoding="utf-8") == reference(), "write it anew: make publish"


def test_the_page_of_settings_names_every_setting_with_its_limit_and_meaning() -> None:
    lines = reference().splitlines()
    for field in dataclasses.fields(Config):
        (line,) = [line for line in lines if line.startswith(f"| `{field.name}` |")]
        assert line.endswith(f"| {field.metadata['meaning']} |")
    assert "| `ways` | `5` | whole number >= 2 | experiment |" in reference()
    assert '| `model` | `"conv4"` | conv4, resnet12 | experiment |' in reference()
