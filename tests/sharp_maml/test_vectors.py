"""Parameters as vectors: there and back, the same meta-gradient, and how many operations it takes."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sharp_maml import Batch, Episode, build, conv4
from sharp_maml.vectors import Vectors
from tests.sharp_maml.tiny import tiny_config

WITHOUT_WORK = {"_unsafe_view", "empty", "empty_like", "empty_strided", "new_empty", "lift_fresh"}


@pytest.fixture
def as_on_a_gpu(monkeypatch, backends):
    """From settings to the method of a GPU, which works on the tensors of a CPU too, with torch's form of a block."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("sharp_maml.kernels.load", lambda: None)
    return lambda **settings: build(tiny_config(device="cuda", **settings), channels=3).method


def episodes(size: int = 16, dtype: torch.dtype = torch.float64, count: int = 2) -> list[Episode]:
    generator = torch.Generator().manual_seed(0)

    def batch(each: int) -> Batch:
        images = torch.rand(3 * each, 3, size, size, generator=generator, dtype=dtype)
        return Batch(images.contiguous(memory_format=torch.channels_last), torch.arange(3).repeat_interleave(each))

    return [Episode(batch(1), batch(4)) for _ in range(count)]


@pytest.mark.parametrize("told_apart", [(), (["head.weight", "head.bias"],), (["norm1.bias"], ["norm1.bias"])], ids=str)
def test_vectors_and_back_are_the_parameters(told_apart):
    params = conv4(ways=3, filters=4, image_size=16).init(torch.Generator().manual_seed(0))
    vectors = Vectors(params, *told_apart)
    packed = vectors.pack(params)
    assert len(packed) == len(vectors.groups(list(params))) == (2 if told_apart else 1)
    assert all(value.dim() == 1 for value in packed.values())
    back = vectors.unpack(packed)
    assert list(back) == list(params)
    for name, value in params.items():
        assert torch.equal(back[name], value)
        assert value.dim() != 4 or back[name].is_contiguous(memory_format=torch.channels_last)
    if told_apart:
        (group,) = vectors.groups(told_apart[0])
        assert packed[group].numel() == sum(params[name].numel() for name in told_apart[0])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"alpha_low": 0.05},
        {"alpha_low": 0.05, "alpha_up": 0.05, "perturbation": "differentiated"},
        {"alpha_low": 0.05, "alpha_up": 0.05, "ascent": "asam"},
        {"alpha_low": 0.05, "alpha_up": 0.05, "ascent": "norm", "inner_params": "body"},
        {"alpha_up": 0.05, "inner_params": "head"},
        {"inner_params": "all-but-norm", "first_order": True},
        {"batch_norm": "support"},
        {"model": "resnet12"},
    ],
    ids=str,
)
def test_the_meta_gradient_on_vectors_is_the_one_by_names(as_on_a_gpu, settings):
    settings = {"dtype": "float64", "steps": 2, **settings}
    by_names = build(tiny_config(**settings), channels=3)
    params = by_names.init(0)
    expected = by_names.method.gradient(params, episodes())
    found = as_on_a_gpu(**settings).gradient(params, episodes())
    assert list(found.grad) == list(expected.grad)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
    assert all(value.is_contiguous() for value in found.grad.values())


class Operations(TorchDispatchMode):
    """Counts the operations that compute or copy something: on a GPU each is a kernel or two."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.count += not (function.is_view or function._opname in WITHOUT_WORK)
        return function(*arguments, **(keywords or {}))


@pytest.mark.parametrize(
    ("radii", "most"), [({}, 4_400), ({"alpha_low": 0.05, "alpha_up": 0.05}, 10_500)], ids=["maml", "both"]
)
def test_a_meta_gradient_of_five_steps_takes_so_many_operations_and_no_more(as_on_a_gpu, radii, most):
    """A ratchet: 9,714 and 25,846 before the block and the parameters were made for it. Sizes do not matter to it."""
    settings = {"steps": 5, "image_size": 32, **radii}
    params = build(tiny_config(**settings), channels=3).init(0)
    method = as_on_a_gpu(**settings)
    with Operations() as operations:
        method.gradient(params, episodes(32, torch.float32, count=4))
    assert most - 250 < operations.count <= most
