from __future__ import annotations

import hypothesis.strategies as st
import torch
from hypothesis import given

from sharp_maml.tree import add_scaled, dot, mean

vectors = st.lists(st.floats(-10, 10), min_size=3, max_size=3).map(lambda v: torch.tensor(v, dtype=torch.float64))
trees = st.fixed_dictionaries({"a": vectors, "b": vectors})


@given(trees, trees, st.floats(-3, 3))
def test_add_scaled_is_linear_in_its_second_argument(a, b, s):
    out = add_scaled(a, b, s)
    assert all(torch.equal(out[n], a[n] + s * b[n]) for n in a)


def test_add_scaled_keeps_names_that_the_second_argument_lacks():
    a = {"a": torch.ones(1), "b": torch.ones(1)}
    out = add_scaled(a, {"b": torch.ones(1)}, 2.0)
    assert list(out) == ["a", "b"]
    assert out["a"] is a["a"]
    assert out["b"].item() == 3


@given(trees, trees)
def test_dot_is_the_inner_product_of_the_flattened_trees(a, b):
    flat = torch.cat([a["a"], a["b"]]), torch.cat([b["a"], b["b"]])
    torch.testing.assert_close(dot(a, b), flat[0] @ flat[1])


@given(st.lists(trees, min_size=1, max_size=4))
def test_mean_is_the_mean_of_the_stacked_trees(many):
    out = mean(many)
    for name in out:
        torch.testing.assert_close(out[name], torch.stack([t[name] for t in many]).mean(0))
