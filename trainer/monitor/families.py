"""The metrics of a trainer. Pure: a reading in, families out.

Counters count from the start of the process, as Prometheus wants them: what the run had trained before is in
the gauge `streamrep_trainer_step` alone.
"""

from collections.abc import Mapping

from monitoring.exposition import Family, counter, gauge, histogram, info
from protocol.handshakes import Handshake
from trainer.metrics import Row
from trainer.monitor.reading import Reading
from trainer.stall import Stall
from trainer.stall_timer import FIRST_SAID_SECONDS

PEER_REASONS = (
    *(ending.value for ending in Handshake if ending is not Handshake.SUCCEEDED),
    "not_admitted",
    "protocol_version",
    "another_run",
    "another_content",
)
"""Refusals of a peer as a whole. Shown from the start, since an increase is seen only beside a first zero."""


def families(reading: Reading) -> list[Family]:
    """Everything that /metrics shows."""
    return [
        info("streamrep_trainer_info", "Always 1; its label names the run.", {"run": reading.run}),
        *_training(reading),
        *_reuse(reading),
        *_waiting(reading),
        *_stream(reading),
        *_disk(reading),
    ]


def _training(reading: Reading) -> list[Family]:
    row = reading.row or {}
    step = int(row.get("step", reading.first_step))
    trained = int(row.get("images_trained", reading.first_uses * reading.views))
    resting = reading.standstill.reason is not None and reading.standstill.lasted >= FIRST_SAID_SECONDS
    return [
        counter(
            "streamrep_trainer_steps_total",
            "Optimizer steps taken by this process.",
            step - reading.first_step,
        ),
        gauge("streamrep_trainer_step", "Optimizer steps of the run, over all its processes.", step),
        gauge("streamrep_trainer_max_steps", "Optimizer steps after which the run ends.", reading.max_steps),
        counter(
            "streamrep_trainer_images_trained_total",
            "Images trained on by this process, each use counted.",
            trained - reading.first_uses * reading.views,
        ),
        gauge(
            "streamrep_trainer_images_per_second",
            "Images trained on a second since the last row of metrics.jsonl; 0 after 5 s of standstill.",
            0.0 if resting else _value(row, "images_per_second"),
        ),
        gauge(
            "streamrep_trainer_fresh_ratio",
            "Share of the images trained on that were never trained on before, since the last row.",
            _value(row, "fresh_fraction"),
        ),
        gauge(
            "streamrep_trainer_mean_uses",
            "Trainings of a group on average, over the run.",
            _value(row, "mean_uses"),
        ),
        gauge("streamrep_trainer_loss", "Loss of the newest step.", _value(row, "loss")),
        gauge("streamrep_trainer_learning_rate", "Of the newest step.", _value(row, "lr")),
        gauge(
            "streamrep_trainer_last_step_timestamp_seconds",
            "Unix time at which the newest step ended.",
            _value(row, "time"),
        ),
        gauge(
            "streamrep_trainer_last_checkpoint_timestamp_seconds",
            "Unix time at which the newest checkpoint was written.",
            reading.checkpoint_at,
        ),
    ]


def _reuse(reading: Reading) -> list[Family]:
    return [
        gauge(
            "streamrep_trainer_reuse",
            "Groups of a batch for each fresh one that stream.reuse = auto asks for.",
            _value(reading.row or {}, "reuse"),
        ),
        histogram(
            "streamrep_trainer_uses",
            "Which use of its group each training was; 1 is the first.",
            reading.use_counts,
        ),
        histogram(
            "streamrep_trainer_age_seconds",
            "Time from the arrival of a group to each of its trainings.",
            reading.age_counts,
        ),
    ]


def _waiting(reading: Reading) -> list[Family]:
    still = reading.standstill
    seconds = {stall.value: still.seconds.get(stall.value, 0.0) for stall in Stall}
    waited = sum(value for cause, value in seconds.items() if cause not in (Stall.CHECKPOINT, Stall.PAUSED))
    return [
        counter(
            "streamrep_trainer_waiting_seconds_total",
            "Time in which the trainer stood still for want of groups.",
            waited,
        ),
        counter(
            "streamrep_trainer_stall_seconds_total",
            "Time in which the trainer stood still, by cause, checkpoints and pauses included.",
            seconds,
            "cause",
        ),
        gauge(
            "streamrep_trainer_stalled",
            "1 for the cause that the trainer stands still for at this moment.",
            {stall.value: float(stall is still.reason) for stall in Stall},
            "cause",
        ),
    ]


def _stream(reading: Reading) -> list[Family]:
    status = reading.status
    return [
        counter(
            "streamrep_trainer_images_received_total",
            "Images of groups that arrived and were wanted.",
            status.groups_received * reading.views,
        ),
        gauge(
            "streamrep_trainer_buffered_groups",
            "Groups that arrived and are not in a batch yet.",
            status.buffered,
        ),
        gauge("streamrep_trainer_leased_groups", "Groups that workers are drawing.", status.leased),
        gauge(
            "streamrep_trainer_wanted_groups",
            "Groups that the window has room for and nobody is drawing.",
            status.wanted,
        ),
        gauge(
            "streamrep_trainer_ring_groups",
            "Trained groups held for further use.",
            _value(reading.row or {}, "ring_groups"),
        ),
        gauge("streamrep_trainer_workers", "Generators whose engine is built.", status.workers),
        gauge(
            "streamrep_trainer_connected_workers",
            "Generators that are connected, those still building their engines included.",
            status.connected,
        ),
        counter(
            "streamrep_trainer_dead_letters_total",
            "Tickets given up because workers failed to draw them.",
            status.dead_letters,
        ),
        counter(
            "streamrep_trainer_refused_total",
            "Peers, messages and groups that were not taken, by reason.",
            dict.fromkeys(PEER_REASONS, 0) | status.refused,
            "reason",
        ),
    ]


def _disk(reading: Reading) -> list[Family]:
    return [
        gauge(
            "streamrep_trainer_disk_free_bytes",
            "Free on the disk that holds the run's folder.",
            reading.disk_free_bytes,
        ),
        gauge("streamrep_trainer_disk_size_bytes", "Size of that disk.", reading.disk_size_bytes),
    ]


def _value(row: Row | Mapping[str, float], key: str) -> float | None:
    value = row.get(key)
    return None if value is None else float(value)
