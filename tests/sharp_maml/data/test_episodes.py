from __future__ import annotations

import dataclasses
import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sharp_maml.base import Episode
from sharp_maml.data import Dataset, EpisodeStream, Protocol, check_protocol, episode, episode_digest
from sharp_maml.data.cache import ClassImages

law = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def numbered() -> Dataset:
    """Every image is filled with its own number, so that an episode shows what was drawn."""
    counts = (6, 7, 8, 9, 10)
    images = np.broadcast_to(np.arange(40, dtype=np.uint8)[:, None, None, None], (40, 2, 2, 3)).copy()
    split = ClassImages(images, tuple("abcde"), (0, 6, 13, 21, 30), counts)
    return Dataset("numbered", "0" * 64, 2, 3, {"train": split, "validation": split, "test": split})


def rows(batch: Any) -> list[int]:
    return (batch.inputs[:, 0, 0, 0] * 255).round().long().tolist()


def equal(one: Episode, other: Episode) -> bool:
    return all(torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


protocols = st.builds(Protocol, st.integers(1, 5), st.integers(1, 3), st.integers(1, 3))
seeds = st.integers(0, 2**40)


@law
@given(protocol=protocols, seed=seeds, index=seeds)
def test_support_and_query_never_share_an_image(numbered: Dataset, protocol: Protocol, seed: int, index: int) -> None:
    drawn = episode(numbered, "train", protocol, seed=seed, index=index)
    both = rows(drawn.support) + rows(drawn.query)
    assert len(set(both)) == len(both) == protocol.ways * (protocol.shots + protocol.queries)


@law
@given(protocol=protocols, seed=seeds, index=seeds)
def test_targets_name_distinct_classes_in_class_major_order(
    numbered: Dataset, protocol: Protocol, seed: int, index: int
) -> None:
    drawn = episode(numbered, "train", protocol, seed=seed, index=index)
    starts = np.array(numbered.splits["train"].starts)
    owners: dict[int, set[int]] = {}
    for batch, each in ((drawn.support, protocol.shots), (drawn.query, protocol.queries)):
        assert batch.targets.dtype == torch.long
        assert batch.targets.tolist() == sorted(list(range(protocol.ways)) * each)
        for row, target in zip(rows(batch), batch.targets.tolist(), strict=True):
            owners.setdefault(target, set()).add(int(np.searchsorted(starts, row, "right")))
    assert all(len(owner) == 1 for owner in owners.values())
    assert len(set.union(*owners.values())) == protocol.ways


@law
@given(seed=seeds, order=st.permutations(range(6)))
def test_an_episode_does_not_depend_on_what_was_drawn_before(numbered: Dataset, seed: int, order: list[int]) -> None:
    protocol = Protocol(3, 1, 2)
    straight = [episode(numbered, "train", protocol, seed=seed, index=i) for i in range(6)]
    for i in order:
        assert equal(episode(numbered, "train", protocol, seed=seed, index=i), straight[i])


def test_the_drawn_images_stay_the_same_for_all_time(numbered: Dataset) -> None:
    drawn = episode(numbered, "test", Protocol(3, 1, 2), seed=1, index=2)
    assert (rows(drawn.support), rows(drawn.query)) == ([17, 39, 27], [19, 16, 36, 31, 26, 25])


def test_every_part_of_the_key_changes_the_episode(numbered: Dataset) -> None:
    protocol = Protocol(5, 2, 2)
    other = dataclasses.replace(numbered, digest="1" * 64)
    drawn = [
        episode(numbered, "train", protocol, seed=0, index=0),
        episode(numbered, "train", protocol, seed=0, index=1),
        episode(numbered, "train", protocol, seed=1, index=0),
        episode(numbered, "test", protocol, seed=0, index=0),
        episode(other, "train", protocol, seed=0, index=0),
        episode(numbered, "train", Protocol(5, 2, 3), seed=0, index=0),
    ]
    assert len({tuple(rows(one.support)) for one in drawn}) == len(drawn)


def test_all_classes_and_images_are_drawn_equally_often(numbered: Dataset) -> None:
    images = np.zeros(40)
    for i in range(2000):
        images[rows(episode(numbered, "train", Protocol(2, 1, 1), seed=0, index=i).query)] += 1
    expected = np.repeat([2000 * 2 / 5 / count for count in (6, 7, 8, 9, 10)], (6, 7, 8, 9, 10))
    assert np.sum((images - expected) ** 2 / expected) < 80  # chi-square, 39 degrees of freedom: p = 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inputs_are_in_the_unit_interval_and_channels_last(toy: Dataset, dtype: torch.dtype) -> None:
    inputs = episode(toy, "train", Protocol(5, 2, 3), seed=0, index=0, dtype=dtype).query.inputs
    assert inputs.shape == (15, 3, 4, 4)
    assert inputs.dtype == dtype
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert 0 <= inputs.min() < 0.1 < 0.9 < inputs.max() <= 1


def test_inputs_are_the_pixels_of_the_cache(toy: Dataset) -> None:
    inputs = episode(toy, "train", Protocol(1, 1, 7), seed=0, index=0).query.inputs
    stored = {image.tobytes() for image in toy.splits["train"].images}
    assert {(image * 255).round().byte().permute(1, 2, 0).numpy().tobytes() for image in inputs} <= stored


@pytest.mark.parametrize(
    ("split", "protocol", "index", "message"),
    [
        ("val", Protocol(2, 1, 1), 0, "split: must be one of train, validation, test, got 'val'"),
        ("train", Protocol(0, 1, 1), 0, "ways: must be at least 1, got 0"),
        ("train", Protocol(2, 0, 1), 0, "shots: must be at least 1, got 0"),
        ("train", Protocol(2, 1, -1), 0, "queries: must be at least 1, got -1"),
        ("validation", Protocol(4, 1, 1), 0, "ways: at most 3, the classes of toy/validation; got 4"),
        ("train", Protocol(2, 9, 1), 0, r"shots \+ queries: at most 8, the images of class a of toy/train; got 9 \+ 1"),
        ("train", Protocol(2, 1, 8), 0, r"shots \+ queries: at most 8"),
        ("train", Protocol(2, 1, 1), -1, "index: must be at least 0, got -1"),
    ],
)
def test_an_impossible_episode_is_refused_by_name_value_and_limit(
    toy: Dataset, split: str, protocol: Protocol, index: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        episode(toy, split, protocol, seed=0, index=index)


def test_the_name_of_a_set_of_episodes_changes_with_each_part(toy: Dataset) -> None:
    one = Protocol(5, 1, 5)
    names = {
        episode_digest(toy, "test", Protocol(2, 1, 1), 0, 600),
        episode_digest(toy, "test", one, 0, 600),
        episode_digest(toy, "test", one, 1, 600),
        episode_digest(toy, "test", one, 0, 1000),
        episode_digest(toy, "train", one, 0, 600),
        episode_digest(dataclasses.replace(toy, digest="1"), "train", one, 0, 600),
    }
    assert len(names) == 6
    assert episode_digest(toy, "test", one, 0, 600) in names


def test_a_stream_gives_the_episodes_of_its_iterations_in_order(toy: Dataset) -> None:
    protocol = Protocol(3, 1, 2)
    with EpisodeStream(toy, "train", protocol, seed=3, meta_batch=2, start=4, stop=9) as stream:
        batches = list(stream)
    assert len(batches) == 5
    flat = [one for batch in batches for one in batch]
    assert all(equal(one, episode(toy, "train", protocol, seed=3, index=8 + i)) for i, one in enumerate(flat))


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_shares_of_the_ranks_make_the_batch_of_one_process(toy: Dataset, world_size: int) -> None:
    settings = {"seed": 0, "meta_batch": 4, "stop": 3}
    protocol = Protocol(2, 1, 1)
    shares = [
        list(EpisodeStream(toy, "train", protocol, rank=rank, world_size=world_size, **settings))
        for rank in range(world_size)
    ]
    whole = list(EpisodeStream(toy, "train", protocol, **settings))
    for t, batch in enumerate(whole):
        joined = [one for share in shares for one in share[t]]
        assert all(equal(a, b) for a, b in zip(joined, batch, strict=True))


def test_a_stream_holds_no_more_ready_than_it_was_told(toy: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    monkeypatch.setattr("sharp_maml.data.episodes.episode", lambda *_, index, **__: drawn.append(index))
    stream = EpisodeStream(toy, "train", Protocol(2, 1, 1), seed=0, meta_batch=1, stop=100, prefetch=3)
    for _ in range(5):
        next(stream)
    stream.close()
    assert drawn == list(range(len(drawn)))
    assert 5 <= len(drawn) <= 8


def test_an_exception_in_the_thread_is_raised_in_the_consumer(toy: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise OSError("disk gone")

    monkeypatch.setattr("sharp_maml.data.episodes.episode", broken)
    stream = EpisodeStream(toy, "train", Protocol(2, 1, 1), seed=0, meta_batch=1, stop=100)
    with pytest.raises(OSError, match="disk gone"):
        next(stream)
    assert list(stream) == []


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        (Protocol(4, 1, 1), r"at most 3, the classes of toy/validation; got 4: use fewer ways, or add .* needs 12\)"),
        (Protocol(2, 1, 8), r"at most 8, the images of class a of toy/train; got 1 \+ 8: use fewer, or add images"),
        (Protocol(2, 0, 8), "shots: must be at least 1, got 0"),
    ],
)
def test_a_protocol_is_checked_against_all_splits_at_once(toy: Dataset, protocol: Protocol, message: str) -> None:
    check_protocol(toy, Protocol(3, 1, 7))
    with pytest.raises(ValueError, match=message):
        check_protocol(toy, protocol)


def test_closing_a_stream_stops_its_thread(toy: Dataset) -> None:
    before = threading.active_count()
    with EpisodeStream(toy, "train", Protocol(2, 1, 1), seed=0, meta_batch=2, stop=10**6) as stream:
        next(stream)
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    assert list(stream) == []


def test_a_stream_without_iterations_is_empty(toy: Dataset) -> None:
    assert list(EpisodeStream(toy, "train", Protocol(2, 1, 1), seed=0, meta_batch=2, start=5, stop=5)) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"meta_batch": 0}, "meta_batch: must be at least 1, got 0"),
        ({"start": -1}, "start: must be at least 0, got -1"),
        ({"start": 9}, "stop: must be at least 9, got 4"),
        ({"world_size": 0}, "world_size: must be at least 1, got 0"),
        ({"rank": -1}, "rank: must be at least 0, got -1"),
        ({"rank": 2, "world_size": 2}, r"rank: must be below world_size \(2\), got 2"),
        ({"world_size": 3}, r"meta_batch: must be a multiple of world_size \(3\), got 2"),
        ({"prefetch": 0}, "prefetch: must be at least 1, got 0"),
        ({"protocol": Protocol(99, 1, 1)}, "ways: at most 6"),
    ],
)
def test_a_stream_refuses_bad_arguments_at_once(toy: Dataset, settings: dict[str, Any], message: str) -> None:
    defaults = {"protocol": Protocol(2, 1, 1), "seed": 0, "meta_batch": 2, "stop": 4}
    with pytest.raises(ValueError, match=message):
        EpisodeStream(toy, "train", **(defaults | settings))
