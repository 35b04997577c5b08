"""The text tower against transformers' own pooling, its tokenizers, its seeds."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from trainer.text_tower import build_text_tower

FIELDS: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "projection_dim": 12,
}
CAPTIONS = ["red apple", "a very long caption " * 20, "flag: Japan", ""]


def test_equals_transformers_forward_pass() -> None:
    """Read at the end-of-text token and projected, for short, cut and empty captions."""
    tower = build_text_tower(FIELDS, "embedded", seed=0).eval()
    tokens = AutoTokenizer.from_pretrained(Path("trainer/embedded/tokenizer").resolve())(
        CAPTIONS, padding="max_length", truncation=True, max_length=77, return_tensors="pt"
    )
    with torch.no_grad():
        torch.testing.assert_close(tower(CAPTIONS), tower.model(input_ids=tokens.input_ids).text_embeds)
    assert tower.dim == 12
    assert tower.model.config.max_position_embeddings == 77


def test_a_text_does_not_depend_on_its_neighbours() -> None:
    """Padding to the longest caption of a batch changes nothing."""
    tower = build_text_tower(FIELDS, "embedded", seed=0).eval()
    with torch.no_grad():
        together = tower(CAPTIONS)
        for caption, expected in zip(CAPTIONS, together, strict=True):
            torch.testing.assert_close(tower([caption])[0], expected)


def test_a_model_folder_of_diffusers_lends_its_tokenizer(repository: Path) -> None:
    """The embedded tokenizer is the embedded generator's, so both name the same words."""
    folder = repository / "generator_service" / "embedded" / "model"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        own = repository / "trainer" / "embedded" / "tokenizer" / name
        assert own.read_bytes() == (folder / "tokenizer" / name).read_bytes()
    embedded, lent = (build_text_tower(FIELDS, name, seed=0) for name in ("embedded", str(folder)))
    with torch.no_grad():
        torch.testing.assert_close(embedded(["red apple"]), lent(["red apple"]))


def test_defaults_are_the_papers() -> None:
    """12 layers of width 512 with 8 heads, projected to 512; the vocabulary is the tokenizer's."""
    with torch.device("meta"):
        config = build_text_tower({}, "embedded", seed=0).model.config
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (12, 512, 8)
    assert (config.projection_dim, config.vocab_size) == (512, 1961)


def test_weights_depend_on_the_seed_alone() -> None:
    """Building a tower neither reads nor moves the global random state."""
    torch.manual_seed(1)
    first = build_text_tower(FIELDS, "embedded", seed=5).state_dict()
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn)
    second = build_text_tower(FIELDS, "embedded", seed=5).state_dict()
    other = build_text_tower(FIELDS, "embedded", seed=6).state_dict()
    name = "model.text_projection.weight"
    assert torch.equal(first[name], second[name])
    assert not torch.equal(first[name], other[name])


@pytest.mark.parametrize("files", [[], ["tokenizer.json"]])
def test_a_folder_without_a_tokenizer_is_refused(files: list[str], tmp_path: Path) -> None:
    """One line that names the folder."""
    from protocol.errors import UserError

    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match="no tokenizer") as caught:
        build_text_tower(FIELDS, str(tmp_path), seed=0)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
