"""What needs a CUDA device, and what of it can be seen on a CPU."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sharp_maml import Batch, Config, Episode, EpisodeStream, Protocol, build, conv4, load_checkpoint, sharp_maml_method
from sharp_maml import train as training
from sharp_maml.evaluate import evaluate, to_device
from tests.sharp_maml.tiny import tiny_config, tiny_dataset


def test_to_device_moves_every_tensor_of_an_episode():
    batch = Batch(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long))
    moved = to_device(Episode(batch, batch), "meta")
    assert {tensor.device.type for half in moved for tensor in half} == {"meta"}


def test_to_device_leaves_an_episode_for_the_cpu_alone():
    episode = Episode(Batch(torch.zeros(1), torch.zeros(1)), Batch(torch.zeros(1), torch.zeros(1)))
    assert to_device(episode, "cpu") is episode


class Waits(TorchDispatchMode):
    """Counts what would make the host wait for a GPU: numbers and whole tensors that are read."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if function._opname in ("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero"):
            self.count += 1
        return function(*arguments, **(keywords or {}))


@pytest.mark.parametrize("perturbation", ["reused", "recomputed", "differentiated"])
def test_the_host_never_waits_inside_a_meta_gradient(tmp_path, perturbation):
    config = tiny_config(alpha_low=0.05, alpha_up=0.05, perturbation=perturbation, steps=2)
    experiment = build(config, channels=3)
    params, protocol = experiment.init(0), Protocol(config.ways, config.shots, config.queries)
    with EpisodeStream(tiny_dataset(tmp_path), "train", protocol, seed=0, meta_batch=2, stop=1) as stream:
        (episodes,) = stream
    with Waits() as waits:
        result = experiment.method.gradient(params, episodes)
        assert waits.count == 0
        float(result.loss)  # the control: this waits
    assert waits.count == 1


def test_a_meta_iteration_reads_its_numbers_at_once(tmp_path, monkeypatch):
    """`tolist` of one tensor is the only reading of a step, which the optimizer then takes without asking."""
    read = []
    original = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: read.append(tuple(self.shape)) or original(self))
    waits, of_steps = [], []
    step = training._Run.step

    def counted(self, episodes):
        before = len(read)
        with Waits() as mode:
            result = step(self, episodes)
        waits.append(mode.count)
        of_steps.extend(read[before:])
        return result

    monkeypatch.setattr(training._Run, "step", counted)
    config = tiny_config(alpha_low=0.05, alpha_up=0.05, iterations=3, optimizer="sgd")
    training.train(config, tiny_dataset(tmp_path / "tiny"), tmp_path / "run")
    assert of_steps == [(4,)] * 3
    assert len(set(waits)) == 1
    assert waits[0] <= 4  # the four numbers of that tensor, if reading it is dispatched at all


def test_a_whole_meta_gradient_runs_without_numbers():
    """On the meta device there are none to look at, so nothing can depend on them."""
    model = conv4(ways=3, filters=4, image_size=16, batch_norm_form="elementary")
    method = sharp_maml_method(model.logits, beta_low=0.1, steps=2, alpha_low=0.05, alpha_up=0.05)
    params = {name: value.to("meta") for name, value in model.init(torch.Generator()).items()}
    batch = Batch(torch.zeros(3, 3, 16, 16), torch.arange(3))
    drawn = to_device(Episode(batch, batch), "meta")
    assert {value.device.type for value in method.gradient(params, [drawn, drawn]).grad.values()} == {"meta"}


def test_episodes_for_a_gpu_are_pinned_in_the_background(tmp_path, monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(tuple(self.shape)) or self)
    dataset = tiny_dataset(tmp_path)
    for pin in (False, True):
        with EpisodeStream(dataset, "train", Protocol(3, 1, 4), seed=0, meta_batch=1, stop=1, pin_memory=pin) as stream:
            assert len(list(stream)) == 1
        assert pinned == ([(3, 3, 16, 16), (3,), (12, 3, 16, 16), (12,)] if pin else [])


@pytest.mark.parametrize("precision", ["full", "tf32", "bfloat16"])
def test_products_round_to_tf32_only_where_it_was_asked_for(monkeypatch, backends, precision):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for switch in backends:
        switch.allow_tf32 = precision != "tf32"
    build(tiny_config(device="cuda", precision=precision), channels=3)
    assert [switch.allow_tf32 for switch in backends] == [precision == "tf32"] * 2


def test_in_bfloat16_the_gradient_and_so_its_norms_are_float32_and_near():
    """A linear problem of the network's last layer: there bfloat16 alone makes the error, and not the ties of ReLU."""
    settings = {"inner_params": "head", "alpha_low": 0.05, "alpha_up": 0.05, "beta_low": 0.01}
    generator = torch.Generator().manual_seed(0)
    batch = Batch(torch.rand(6, 3, 16, 16, generator=generator), torch.arange(6) % 3)
    grads = {}
    for precision in ("full", "bfloat16"):
        experiment = build(tiny_config(precision=precision, **settings), channels=3)
        grads[precision] = experiment.method.gradient(experiment.init(0), [Episode(batch, batch)]).grad
    assert {value.dtype for value in grads["bfloat16"].values()} == {torch.float32}
    head = {precision: grad["head.bias"] for precision, grad in grads.items()}
    assert not torch.equal(head["full"], head["bfloat16"])
    torch.testing.assert_close(head["bfloat16"], head["full"], rtol=0.1, atol=2e-2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "tf32"}, "needs a CUDA device"),
        ({"precision": "bfloat16", "dtype": "float64"}, "needs dtype = 'float32', got 'float64'"),
        ({"precision": "half"}, "precision must be one of full, tf32, bfloat16"),
    ],
)
def test_a_precision_that_contradicts_the_rest_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["sharp-maml", "matching-fce"])
def test_a_meta_gradient_on_the_gpu_equals_the_one_on_the_cpu(gpu, method):
    generator = torch.Generator().manual_seed(0)

    def batch(each: int) -> Batch:
        return Batch(
            torch.rand(3 * each, 3, 16, 16, generator=generator, dtype=torch.float64),
            torch.arange(3).repeat_interleave(each),
        )

    episodes = [Episode(batch(1), batch(4)) for _ in range(2)]
    adaptation = ("steps", "test_steps", "beta_low")
    settings = {"alpha_low": 0.05, "alpha_up": 0.05}
    if method != "sharp-maml":
        settings = {name: Config.__dataclass_fields__[name].default for name in adaptation}
    grads = []
    for device in ("cpu", "cuda"):
        experiment = build(tiny_config(method=method, dtype="float64", device=device, **settings), channels=3)
        result = experiment.method.gradient(experiment.init(0), [to_device(episode, device) for episode in episodes])
        grads.append({name: value.cpu() for name, value in result.grad.items()})
    for name in grads[0]:
        torch.testing.assert_close(grads[1][name], grads[0][name], rtol=1e-8, atol=1e-12)


@pytest.mark.gpu
def test_training_and_evaluation_run_on_the_gpu_and_resume(gpu, tmp_path):
    dataset = tiny_dataset(tmp_path / "tiny")
    config = tiny_config(device="cuda", alpha_low=0.05, alpha_up=0.05)
    state = training.train(config, dataset, tmp_path / "run")
    assert state.step == config.iterations
    record = evaluate(load_checkpoint(tmp_path / "run/best.safetensors"), dataset, name="tiny", episodes=3)
    assert 0 <= record.metrics["accuracy_transductive"].mean <= 1
