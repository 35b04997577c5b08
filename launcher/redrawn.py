"""A group that was drawn again, beside what the ledger has of it."""

import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from launcher.errors import RunFileError
from protocol.payload import ImagesNHWC, checksum
from trainer.ledger_reader import RecordedGroup
from trainer.run_folder import write_json


@dataclass(frozen=True, kw_only=True)
class Redrawn:
    """`engine` is the hash of what drew it now, `summary` its words for people."""

    recorded: RecordedGroup
    images_NHWC: ImagesNHWC
    engine: str
    summary: str

    @property
    def digest(self) -> str:
        """xxh3-64 of the pixels, as the ledger has it of the group that was trained on."""
        return checksum(self.images_NHWC)

    @property
    def equal(self) -> bool:
        """Whether it is the same bit for bit."""
        return self.digest == self.recorded.digest

    @property
    def same_engine(self) -> bool:
        """Whether the bits have to be the same."""
        return self.engine == self.recorded.engine

    def verdict(self) -> str:
        """What came out and what that means, for people."""
        group = f"group {self.recorded.ticket.group_id}"
        drawn_by = f"engine {self.recorded.engine}, this is {self.engine} ({self.summary})"
        if self.equal and self.same_engine:
            return f"equal: {group} has the digest {self.digest} again, from the same engine {self.engine}"
        if self.equal:
            return f"equal: {group} has the digest {self.digest} again, though it was drawn by {drawn_by}"
        digests = f"{group} has the digest {self.recorded.digest}, redrawn it has {self.digest}"
        if self.same_engine:
            return f"not equal: {digests}, from the same engine {self.engine}: it does not repeat itself"
        return (
            f"not equal: {digests}. The engine hash differs as well: it was drawn by {drawn_by}. Another"
            " engine, static batch, precision, library version or device model may round differently, so"
            " compare the images by eye, or redraw with the settings and on the device of the worker"
            f" {self.recorded.worker}"
        )

    def save(self, folder: Path) -> list[str]:
        """Writes a PNG a view and a JSON file of the whole; returns the names of the images.

        Views have the numbers of the ticket. Each file is whole or absent. Raises UserError.
        """
        ticket = self.recorded.ticket
        stem = f"group-{ticket.group_id}"
        names = [f"{stem}-view-{ticket.first_view + i}.png" for i in range(ticket.views)]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, image_HWC in zip(names, self.images_NHWC, strict=True):
                temporary = folder / f".{name}.{os.getpid()}"
                Image.fromarray(image_HWC).save(temporary, format="PNG", optimize=True)
                temporary.replace(folder / name)
            write_json(folder / f"{stem}.json", self._described(names))
        except OSError as error:
            raise RunFileError(
                "cannot write the images",
                expected="a folder that can be written",
                got=error.strerror or str(error),
                where=str(folder),
                mend="choose another with --out",
            ) from error
        return names

    def _described(self, names: list[str]) -> dict[str, object]:
        recorded, ticket = self.recorded, self.recorded.ticket
        return {
            "group_id": ticket.group_id,
            "caption": ticket.caption,
            "caption_id": ticket.caption_id,
            "views": [
                {"image": name, "view": ticket.first_view + i, "seed": seed, "guidance": guidance}
                for i, (name, seed, guidance) in enumerate(
                    zip(names, ticket.seeds, ticket.guidance, strict=True)
                )
            ],
            "equal": self.equal,
            "trained": {"digest": recorded.digest, "engine": recorded.engine, "worker": recorded.worker},
            "redrawn": {"digest": self.digest, "engine": self.engine, "by": self.summary},
            "content": recorded.content,
        }
