"""The [log] section of a run file."""

from typing import Annotated

from msgspec import Meta, Struct


class LogConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[log]: metrics.jsonl and the report are written in any case."""

    tensorboard: Annotated[
        bool,
        Meta(
            description="write curves, samples and hyperparameters for TensorBoard into the run folder;"
            " `streamrep eval` adds its scores"
        ),
    ] = True
    wandb: Annotated[
        str,
        Meta(
            description="project of Weights & Biases that gets all that as well; its own variables, such as"
            " WANDB_MODE=offline, hold; empty is none"
        ),
    ] = ""
