"""The synthetic images: reproducible, disjoint by program, neither trivial nor hopeless, a cache like any other."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sharp_maml.base import DataError
from sharp_maml.data import Protocol, episode, open_cache
from synthetic import class_program, render_images, write_images
from synthetic.images import CLASSES, LAWS, PARTS, STROKES, SYMMETRIES, TEXTURES, _fold, main

CLASS = st.sampled_from(sorted(CLASSES)).flatmap(lambda split: st.tuples(st.just(split), st.integers(0, 15)))


@settings(max_examples=20, deadline=None)
@given(CLASS, st.lists(st.integers(0, 10**6), min_size=1, max_size=4), st.integers(0, 2**70))
def test_an_image_depends_on_its_own_number_only(which, numbers, seed):
    together = render_images(*which, numbers, size=12, seed=seed)
    alone = [render_images(*which, [number], size=12, seed=seed)[0] for number in numbers]
    assert np.array_equal(together, np.stack(alone))


def test_the_pixels_are_the_ones_recorded():
    """What other machines must find too. A change of the generator on purpose needs another `_GENERATOR`."""
    pixels = [render_images(split, index, range(3)) for split in CLASSES for index in range(CLASSES[split])]
    assert (
        hashlib.sha256(np.stack(pixels)).hexdigest()
        == "4cddd653d6b26aec0d2ccbc2642d7446b6aeb7121c8d964e332b26d74dadf6cb"
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_two_classes_share_a_program(seed):
    programs = [class_program(split, index, seed=seed) for split, n in CLASSES.items() for index in range(n)]
    assert len({program.name for program in programs}) == len({program.places for program in programs}) == 100


def test_every_word_of_the_vocabulary_is_used_in_training():
    programs = [class_program("train", index) for index in range(CLASSES["train"])]
    assert {program.symmetry for program in programs} == set(SYMMETRIES)
    assert {program.stroke for program in programs} == set(STROKES)
    assert {program.texture for program in programs} == set(TEXTURES)
    assert {program.law for program in programs} == set(LAWS)
    assert {part for program in programs for part in program.parts} == set(PARTS)


def test_the_images_of_a_class_differ():
    for split, count in CLASSES.items():
        for index in range(count):
            images = render_images(split, index, range(12), size=16).reshape(12, -1).astype(float)
            distances = np.abs(images[:, None] - images[None]).mean(axis=-1)
            assert distances[~np.eye(12, dtype=bool)].min() > 5


def test_classes_differ_also_in_the_middle_of_all_variation():
    means = np.stack([render_images("train", index, range(40), size=16).mean(axis=0).ravel() for index in range(64)])
    distances = np.abs(means[:, None] - means[None]).mean(axis=-1)
    assert distances[~np.eye(64, dtype=bool)].min() > 3


def test_a_seed_changes_everything():
    one, other = class_program("test", 3, seed=0), class_program("test", 3, seed=1)
    numbers = ("places", "blend", "frequency", "tilt", "hue")
    assert all(getattr(one, field) != getattr(other, field) for field in numbers)
    names = [{class_program("test", index, seed=seed).name for index in range(20)} for seed in (0, 1)]
    assert len(names[0] & names[1]) < 10
    assert not np.array_equal(render_images("test", 3, range(2), seed=0), render_images("test", 3, range(2), seed=1))


@pytest.mark.parametrize("size", [8, 17, 20, 28, 84, 256])
def test_every_size_works_and_shows_the_same_scene(size):
    images = render_images("validation", 2, range(2), size=size)
    assert images.shape == (2, size, size, 3)
    assert images.dtype == np.uint8
    small = np.stack([np.asarray(Image.fromarray(image).resize((8, 8), Image.Resampling.BOX)) for image in images])
    reference = render_images("validation", 2, range(2), size=128)
    coarse = np.stack([np.asarray(Image.fromarray(image).resize((8, 8), Image.Resampling.BOX)) for image in reference])
    assert np.corrcoef(small.ravel(), coarse.ravel())[0, 1] > 0.85


def test_the_pixels_use_the_range_of_a_picture():
    images = np.stack([render_images("train", index, range(4)) for index in range(64)])
    assert 80 < images.mean() < 170
    assert 40 < images.std() < 90
    assert (images.min(), images.max()) == (0, 255)


def test_symmetric_objects_have_their_mirrors():
    """On the fold itself: points and their mirror images come to one place, inside the wedge."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 500))
    for mirrors in (1, 2, 3, 4, 5):
        angle = 2 * np.pi * np.arange(mirrors) / mirrors
        images = [(c * x + s * y, c * y - s * x) for c, s in zip(np.cos(angle), np.sin(angle), strict=True)]
        homes = [np.stack(_fold(u, v, mirrors)) for u, v in [*images, *((-u, v) for u, v in images)]]
        assert all(np.allclose(home, homes[0], atol=0.01) for home in homes)
        turns = np.arctan2(homes[0][0], homes[0][1]) / (2 * np.pi)
        assert turns.min() > -0.01
        assert turns.max() < 0.5 / mirrors + 0.01


def _accuracy(features):
    """Accuracy of the nearest class mean, each over five images, in 200 draws of five test classes."""
    images = np.stack([features(render_images("test", index, range(25), size=20)) for index in range(20)])
    rng, hits = np.random.default_rng(0), []
    for _ in range(200):
        ways = images[rng.permutation(20)[:5]]
        means, queries = ways[:, :5].mean(axis=1), ways[:, 5:]
        nearest = ((queries[:, :, None] - means) ** 2).sum(axis=-1).argmin(axis=-1)
        hits.append((nearest == np.arange(5)[:, None]).mean())
    return float(np.mean(hits))


