"""Child processes of a local run. Each is the leader of its own session and holds one end of a pipe on stdin:
when this process goes, by whatever signal, the pipe closes and the child ends itself."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


class Child:
    """One running child. `log` is the file that its output is appended to, None for this terminal."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], log: Path | None) -> None:
        self.log = log
        output = log.open("ab") if log else None
        try:
            # A session of its own, so that Ctrl-C in the terminal reaches the launcher alone.
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        finally:
            if output:
                output.close()

    def poll(self) -> int | None:
        """The exit code, None while it runs, negative when a signal ended it."""
        return self._process.poll()

    def terminate(self) -> None:
        """Asks it to end."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it and everything in its process group."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Collects an ended child and its pipe."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def reason(self) -> str:
        """Its last line of output and where the rest is; empty when it wrote to the terminal."""
        if self.log is None:
            return ""
        lines = self.log.read_text("utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
        return f": {last.removeprefix('streamrep: ')} (all of it: {self.log})"
