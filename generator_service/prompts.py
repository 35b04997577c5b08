"""Captions to text embeddings, each caption once."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import BatchEncoding, CLIPTextModel, CLIPTokenizer

CACHED_CAPTIONS = 1024


class CaptionEncoder:
    """Encodes captions as diffusers does: padded and cut to the tokenizer's length, last hidden state.

    The text encoder always sees `slots` captions, the tail padded with the empty one, so that an embedding
    does not depend on the captions it is encoded with.
    """

    def __init__(self, tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, *, slots: int) -> None:
        self._tokenizer = tokenizer
        self._text_encoder = text_encoder
        self._slots = slots
        self._known: OrderedDict[str, Tensor] = OrderedDict()
        self._cut: set[str] = set()
        """Those of the known captions whose end was dropped."""

    def encode(self, captions: Sequence[str]) -> Tensor:
        """[captions, tokens, width] on the encoder's device, in its dtype."""
        wanted = list(dict.fromkeys(captions))
        missing = [caption for caption in wanted if caption not in self._known]
        for start in range(0, len(missing), self._slots):
            self._learn(missing[start : start + self._slots])
        embeddings = []
        for caption in captions:
            self._known.move_to_end(caption)
            embeddings.append(self._known[caption])
        while len(self._known) > max(CACHED_CAPTIONS, len(wanted)):
            forgotten, _ = self._known.popitem(last=False)
            self._cut.discard(forgotten)
        return torch.stack(embeddings)

    def cuts(self, caption: str) -> bool:
        """Whether the caption is longer than the tokenizer's length; its end is then not encoded."""
        if caption in self._known:
            return caption in self._cut
        return _overlong(self._tokenize([caption]))[0]

    def _learn(self, captions: list[str]) -> None:
        padded = captions + [""] * (self._slots - len(captions))
        tokens = self._tokenize(padded)
        device = self._text_encoder.device
        # Stable Diffusion's text encoders see their padding; only those that say so mask it.
        masked = getattr(self._text_encoder.config, "use_attention_mask", False)
        mask = tokens.attention_mask.to(device) if masked else None
        hidden_BTD = self._text_encoder(tokens.input_ids.to(device), attention_mask=mask)[0]
        for caption, embedding_TD, overlong in zip(captions, hidden_BTD, _overlong(tokens), strict=False):
            self._known[caption] = embedding_TD.clone()
            if overlong:
                self._cut.add(caption)

    def _tokenize(self, captions: list[str]) -> "BatchEncoding[Any]":
        tokens: BatchEncoding[Any] = self._tokenizer(
            captions,
            padding="max_length",
            max_length=self._tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return tokens


def _overlong(tokens: "BatchEncoding[Any]") -> list[bool]:
    assert tokens.encodings is not None, "every CLIPTokenizer is backed by the tokenizers library"
    return [bool(encoding.overflowing) for encoding in tokens.encodings]
