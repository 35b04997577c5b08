"""A batch that goes through its encoder in parts has the gradient of the whole batch."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor

from protocol.errors import UserError
from trainer.config import TrainerConfig
from trainer.encoder import Encoder, build_encoder
from trainer.learner import Learner
from trainer.micro_batch import MicroBatches, refuse_batch_norm
from trainer.objectives.build import build_objective
from trainer.objectives.objective import Objective, Targets

VIT: dict[str, Any] = {
    "model_type": "vit",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "patch_size": 4,
}
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
DECODER = {
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
}
IDS = [7, 7, 8, 8, 9, 9, 7, 7, 4, 4]
CPU = torch.device("cpu")


def _config(objective: str, **train: Any) -> TrainerConfig:
    tables = {
        "generation": {"views": 1 if objective in ("clip", "simclr") else 2, "size": 16},
        "model": {"encoder": VIT, "head_hidden": 32, "head_out": 16, "text": SMALL, "mae": DECODER},
        "train": {"objective": objective, "precision": "float32", "device": "cpu", **train},
        "augment": {"crop_size": 16},
    }
    return msgspec.convert(tables, TrainerConfig)


def _build(objective: str, dropout: float = 0.0) -> tuple[Encoder, Objective]:
    """In float64, with the same weights each time."""
    encoder = build_encoder({**VIT, "hidden_dropout_prob": dropout}, 16, seed=0)
    built = build_objective(_config(objective), encoder)
    encoder.double()
    built.parts.double()
    return encoder, built


def _embed(objective: Objective) -> Callable[[slice], Tensor]:
    count = len(IDS)
    images = torch.randn(count, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    keys = [(0, i, 0, 1) for i in range(count)]
    return lambda rows: objective.embed(images[rows], keys[rows])


def _targets() -> Targets:
    ids = torch.tensor(IDS)
    return Targets(ids_N=ids, classes_N=ids % 2, captions={i: f"a {i}" for i in dict.fromkeys(IDS)})


def _gradients(encoder: Encoder, objective: Objective) -> dict[str, Tensor]:
    modules = {"encoder": encoder, "parts": objective.parts}
    found = {
        f"{which}.{name}": parameter.grad
        for which, module in modules.items()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }
    assert None not in found.values(), [name for name, value in found.items() if value is None]
    return {name: value for name, value in found.items() if value is not None}


@pytest.mark.parametrize("name", ["stablerep", "stablerep+", "supcon", "simclr", "clip", "mae"])
def test_gradients_are_the_whole_batchs(name: str) -> None:
    """To 1e-6 in float64 and far below, for parts of 1, of 3 with a rest, and of more than there are."""
    encoder, objective = _build(name)
    whole = objective.loss(_embed(objective)(slice(None)), _targets())
    whole.loss.share.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    expected = _gradients(encoder, objective)
    for size in (1, 3, 99):
        encoder, objective = _build(name)
        parts = MicroBatches(_embed(objective), len(IDS), size, CPU)
        found = objective.loss(parts.forward(), _targets())
        found.loss.share.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        parts.backward()
        torch.testing.assert_close(found.loss.value, whole.loss.value, rtol=1e-12, atol=0)
        torch.testing.assert_close(_gradients(encoder, objective), expected, rtol=1e-8, atol=1e-12)


def test_the_second_pass_draws_what_the_first_drew() -> None:
    """With dropout: the gradient is that of the very rows that the loss saw, and nothing more is drawn."""
    encoder, objective = _build("stablerep", dropout=0.5)
    embed = _embed(objective)
    torch.manual_seed(5)
    rows = torch.cat([embed(slice(start, start + 4)) for start in (0, 4, 8)])
    objective.loss(rows, _targets()).loss.share.backward()  # type: ignore[no-untyped-call]  # torch
    expected, after = _gradients(encoder, objective), torch.get_rng_state()

    encoder, objective = _build("stablerep", dropout=0.5)
    torch.manual_seed(5)
    parts = MicroBatches(_embed(objective), len(IDS), 4, CPU)
    found = parts.forward()
    assert torch.equal(found, rows)
    objective.loss(found, _targets()).loss.share.backward()  # type: ignore[no-untyped-call]  # torch
    parts.backward()
    torch.testing.assert_close(_gradients(encoder, objective), expected, rtol=1e-12, atol=1e-15)
    assert torch.equal(torch.get_rng_state(), after)


def test_under_autocast_every_weight_gets_its_gradient() -> None:
    """A weight that was cast for the pass without a graph still learns in the pass with one."""
    encoder, objective = _build("stablerep")
    encoder.float()
    objective.parts.float()
    images, keys = torch.randn(10, 3, 16, 16), [(0, i, 0, 1) for i in range(10)]

    def embed(rows: slice) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return objective.embed(images[rows], keys[rows])

    parts = MicroBatches(embed, 10, 4, CPU)
    rows = parts.forward()
    with torch.autocast("cpu", torch.bfloat16):
        outcome = objective.loss(rows, _targets())
    outcome.loss.share.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    parts.backward()
    assert all(gradient.abs().sum() > 0 for gradient in _gradients(encoder, objective).values())


def test_an_encoder_with_batch_norm_is_refused() -> None:
    """One line that names the setting, when the learner is built."""
    resnet = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8], "depths": [1]}
    config = _config("stablerep", micro_batch=4)
    config = msgspec.structs.replace(config, model=msgspec.structs.replace(config.model, encoder=resnet))
    with pytest.raises(UserError, match=r"train\.micro_batch: the encoder has batch norm") as caught:
        Learner(config)
    assert "\n" not in str(caught.value)
    refuse_batch_norm(build_encoder(VIT, 16, seed=0))
