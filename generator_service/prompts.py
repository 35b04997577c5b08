"""Captions to text embeddings, each caption once."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

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
            self._known.popitem(last=False)
        return torch.stack(embeddings)

    def _learn(self, captions: list[str]) -> None:
        padded = captions + [""] * (self._slots - len(captions))
        tokens = self._tokenizer(
            padded,
            padding="max_length",
            max_length=self._tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        device = self._text_encoder.device
        # Stable Diffusion's text encoders see their padding; only those that say so mask it.
        masked = getattr(self._text_encoder.config, "use_attention_mask", False)
        mask = tokens.attention_mask.to(device) if masked else None
        hidden_BTD = self._text_encoder(tokens.input_ids.to(device), attention_mask=mask)[0]
        for caption, embedding_TD in zip(captions, hidden_BTD, strict=False):
            self._known[caption] = embedding_TD.clone()
