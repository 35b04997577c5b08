"""Takes drawn groups to a pool: pictures are encoded by threads, since Pillow works without Python's lock.

training thread ─add→ encoding threads ─in order→ writer ─now and then→ segment
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from trainer.batch import DrawnGroup
from trainer.config import TrainerConfig
from trainer.plan import Plan
from trainer.pool.about import describe
from trainer.pool.images import PictureFormat, encode_image
from trainer.pool.store import EncodedGroup
from trainer.pool.writer import PoolWriter

PENDING_GROUPS = 64
"""That may wait for their encoding before `add` waits for them."""


def open_recorder(config: TrainerConfig, plan: Plan, run_folder: Path, step: int) -> "Recorder | None":
    """For a run with workers and `pool.write`, else None. Forgets what the run recorded after `step`, its
    checkpoint. Raises UserError."""
    if not config.pool.write or config.run.mode == "offline":
        return None
    writer = PoolWriter(Path(config.pool.dir), describe(config, plan))
    run = str(run_folder.resolve())
    writer.trim(run, step)
    return Recorder(writer, config.pool.picture, shard_images=config.pool.shard_images, run=run)


class Recorder:
    """Owns its writer. Errors of a thread come out of the next call."""

    def __init__(
        self,
        writer: PoolWriter,
        picture: PictureFormat,
        *,
        shard_images: int,
        threads: int = 1,
        run: str = "",
        below: int | None = None,
    ) -> None:
        """`run`: its folder, in every segment. Images numbered `below` or more are left out."""
        self._writer = writer
        self._picture = picture
        self._shard_images = shard_images
        self._run = run
        self._below = below
        self._step = 0
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="encode")
        self._pending: deque[Future[EncodedGroup]] = deque()

    def add(self, group: DrawnGroup, step: int = 0) -> None:
        """Notes a group that was trained on for the first time at that step."""
        self._pending.append(self._threads.submit(self._encode, group))
        self._step = step
        self._write(lambda: len(self._pending) > PENDING_GROUPS or self._pending[0].done())

    def seal(self) -> None:
        """Everything added so far is in whole segments when this returns."""
        self._write(lambda: True)
        self._writer.seal(self._run, self._step)

    def close(self) -> None:
        """Drops what was not sealed."""
        self._threads.shutdown(cancel_futures=True)
        self._writer.close()

    def _write(self, due: Callable[[], bool]) -> None:
        while self._pending and due():
            self._writer.add(self._pending.popleft().result())
            if self._writer.pending_images >= self._shard_images:
                self._writer.seal(self._run, self._step)

    def _encode(self, group: DrawnGroup) -> EncodedGroup:
        ticket = group.ticket
        numbers = range(ticket.first_view, ticket.first_view + ticket.views)
        if self._below is not None:
            numbers = range(ticket.first_view, min(ticket.first_view + ticket.views, self._below))
        kept = len(numbers)
        return EncodedGroup(
            group_id=group.group_id,
            caption=ticket.caption,
            images=tuple(numbers),
            pictures=tuple(encode_image(image, self._picture) for image in group.images_NHWC[:kept]),
            seeds=ticket.seeds[:kept],
            guidance=ticket.guidance[:kept],
            engine=group.engine,
            content=group.content,
        )
