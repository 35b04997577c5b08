"""The trainer's sections of a run file. Built only through the run-file loader, which checks every bound."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from protocol.generation import GenerationSpec
from trainer.augment_config import AugmentConfig, Unit
from trainer.monitor.config import MonitorConfig
from trainer.objectives.needs import NEEDS, ObjectiveName
from trainer.pool.config import PoolConfig
from trainer.trackers.config import LogConfig

Mode = Literal["online", "offline", "mixed"]


class RunConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[run]"""

    name: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
            max_length=128,
            description="folder of the run under `dir`",
        ),
    ] = "default"
    seed: Annotated[
        int, Meta(ge=0, le=2**63 - 1, description="decides order, noise, augmentation and weights")
    ] = 0
    dir: Annotated[str, Meta(description="where run folders are kept")] = "runs"
    mode: Annotated[
        Mode,
        Meta(description="where groups come from: generators, a pool, or a share of each batch from either"),
    ] = "online"
    max_steps: Annotated[
        int, Meta(ge=1, description="optimizer steps in all, those before a resume included")
    ] = 1000


class CaptionsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[captions]"""

    source: Annotated[
        str,
        Meta(
            description="`embedded`; a UTF-8 file: .txt with one caption a line, .csv, .tsv or .parquet; or a"
            " folder of such files, all of one kind"
        ),
    ] = "embedded"
    column: Annotated[
        str | Annotated[int, Meta(ge=1)],
        Meta(
            description="of a table: the name of its captions' column, where the first row holds names, or"
            " its number from 1, where it does not; empty finds a column called caption, text or prompt, the"
            " only one, or the one beside URLs"
        ),
    ] = ""
    index: Annotated[str, Meta(description="folder that keeps the index of a source of more than 4 MiB")] = (
        "runs/.captions"
    )
    classes: Annotated[
        str,
        Meta(
            description="for supcon: a UTF-8 text file with one class name a line; the class of a caption is"
            " the longest name that stands in it"
        ),
    ] = ""


class StreamConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[stream]"""

    bind: Annotated[
        str,
        Meta(
            description="where the trainer listens; rank i of several at the i-th port, or path, from there"
        ),
    ] = "tcp://127.0.0.1:5755"
    advertise: Annotated[
        str,
        Meta(
            description="address told to workers, of several ranks counted up like `bind`; empty means the"
            " bound one"
        ),
    ] = ""
    keys: Annotated[
        str,
        Meta(
            description="the trainer's folder of `streamrep keys`: encrypts, and hears only admitted workers;"
            " empty is neither"
        ),
    ] = ""
    insecure_bind: Annotated[
        bool,
        Meta(description="without keys, allow a bind beyond loopback: who can reach it may send images"),
    ] = False
    window_groups: Annotated[
        int,
        Meta(
            ge=0,
            description="groups leased or received and never trained on, at most, over all ranks; 0 means 4"
            " batches",
        ),
    ] = 0
    ring_groups: Annotated[
        int,
        Meta(
            ge=0,
            description="trained groups kept for further use, over all ranks; 0 means 16 batches, the least"
            " allowed",
        ),
    ] = 0
    max_reuse: Annotated[int, Meta(ge=1, le=10**6, description="trainings on one group, at most")] = 1
    reuse: Annotated[
        Literal["eager", "auto"],
        Meta(
            description="in arrival order: eager fills a batch with used groups at once, so that the trainer"
            " hardly ever waits; auto uses no more of them than hold its waiting share under waiting_target."
            " Both stay within max_reuse; auto needs a single trainer rank"
        ),
    ] = "eager"
    waiting_target: Annotated[
        float,
        Meta(gt=0, lt=1, description="with reuse = auto, the share of its time that the trainer may wait"),
    ] = 0.02
    reuse_gap: Annotated[int, Meta(ge=0, description="steps that must lie between two uses of a group")] = 1
    order: Annotated[
        Literal["arrival", "ticket"],
        Meta(
            description="what a batch is made of: groups as they arrive, or those that its step names, each"
            " trained exactly max_reuse times, so that a run can be repeated bit for bit"
        ),
    ] = "arrival"
    min_fresh: Annotated[
        float, Meta(ge=0, le=1, description="share of a batch that must be groups never trained on before")
    ] = 0.0
    exact: Annotated[
        bool,
        Meta(
            description="admit only workers whose engine has the hash of the first one's, and was seen to"
            " draw a group alike in any slot; their batches are not halved where memory runs out"
        ),
    ] = False
    lease_seconds: Annotated[
        float, Meta(gt=0, description="how long a worker may hold a ticket without progress")
    ] = 60.0


class ModelConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[model]"""

    encoder: Annotated[
        dict[str, Any],
        Meta(
            description="transformers' `model_type` and fields of its config, or `folder` of a saved encoder"
        ),
    ] = field(default_factory=lambda: {"model_type": "resnet"})
    head_layers: Annotated[int, Meta(ge=1, le=8, description="linear layers of the projection head")] = 3
    head_hidden: Annotated[int, Meta(ge=1, description="width between them")] = 4096
    head_out: Annotated[int, Meta(ge=1, description="dimension in which the loss compares images")] = 256
    text: Annotated[
        dict[str, Any],
        Meta(
            description="for stablerep+ and clip: fields of transformers' CLIPTextConfig, whose defaults are"
            " the papers'; vocabulary and length come from the tokenizer"
        ),
    ] = field(default_factory=dict)
    tokenizer: Annotated[
        str,
        Meta(
            description="of the text tower: `embedded`, or a model folder of diffusers, or its tokenizer"
            " folder"
        ),
    ] = "embedded"
    mae: Annotated[
        dict[str, Any],
        Meta(
            description="for mae: mask_ratio, norm_pix_loss and decoder_* fields of transformers'"
            " ViTMAEConfig"
        ),
    ] = field(default_factory=dict)


class TrainConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[train]"""

    objective: Annotated[
        ObjectiveName,
        Meta(
            description="what is minimised; simclr and clip need generation.views = 1, stablerep, stablerep+"
            " and supcon at least 2, mae a vit"
        ),
    ] = "stablerep"
    temperature: Annotated[
        float, Meta(gt=0, description="of the losses that compare images; images and texts have a learnt one")
    ] = 0.1
    text_weight: Annotated[
        float, Meta(gt=0, description="weight of stablerep+'s image-text loss beside its image loss")
    ] = 1.0
    batch_groups: Annotated[
        int, Meta(ge=2, description="groups in a batch, over all ranks, whose number divides it")
    ] = 64
    micro_batch: Annotated[
        int,
        Meta(
            ge=0,
            description="images that the encoder of a rank takes at once; the gradient is still the whole"
            " batch's, for one more forward pass; 0 is all of them",
        ),
    ] = 0
    base_lr: Annotated[
        float, Meta(gt=0, description="the papers' rule: lr = base_lr x batch images / 512")
    ] = 2e-4
    lr: Annotated[float, Meta(ge=0, description="peak learning rate; 0 derives it from base_lr")] = 0.0
    betas: Annotated[tuple[Unit, Unit], Meta(description="AdamW's averages")] = (0.9, 0.98)
    weight_decay: Annotated[float, Meta(ge=0, description="on matrices and kernels only")] = 0.1
    warmup_steps: Annotated[int, Meta(ge=0, description="steps of linear warm-up before the cosine")] = 50
    ema_decay: Annotated[
        float,
        Meta(
            ge=0,
            lt=1,
            description="of a moving average of the weights of encoder and text tower; 0 keeps none",
        ),
    ] = 0.0
    export: Annotated[
        Literal["trained", "ema"],
        Meta(description="what is evaluated and saved at the end: the trained weights or their average"),
    ] = "trained"
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Meta(
            description="arithmetic of the encoder; auto is bfloat16 where the hardware multiplies it;"
            " float16 scales the loss, and leaves out an update whose gradients overflow"
        ),
    ] = "auto"
    compile: Annotated[
        bool, Meta(description="torch.compile the encoder: minutes at the start, faster steps afterwards")
    ] = False
    checkpointing: Annotated[
        bool,
        Meta(
            description="keep the inputs of the encoder's layers alone and compute the rest again for the"
            " gradient: far less memory for a third more time"
        ),
    ] = False
    device: Annotated[
        str, Meta(description="auto, cpu, cuda or cuda:N; of several ranks each takes a GPU of its own")
    ] = "auto"
    threads: Annotated[
        int, Meta(ge=0, le=1024, description="compute threads of a rank on a CPU; 0 leaves it to torch")
    ] = 1
    log_every: Annotated[int, Meta(ge=1, description="steps between lines of metrics.jsonl")] = 10
    checkpoint_every: Annotated[int, Meta(ge=1, description="steps between checkpoints")] = 250
    keep_checkpoints: Annotated[int, Meta(ge=1, description="how many checkpoints are kept")] = 2


class EvalConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[eval]"""

    sets: Annotated[
        tuple[Literal["openmoji"], ...],
        Meta(description="what the encoder is tried on; an empty list is nothing"),
    ] = ("openmoji",)
    every: Annotated[
        int, Meta(ge=0, description="steps between evaluations; 0 evaluates at the end only")
    ] = 250
    batch_images: Annotated[int, Meta(ge=1, description="images encoded at once")] = 256
    k: Annotated[int, Meta(ge=1, description="neighbours of the kNN vote, and K of recall at K")] = 10
    knn_temperature: Annotated[
        float, Meta(gt=0, description="weight of a neighbour is exp(similarity / T)")
    ] = 0.07
    background_seed: Annotated[int, Meta(ge=0, description="decides the random backgrounds")] = 0


class TrainerConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that the trainer reads of a run file."""

    run: RunConfig = RunConfig()
    captions: CaptionsConfig = CaptionsConfig()
    generation: GenerationSpec = GenerationSpec()
    stream: StreamConfig = StreamConfig()
    pool: PoolConfig = PoolConfig()
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = TrainConfig()
    augment: AugmentConfig = AugmentConfig()
    eval: EvalConfig = EvalConfig()
    monitor: MonitorConfig = MonitorConfig()
    log: LogConfig = LogConfig()

    @property
    def batch_images(self) -> int:
        """Images that the encoder sees in one optimizer step over all ranks, each augmentation for itself."""
        return self.train.batch_groups * self.generation.views * NEEDS[self.train.objective].crops

    @property
    def peak_lr(self) -> float:
        """`train.lr`, or StableRep's rule base_lr x batch images / 512."""
        return self.train.lr or self.train.base_lr * self.batch_images / 512
