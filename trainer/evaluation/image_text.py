"""Images compared with texts: zero-shot classification, and retrieval of either by the other.

Shapes: N images, T texts, C classes, P templates, D dimensions; vectors of images and texts have unit length.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

PHOTOGRAPH = ("a photo of a {}.",)
"""Of Radford et al. 2021, section 3.1.4; its 80 texts for ImageNet can be given as a file."""
KS = (1, 5, 10)
_ROWS = 1024


def zero_shot_classes(
    classes: Sequence[str], templates: Sequence[str], texts: Callable[[Sequence[str]], Tensor]
) -> Tensor:
    """[C, D] of unit length: the mean over templates of each class name's vectors, as in CLIP."""
    prompts = [template.replace("{}", name) for name in classes for template in templates]
    texts_TD = texts(prompts)
    mean_CD = texts_TD.view(len(classes), len(templates), -1).mean(dim=1)
    return functional.normalize(mean_CD, dim=1)


def image_text_recall(
    images_ND: Tensor, captions: Sequence[tuple[str, ...]], texts: Callable[[Sequence[str]], Tensor]
) -> dict[str, float]:
    """Recall at 1, 5 and 10 both ways: the share of images with a caption of theirs among the k nearest of
    all distinct captions, and of captions with an image of theirs among the k nearest images."""
    numbers = {text: n for n, text in enumerate(dict.fromkeys(text for some in captions for text in some))}
    texts_TD = texts(list(numbers)).to(images_ND.device)
    shape = (len(images_ND), len(numbers))
    pairs_2P = torch.tensor(
        [(row, numbers[text]) for row, some in enumerate(captions) for text in some], device=images_ND.device
    ).T
    described_N = torch.zeros(shape[0], dtype=torch.bool, device=images_ND.device)
    described_N[pairs_2P[0]] = True
    key_P = pairs_2P[0] * shape[1] + pairs_2P[1]
    to_text_NK = _nearest(images_ND[described_N], texts_TD)
    row_N1 = described_N.nonzero()
    found_NK = torch.isin(row_N1 * shape[1] + to_text_NK, key_P)
    # Images without a caption are no answer to any, but they may stand before one.
    to_image_TK = _nearest(texts_TD, images_ND)
    text_T1 = torch.arange(shape[1], device=images_ND.device)[:, None]
    found_TK = torch.isin(to_image_TK * shape[1] + text_T1, key_P)
    recalls = {}
    for way, found_QK in (("image_to_text", found_NK), ("text_to_image", found_TK)):
        for k in KS:
            recalls[f"{way}_recall_at_{k}"] = found_QK[:, :k].any(dim=1).double().mean().item()
    return recalls


def _nearest(query_QD: Tensor, gallery_GD: Tensor) -> Tensor:
    k = min(max(KS), len(gallery_GD))
    return torch.cat(
        [(part_QD @ gallery_GD.T).topk(k, dim=1).indices for part_QD in torch.split(query_QD, _ROWS)]
    )
