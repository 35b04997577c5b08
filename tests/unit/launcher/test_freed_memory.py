"""What becomes of memory that was freed, in processes of their own."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.freed_memory import CHOSEN_BY_USER

TAKE_AND_FREE = """
import resource, sys
from launcher.freed_memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
block_bytes = 100 << 20
del (first := [bytearray(block_bytes)])[:]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    block = bytearray(block_bytes)
    block[::4096] = b"x" * len(range(0, block_bytes, 4096))
    del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's doing")


def _faults(repository: Path, kept: str, chosen: dict[str, str] | None = None) -> int:
    environment = {name: value for name, value in os.environ.items() if name not in CHOSEN_BY_USER}
    environment |= {"PYTHONPATH": str(repository)} | (chosen or {})
    ran = subprocess.run(
        [sys.executable, "-c", TAKE_AND_FREE, kept],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return int(ran.stdout)


def test_memory_that_was_freed_is_taken_again_without_page_faults(repository: Path) -> None:
    """Five times 100 MiB: once they were there, a fault for each 4 KiB page only where nothing is kept."""
    pages = 5 * (100 << 20) // os.sysconf("SC_PAGESIZE")
    assert _faults(repository, "kept") < pages / 100
    assert _faults(repository, "given back") > 50 * _faults(repository, "kept")


def test_the_users_own_setting_stands(repository: Path) -> None:
    """Named by glibc's variables."""
    [threshold, *_] = [name for name in CHOSEN_BY_USER if "MMAP" in name]
    assert _faults(repository, "kept", {threshold: "131072"}) > 100
