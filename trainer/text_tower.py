"""CLIP's text encoder, from captions to one vector each (Radford et al. 2021, section 2.4).

Shapes: T captions, L tokens, D the dimension in which texts and images are compared.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModelWithProjection, PreTrainedTokenizerBase

from protocol.errors import UserError

_FROM_TOKENIZER = ("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id")
LENGTH_MAX = 77


class TextTower(nn.Module):
    """A causal transformer over tokens, read at the end-of-text token and projected linearly."""

    dim: int
    """D."""

    def __init__(self, model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.model = model
        self.dim = model.text_projection.out_features
        self._tokenizer = tokenizer

    def forward(self, captions: Sequence[str]) -> Tensor:
        """[T, D]; captions longer than the tower's positions are cut."""
        tokens = self._tokenizer(
            list(captions),
            padding=True,
            padding_side="right",
            truncation=True,
            max_length=self.model.config.max_position_embeddings,
            return_tensors="pt",
        )
        device = self.model.text_projection.weight.device
        # Attention is causal, so the padding behind the last token needs no mask.
        hidden_TLD = self.model.text_model(tokens.input_ids.to(device)).last_hidden_state
        last_T = tokens.attention_mask.to(device).sum(dim=1) - 1
        texts_TD: Tensor = self.model.text_projection(hidden_TLD[torch.arange(len(last_T)), last_T])
        return texts_TD

    def save(self, folder: Path) -> None:
        """Writes model and tokenizer, each for transformers' `from_pretrained(folder)`."""
        self.model.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)


def load_text_tower(folder: Path) -> TextTower:
    """What `TextTower.save` wrote. Raises OSError and ValueError for a folder that is not whole."""
    model = CLIPTextModelWithProjection.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    return TextTower(model, AutoTokenizer.from_pretrained(folder, local_files_only=True))


def build_text_tower(fields: dict[str, Any], tokenizer: str, seed: int) -> TextTower:
    """The tower of `model.text` with the tokenizer of `model.tokenizer`. Raises UserError.

    Weights depend on `seed` alone, and the global random state is left as it was.
    """
    words = _load_tokenizer(tokenizer)
    known = CLIPTextConfig().to_dict()
    for key in fields:
        if key not in known or key in _FROM_TOKENIZER:
            nearest = get_close_matches(key, set(known) - set(_FROM_TOKENIZER), n=1)
            raise UserError(
                "the text tower has no such field",
                expected=f"`{nearest[0]}`" if nearest else "a field of transformers' CLIPTextConfig",
                got=f"`{key}`",
                where="model.text",
                mend="leave it out" if key in known else "correct the key or leave it out",
            )
    from_tokenizer = {
        "vocab_size": len(words),
        "max_position_embeddings": min(words.model_max_length, LENGTH_MAX),
        "pad_token_id": words.pad_token_id,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = CLIPTextModelWithProjection(CLIPTextConfig(**from_tokenizer | fields))
        except Exception as error:  # of many types, each meaning that these fields don't fit
            raise UserError(
                "transformers cannot build this text tower",
                expected="fields of CLIPTextConfig",
                got=repr(fields),
                where="model.text",
                mend=f"it says: {error}"[:400],
            ) from error
    return TextTower(model, words)


def _load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    path = Path(str(files("trainer").joinpath("embedded/tokenizer"))) if name == "embedded" else Path(name)
    folder = path / "tokenizer" if (path / "tokenizer").is_dir() else path
    try:
        if not folder.is_dir():
            raise FileNotFoundError("no such folder")
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if tokenizer.eos_token_id is None or tokenizer.pad_token_id is None:
            raise ValueError("a tokenizer without an end-of-text or a padding token")
    except Exception as error:  # a broken file, an unknown class: all the same to the user
        raise UserError(
            "no tokenizer",
            expected="`embedded`, or a model folder of diffusers or its tokenizer folder",
            got=str(error).splitlines()[0],
            where=str(folder),
            mend="set model.tokenizer to such a folder",
        ) from error
    return tokenizer
