"""Which folders are accepted, and what names their content."""

import json
import shutil
from pathlib import Path

import pytest

from generator_service.model_folder import open_model_folder
from protocol.errors import UserError


@pytest.fixture
def own_folder(guided_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(guided_folder, tmp_path / "model"))


def test_opens_both_families(guided_folder: Path, distilled_folder: Path) -> None:
    """Both decoders are known, and the scheduler's config is handed on as it stands."""
    guided, distilled = open_model_folder(str(guided_folder)), open_model_folder(str(distilled_folder))
    assert (guided.vae_class, distilled.vae_class) == ("AutoencoderKL", "AutoencoderTiny")
    assert guided.scheduler_config["steps_offset"] == 1
    assert distilled.scheduler_config["prediction_type"] == "v_prediction"


def test_digest_names_the_bytes_that_are_loaded(own_folder: Path, guided_folder: Path) -> None:
    """A copy has the same digest, a changed weight or scheduler has not, a file never read is ignored."""
    digest = open_model_folder(str(own_folder)).weights_digest()
    assert digest == open_model_folder(str(guided_folder)).weights_digest()
    (own_folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"never loaded")
    (own_folder / "README.md").write_text("never loaded")
    assert open_model_folder(str(own_folder)).weights_digest() == digest
    weights = own_folder / "unet" / "diffusion_pytorch_model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    changed = open_model_folder(str(own_folder)).weights_digest()
    assert changed != digest
    scheduler = own_folder / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps(json.loads(scheduler.read_text()) | {"beta_end": 0.02}))
    assert open_model_folder(str(own_folder)).weights_digest() not in {digest, changed}


def test_refuses_what_is_no_folder(tmp_path: Path) -> None:
    """A name that no hub can have either; an empty folder lacks its index."""
    with pytest.raises(
        UserError, match=r"^some-model: no such folder: expected a folder .* got none; check generator.model"
    ):
        open_model_folder("some-model")
    with pytest.raises(UserError, match=r"model_index\.json: file missing"):
        open_model_folder(str(tmp_path))


def test_refuses_another_pipeline(own_folder: Path, edit_json) -> None:
    """The class of the pipeline is named."""
    edit_json(own_folder / "model_index.json", _class_name="FluxPipeline")
    with pytest.raises(UserError, match="or StableDiffusionXLPipeline, got FluxPipeline"):
        open_model_folder(str(own_folder))


def test_refuses_an_unknown_component(own_folder: Path, edit_json) -> None:
    """So is the class of a component."""
    edit_json(own_folder / "model_index.json", vae=["diffusers", "AutoencoderDC"])
    with pytest.raises(
        UserError, match="unknown vae: expected AutoencoderKL or AutoencoderTiny, got AutoencoderDC"
    ):
        open_model_folder(str(own_folder))


def test_refuses_pickled_weights(own_folder: Path) -> None:
    """A `.bin` file is a pickle: it does not stand in for safetensors."""
    folder = own_folder / "unet"
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / "diffusion_pytorch_model.bin")
    with pytest.raises(UserError) as refusal:
        open_model_folder(str(own_folder))
    assert "expected diffusion_pytorch_model.safetensors, got diffusion_pytorch_model.bin" in str(
        refusal.value
    )
    assert str(folder) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_refuses_a_folder_without_tokenizer(own_folder: Path) -> None:
    """Either file format of a tokenizer would do; none does not."""
    (own_folder / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(
        UserError, match=r"no tokenizer: expected tokenizer\.json, or vocab\.json and merges\.txt"
    ):
        open_model_folder(str(own_folder))


def test_a_hub_name_is_read_from_the_hubs_cache(
    guided_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As huggingface_hub keeps it; without a hub and without a copy the refusal says so."""
    commit = "0" * 40
    cached = tmp_path / "models--someone--some-model"
    shutil.copytree(guided_folder, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    opened = open_model_folder("someone/some-model")
    assert opened.weights_digest() == open_model_folder(str(guided_folder)).weights_digest()
    with pytest.raises(
        UserError, match=r"^someone/other: no such folder: .* a hub that can be reached, got "
    ):
        open_model_folder("someone/other")
