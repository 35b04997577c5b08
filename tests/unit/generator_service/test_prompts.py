"""Caption embeddings against diffusers' `encode_prompt`."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from generator_service import prompts
from generator_service.prompts import CaptionEncoder, TextEncoder


class _Counting(torch.nn.Module):
    """Counts the calls of a text encoder."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.encoder, self.config, self.device, self.calls = encoder, encoder.config, torch.device("cpu"), 0

    def forward(self, *args: object, **options: object) -> object:
        self.calls += 1
        return self.encoder(*args, **options)


@pytest.fixture
def pipeline(guided_folder: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(guided_folder, safety_checker=None)


@torch.inference_mode()
def test_embeddings_equal_those_of_diffusers(pipeline: StableDiffusionPipeline) -> None:
    """Short, empty and overlong captions; the order asked for is the order given."""
    captions = ["a dog", "", "far too long a text for sixteen tokens of letters", "a dog"]
    encoder = CaptionEncoder([TextEncoder(pipeline.tokenizer, pipeline.text_encoder)], slots=2)
    got = encoder.encode(captions).text_NTD
    expected, _ = pipeline.encode_prompt(captions, "cpu", 1, False)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_a_caption_is_encoded_once(
    pipeline: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Repeats cost nothing until the least recently used caption has left the cache."""
    monkeypatch.setattr(prompts, "CACHED_CAPTIONS", 2)
    counting = _Counting(pipeline.text_encoder)
    encoder = CaptionEncoder([TextEncoder(pipeline.tokenizer, counting)], slots=2)
    encoder.encode(["one", "two", "one"])
    encoder.encode(["two", "one"])
    assert counting.calls == 1
    encoder.encode(["three"])
    encoder.encode(["one"])
    assert counting.calls == 2
    encoder.encode(["two"])
    assert counting.calls == 3


@torch.inference_mode()
def test_an_embedding_does_not_depend_on_its_neighbours(pipeline: StableDiffusionPipeline) -> None:
    """Bit for bit, alone or beside others."""
    encoders = [TextEncoder(pipeline.tokenizer, pipeline.text_encoder)]
    alone = CaptionEncoder(encoders, slots=3).encode(["a dog"]).text_NTD
    beside = CaptionEncoder(encoders, slots=3).encode(["x", "y z", "a dog"]).text_NTD
    assert torch.equal(alone[0], beside[2])


@torch.inference_mode()
@pytest.mark.parametrize("encoded", [False, True])
def test_overlong_captions_are_told(
    pipeline: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch, encoded: bool
) -> None:
    """Against the number of tokens without a limit: one that just fits is whole.

    Before encoding, after it, and when the cache has forgotten the caption.
    """
    monkeypatch.setattr(prompts, "CACHED_CAPTIONS", 3)
    limit = pipeline.tokenizer.model_max_length
    captions = ["x" * letters for letters in (1, limit - 3, limit - 2, limit - 1, limit, 3 * limit)] + [""]
    encoder = CaptionEncoder([TextEncoder(pipeline.tokenizer, pipeline.text_encoder)], slots=2)
    if encoded:
        encoder.encode(captions)
        encoder.encode(captions[:2])
    backend = pipeline.tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    expected = [len(backend.encode(caption).ids) > limit for caption in captions]
    assert [encoder.cuts(caption) for caption in captions] == expected
    assert expected == [False, False, False, True, True, True, False]
