"""Captions to text embeddings, each caption once."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import BatchEncoding, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

CACHED_CAPTIONS = 1024


@dataclass(frozen=True)
class TextEncoder:
    """A text model and the tokenizer it was trained with."""

    tokenizer: CLIPTokenizer
    model: CLIPTextModel | CLIPTextModelWithProjection


@dataclass(frozen=True)
class Embedded:
    """What the UNet reads of captions: states [captions, tokens, width], and of SDXL one vector of each,
    [captions, width]."""

    text_NTD: Tensor
    pooled_NP: Tensor | None

    def repeat(self, views: int) -> "Embedded":
        """Each caption `views` times, one after another."""
        pooled_NP = None if self.pooled_NP is None else self.pooled_NP.repeat_interleave(views, dim=0)
        return Embedded(self.text_NTD.repeat_interleave(views, dim=0), pooled_NP)


class CaptionEncoder:
    """Encodes captions as diffusers does, padded and cut to the tokenizer's length: the last hidden state of
    one encoder, or SDXL's, the last but one of two side by side with the second's projection.

    The text encoders always see `slots` captions, the tail padded with the empty one, so that an embedding
    does not depend on the captions it is encoded with.
    """

    def __init__(self, encoders: Sequence[TextEncoder], *, slots: int) -> None:
        self._encoders = tuple(encoders)
        self._slots = slots
        self._known: OrderedDict[str, tuple[Tensor, Tensor | None]] = OrderedDict()
        self._cut: set[str] = set()
        """Those of the known captions whose end was dropped."""

    def encode(self, captions: Sequence[str]) -> Embedded:
        """The captions' embeddings on the encoders' device, in their dtype."""
        wanted = list(dict.fromkeys(captions))
        missing = [caption for caption in wanted if caption not in self._known]
        for start in range(0, len(missing), self._slots):
            self._learn(missing[start : start + self._slots])
        states, vectors = [], []
        for caption in captions:
            self._known.move_to_end(caption)
            state_TD, vector_P = self._known[caption]
            states.append(state_TD)
            if vector_P is not None:
                vectors.append(vector_P)
        while len(self._known) > max(CACHED_CAPTIONS, len(wanted)):
            forgotten, _ = self._known.popitem(last=False)
            self._cut.discard(forgotten)
        return Embedded(torch.stack(states), torch.stack(vectors) if vectors else None)

    def cuts(self, caption: str) -> bool:
        """Whether the caption is longer than a tokenizer's length; its end is then not encoded."""
        if caption in self._known:
            return caption in self._cut
        return any(_overlong(_tokenize(encoder.tokenizer, [caption]))[0] for encoder in self._encoders)

    def _learn(self, captions: list[str]) -> None:
        padded = captions + [""] * (self._slots - len(captions))
        states, pooled_NP = [], None
        for encoder in self._encoders:
            tokens = _tokenize(encoder.tokenizer, padded)
            state_NTD, pooled_NP = _run(encoder.model, tokens, two=len(self._encoders) > 1)
            states.append(state_NTD)
            cut = zip(captions, _overlong(tokens), strict=False)
            self._cut.update(caption for caption, overlong in cut if overlong)
        text_NTD = torch.cat(states, dim=-1)
        for i, caption in enumerate(captions):
            vector_P = None if pooled_NP is None else pooled_NP[i].clone()
            self._known[caption] = (text_NTD[i].clone(), vector_P)


def _run(
    model: CLIPTextModel | CLIPTextModelWithProjection, tokens: "BatchEncoding[Any]", *, two: bool
) -> tuple[Tensor, Tensor | None]:
    # Stable Diffusion's text encoders see their padding; only those that say so mask it, and SDXL's never do.
    masked = not two and getattr(model.config, "use_attention_mask", False)
    mask = tokens.attention_mask.to(model.device) if masked else None
    output = model(tokens.input_ids.to(model.device), attention_mask=mask, output_hidden_states=two)
    if two:
        return output.hidden_states[-2], getattr(output, "text_embeds", None)
    return output[0], None


def _tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> "BatchEncoding[Any]":
    tokens: BatchEncoding[Any] = tokenizer(
        captions,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    return tokens


def _overlong(tokens: "BatchEncoding[Any]") -> list[bool]:
    assert tokens.encodings is not None, "every CLIPTokenizer is backed by the tokenizers library"
    return [bool(encoding.overflowing) for encoding in tokens.encodings]
