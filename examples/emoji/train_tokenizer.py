"""Train a CLIP-shaped byte-pair tokenizer of about 2,000 entries on the captions.

    python examples/emoji/train_tokenizer.py

The folder it writes loads with `transformers.CLIPTokenizer.from_pretrained(folder)`. Its alphabet holds
every byte, so that any text can be written, though only words of the captions were ever trained on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from placements import EMBEDDED
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

HERE = Path(__file__).resolve().parent
START, END = "<|startoftext|>", "<|endoftext|>"
# CLIP's own pattern: special tokens, contractions, words, single digits, punctuation.
PATTERN = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
MAX_LENGTH = 77
"""Tokens a caption, start and end included; longer ones are cut."""


def learn_merges(captions: list[str], size: int) -> list[tuple[str, str]]:
    """Byte-pair merges of CLIP's kind (byte alphabet, '</w>' ends a word), most frequent first."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        end_of_word_suffix="</w>",
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(captions, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(left, right) for left, right in merges]


def build_tokenizer(captions: list[str], size: int) -> CLIPTokenizer:
    """A CLIPTokenizer whose last two entries are the start and the end of a text, as in CLIP."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = learn_merges(captions, size)
    entries = letters + [letter + "</w>" for letter in letters]
    entries += [left + right for left, right in merges] + [START, END]
    vocabulary = {entry: index for index, entry in enumerate(dict.fromkeys(entries))}
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        unk_token=END,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        model_max_length=MAX_LENGTH,
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--size", type=int, default=1750, help="entries before the word-end alphabet is added"
    )
    parser.add_argument("--output", type=Path, default=HERE / "work" / "tokenizer")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    captions = (EMBEDDED / "captions.txt").read_text(encoding="utf-8").splitlines()
    build_tokenizer(captions, arguments.size).save_pretrained(arguments.output)
    tokenizer = CLIPTokenizer.from_pretrained(arguments.output)
    lengths = [len(ids) for ids in tokenizer(captions).input_ids]
    cut = sum(length > MAX_LENGTH for length in lengths)
    print(
        f"{len(tokenizer)} entries, {sum(lengths) / len(lengths):.1f} tokens a caption,"
        f" {cut} captions over {MAX_LENGTH}"
    )


if __name__ == "__main__":
    main()