def test_class_means_of_pixels_are_above_chance_and_far_from_solving():
    assert 0.25 < _accuracy(lambda images: images.reshape(len(images), -1) / 255) < 0.5


def test_colours_alone_do_not_solve_the_classes():
    def histogram(images):
        bins = (images // 64).astype(int) @ [16, 4, 1]
        return np.sqrt([np.bincount(image.ravel(), minlength=64) / image.size for image in bins])

    assert _accuracy(histogram) < 0.5
    assert _accuracy(lambda images: images.mean(axis=(1, 2)) / 255) < 0.45


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("dev", 0, [0]), {}, "split: must be one of train, validation, test, got 'dev'"),
        (("test", 20, [0]), {}, "index: test has the classes 0 ... 19, got 20"),
        (("test", -1, [0]), {}, "index: .* got -1"),
        (("test", 0, [0, -1]), {}, "instances: .* got"),
        (("test", 0, []), {}, "instances: .* got"),
        (("test", 0, [0]), {"size": 7}, "size: must be 8 ... 256 pixels, got 7"),
        (("test", 0, [0]), {"seed": -1}, "seed: must be at least 0, got -1"),
    ],
)
def test_bad_arguments_are_named(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        render_images(*arguments, **options)


def test_the_cache_holds_the_images_and_gives_episodes(tmp_path):
    written = write_images(tmp_path / "cache", size=16, per_class=60, seed=4)
    dataset = open_cache(tmp_path / "cache", verify=True)
    assert dataset.digest == written.digest
    assert {split: len(dataset.splits[split].names) for split in CLASSES} == CLASSES
    for split in CLASSES:
        source = dataset.splits[split]
        assert source.names[2] == class_program(split, 2, seed=4).name
        held = source.images[source.starts[2] : source.starts[2] + source.counts[2]]
        assert np.array_equal(held, render_images(split, 2, range(60), size=16, seed=4))
    drawn = episode(dataset, "test", Protocol(5, 1, 15), seed=0, index=0)
    assert drawn.support.inputs.shape == (5, 3, 16, 16)
    assert drawn.query.inputs.shape == (75, 3, 16, 16)


@pytest.mark.parametrize("change", [{"size": 9}, {"per_class": 3}, {"seed": 1}])
def test_a_cache_of_other_images_is_not_taken_for_these(tmp_path, change):
    asked = {"size": 8, "per_class": 2, "seed": 0}
    first = write_images(tmp_path / "cache", **asked)
    assert write_images(tmp_path / "cache", **asked).digest == first.digest
    with pytest.raises(DataError, match="Remove the folder, or name another"):
        write_images(tmp_path / "cache", **(asked | change))


def test_the_command_writes_a_cache(tmp_path):
    command = [sys.executable, "-W", "error", "-m", "synthetic.images", str(tmp_path / "a"), "--size", "8"]
    done = subprocess.run(
        [*command, "--per-class", "2"], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "200 images" in done.stderr
    dataset = open_cache(tmp_path / "a")
    assert dataset.digest in done.stdout
    assert (dataset.size, dataset.channels) == (8, 3)


def test_the_command_says_what_the_files_are_in_croissant(tmp_path):
    """The form is that of the specification, which MLCommons' own reader has read; here: that it is true."""
    for _ in range(2):  # the second time the folder holds the metadata, too
        assert main([str(tmp_path / "a"), "--size", "8", "--per-class", "2"]) == 0
    described, dataset = json.loads((tmp_path / "a" / "croissant.json").read_text()), open_cache(tmp_path / "a")
    assert described["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    files = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir() if path.name != "croissant.json"}
    assert {entry["name"] for entry in described["distribution"]} == set(files)
    for entry in described["distribution"]:
        assert entry["sha256"] == hashlib.sha256(files[entry["name"]]).hexdigest()
        assert entry["contentSize"] == f"{len(files[entry['contentUrl']])} B"
    for entry in described["recordSet"]:
        split = dataset.splits[entry["name"]]
        rows = [(row[f"{entry['name']}/name"], row[f"{entry['name']}/count"]) for row in entry["data"]]
        assert rows == list(zip(split.names, split.counts, strict=True))
        assert {field["@id"] for field in entry["field"]} == set(entry["data"][0])


def test_the_command_draws_a_contact_sheet_that_a_repository_can_hold(tmp_path, capsys):
    assert main(["--contact-sheet", str(tmp_path / "figures" / "sheet.png")]) == 0
    assert (tmp_path / "figures" / "sheet.png").stat().st_size < 400_000
    with Image.open(tmp_path / "figures" / "sheet.png") as sheet:
        assert min(sheet.size) > 400
    assert "sheet.png" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "5"], "size: must be"),
        (["--per-class", "0"], "per_class: must be"),
        (["--seed", "-3"], "seed: must"),
    ],
)
def test_the_command_reports_bad_arguments_in_one_line(tmp_path, capsys, options, message):
    assert main([str(tmp_path / "a"), *options]) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "a").exists()


def test_the_command_asks_for_something_to_do(capsys):
    with pytest.raises(SystemExit):
        main([])
    assert "name a directory, --contact-sheet FILE.png, or both" in capsys.readouterr().err
