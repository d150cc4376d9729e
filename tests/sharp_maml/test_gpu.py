"""What needs a CUDA device, and what of it can be seen on a CPU."""

from __future__ import annotations

import pytest
import torch

from sharp_maml import Batch, Config, Episode, build, load_checkpoint
from sharp_maml.evaluate import evaluate, to_device
from sharp_maml.train import train
from tests.sharp_maml.tiny import tiny_config, tiny_dataset


def test_to_device_moves_every_tensor_of_an_episode():
    batch = Batch(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long))
    moved = to_device(Episode(batch, batch), "meta")
    assert {tensor.device.type for half in moved for tensor in half} == {"meta"}


def test_to_device_leaves_an_episode_for_the_cpu_alone():
    episode = Episode(Batch(torch.zeros(1), torch.zeros(1)), Batch(torch.zeros(1), torch.zeros(1)))
    assert to_device(episode, "cpu") is episode


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
    state = train(config, dataset, tmp_path / "run")
    assert state.step == config.iterations
    record = evaluate(load_checkpoint(tmp_path / "run/best.safetensors"), dataset, name="tiny", episodes=3)
    assert 0 <= record.metrics["accuracy_transductive"].mean <= 1
