"""The [pool] section of a run file."""

from typing import Annotated, Literal

from msgspec import Meta, Struct


class PoolConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[pool]"""

    dir: Annotated[
        str, Meta(description="folder of the pool: tar shards, or StableRep's folders and CSV")
    ] = ""
    write: Annotated[
        bool,
        Meta(description="record in `dir` every group that workers draw for the run and that is trained on"),
    ] = False
    format: Annotated[
        Literal["webdataset", "folders"],
        Meta(description="layout of a new pool: tar shards, or a folder an image number and a CSV"),
    ] = "webdataset"
    picture: Annotated[
        Literal["webp", "png", "jpeg"],
        Meta(description="pictures of a new pool; webp and png keep every bit, jpeg does not"),
    ] = "webp"
    images_per_caption: Annotated[
        int,
        Meta(ge=1, le=10**6, description="l: images of a caption that are drawn for, or taken from, a pool"),
    ] = 10
    share: Annotated[float, Meta(gt=0, le=1, description="in mode mixed, the pool's part of each batch")] = (
        0.5
    )
    until: Annotated[
        int,
        Meta(
            ge=0,
            description="in mode mixed, groups trained on, repeats counted, after which the pool gives no new"
            " ones; 0 is never",
        ),
    ] = 0
    replay: Annotated[
        str,
        Meta(
            description="in mode offline, folder of the run whose batches are trained on again, as its ledger"
            " has them and this pool recorded them; empty samples the pool"
        ),
    ] = ""
    processes: Annotated[int, Meta(ge=1, le=256, description="that decode a pool's pictures")] = 2
    max_damaged: Annotated[
        int, Meta(ge=0, description="images of a pool that may be missing or damaged before the run stops")
    ] = 100
    shard_images: Annotated[
        int,
        Meta(ge=1, description="images of one segment that is written, and lost where it is not finished"),
    ] = 1000
