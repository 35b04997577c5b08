"""From `train.objective` to the objective of a run."""

from trainer.config import TrainerConfig
from trainer.encoder import Encoder
from trainer.head import Head
from trainer.objectives.contrastive import Contrastive, ImageLoss, by_augmentation, by_caption, by_class
from trainer.objectives.needs import NEEDS
from trainer.objectives.objective import Objective

_IMAGE_LOSSES: dict[str, ImageLoss] = {
    "stablerep": by_caption,
    "supcon": by_class,
    "simclr": by_augmentation,
}


def build_objective(config: TrainerConfig, encoder: Encoder) -> Objective:
    """Built on the CPU, where weights depend on the seed alone. Raises UserError for parts that can't be."""
    name, seed = config.train.objective, config.run.seed
    if name in _IMAGE_LOSSES:
        head = _build_head(config, encoder)
        return Contrastive(encoder, head, _IMAGE_LOSSES[name], config.train.temperature)
    # Imported where they are used: text towers and decoders are heavy to load.
    if name == "mae":
        from trainer.objectives.mae import build_mae

        return build_mae(encoder, config.model.mae, seed, fresh="folder" not in config.model.encoder)
    from trainer.objectives.image_text import ImageText
    from trainer.text_tower import build_text_tower

    return ImageText(
        encoder,
        build_text_tower(config.model.text, config.model.tokenizer, seed),
        _build_head(config, encoder) if name == "stablerep+" else None,
        temperature=config.train.temperature,
        text_weight=config.train.text_weight if name == "stablerep+" else 1.0,
        seed=seed,
    )


def _build_head(config: TrainerConfig, encoder: Encoder) -> Head:
    """Every crop of a view has its own batch norm statistics, as every view has."""
    model = config.model
    return Head(
        encoder.dim,
        model.head_hidden,
        model.head_out,
        model.head_layers,
        config.generation.views * NEEDS[config.train.objective].crops,
        seed=config.run.seed,
    )
