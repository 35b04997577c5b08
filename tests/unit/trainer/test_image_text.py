"""The image-text loss against plain loops: CLIP's for distinct captions, StableRep+'s for repeated ones."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from trainer.losses.image_text import first_of_each, image_text


def loop_over_formula(
    anchors: list[list[float]],
    anchor_ids: list[int],
    candidates: list[list[float]],
    candidate_ids: list[int],
    scale: float,
) -> tuple[float, float, int]:
    """Cross entropy to the uniform distribution over the candidates of an anchor's caption, by scalars."""

    def unit(rows: list[list[float]]) -> list[list[float]]:
        return [[value / math.sqrt(sum(v * v for v in row)) for value in row] for row in rows]

    loss_sum = floor_sum = 0.0
    count = 0
    for i, anchor in enumerate(unit(anchors)):
        exps = [
            math.exp(scale * sum(a * b for a, b in zip(anchor, row, strict=True))) for row in unit(candidates)
        ]
        matches = [j for j, other in enumerate(candidate_ids) if other == anchor_ids[i]]
        if not matches:
            continue
        loss_sum += -sum(math.log(exps[j] / sum(exps)) for j in matches) / len(matches)
        floor_sum += math.log(len(matches))
        count += 1
    return loss_sum, floor_sum, count


BATCHES = {
    "even groups": ([7, 7, 7, 8, 8, 8], [7, 8]),
    "one image a caption": ([4, 1, 9], [4, 1, 9]),
    "uneven groups and singletons": (
        [1, 2, 2, 2, 3, 1 << 62, (1 << 62) + 1],
        [1, 2, 3, 1 << 62, (1 << 62) + 1],
    ),
    "an image without its caption": ([1, 2, 5], [1, 2]),
}


def features_of(count: int, seed: int, dim: int = 5) -> Tensor:
    return torch.randn(count, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("image_ids", "text_ids"), BATCHES.values(), ids=BATCHES.keys())
@pytest.mark.parametrize("scale", [1.0, 1 / 0.07, 100.0])
def test_both_directions_equal_the_loop(image_ids: list[int], text_ids: list[int], scale: float) -> None:
    """Loss, floor and count are those of the formula, from images to texts and from texts to images."""
    images, texts = features_of(len(image_ids), 0), features_of(len(text_ids), 1)
    for one, one_ids, other, other_ids in (
        (images, image_ids, texts, text_ids),
        (texts, text_ids, images, image_ids),
    ):
        result = image_text(
            one,
            torch.tensor(one_ids),
            other,
            torch.tensor(other_ids),
            torch.tensor(scale, dtype=torch.float64),
        )
        loss, floor, count = loop_over_formula(one.tolist(), one_ids, other.tolist(), other_ids, scale)
        assert result.loss_sum.item() == pytest.approx(loss, rel=1e-12)
        assert result.floor_sum.item() == pytest.approx(floor, rel=1e-12)
        assert result.valid_count.item() == count


def test_with_distinct_captions_it_is_clip() -> None:
    """Figure 3 of the paper: the cross entropies of rows and of columns with the diagonal as target."""
    images, texts, scale = features_of(6, 0), features_of(6, 1), torch.tensor(1 / 0.07, dtype=torch.float64)
    logits = scale * functional.normalize(images, dim=1) @ functional.normalize(texts, dim=1).T
    target = torch.arange(6)
    for one, other, expected in (
        (images, texts, functional.cross_entropy(logits, target)),
        (texts, images, functional.cross_entropy(logits.T, target)),
    ):
        result = image_text(one, target, other, target, scale)
        torch.testing.assert_close(result.loss_sum / result.valid_count, expected)


def test_gradients_equal_finite_differences_of_the_loop() -> None:
    """Of the images, of the texts and of the scale."""
    image_ids, text_ids, step = [3, 3, 8, 3, 9], [3, 8, 9], 1e-6
    images = features_of(5, 0, dim=2).requires_grad_()
    texts = features_of(3, 1, dim=2).requires_grad_()
    scale = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    image_text(texts, torch.tensor(text_ids), images, torch.tensor(image_ids), scale).loss_sum.backward()

    def loss(images_rows: list[list[float]], texts_rows: list[list[float]], times: float) -> float:
        return loop_over_formula(texts_rows, text_ids, images_rows, image_ids, times)[0]

    rows, columns = images.detach().tolist(), texts.detach().tolist()
    assert images.grad is not None
    assert texts.grad is not None
    assert scale.grad is not None
    rise = loss(rows, columns, 5.0 + step) - loss(rows, columns, 5.0 - step)
    assert scale.grad.item() == pytest.approx(rise / (2 * step), rel=1e-5)
    for table, grad in ((rows, images.grad), (columns, texts.grad)):
        for i, row in enumerate(table):
            for d in range(2):
                before = row[d]
                row[d] = before + step
                higher = loss(rows, columns, 5.0)
                row[d] = before - step
                rise = higher - loss(rows, columns, 5.0)
                row[d] = before
                assert grad[i, d].item() == pytest.approx(rise / (2 * step), rel=1e-5, abs=1e-7)


def test_half_precision_features_are_compared_in_float32() -> None:
    """Under autocast and from bfloat16 features the similarities are still float32's."""
    images, texts = features_of(4, 0).bfloat16(), features_of(4, 1).bfloat16()
    ids = torch.arange(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = image_text(images, ids, texts, ids, torch.tensor(50.0))
    assert result.loss_sum.dtype == torch.float32
    expected = loop_over_formula(
        images.double().tolist(), [0, 1, 2, 3], texts.double().tolist(), [0, 1, 2, 3], 50.0
    )
    assert result.loss_sum.item() == pytest.approx(expected[0], rel=1e-5)


def test_first_of_each_names_the_first_row_of_every_id() -> None:
    """In the order of the rows, whatever the ids."""
    assert first_of_each(torch.tensor([9, 9, 2, 1 << 62, 2, (1 << 62) + 1])).tolist() == [0, 2, 3, 5]
    assert first_of_each(torch.tensor([], dtype=torch.int64)).tolist() == []
