"""`streamrep keys`: who the trainer is, and which workers it hears."""

import argparse
from pathlib import Path

from launcher.command_line import OneLineParser
from launcher.key_folder import KeyFolder

DEFAULT_FOLDER = Path("keys")
TEXTS = {
    "trainer": "make the trainer's pair of keys",
    "worker": "make a worker's pair of keys and admit it",
    "admit": "admit a public key that was made elsewhere, or revoked",
    "list": "show who is admitted",
    "revoke": "shut a worker out, at once",
}


def keys(argv: list[str]) -> int:
    """Carries out the words after `keys`; returns the exit code. Raises UserError."""
    words = _parser().parse_args(argv)
    folder = KeyFolder(words.keys)
    match words.action:
        case "trainer" | "worker" if words.if_missing and folder.has(getattr(words, "name", "")):
            print("nothing to make: the keys are there")
        case "trainer":
            public = folder.make_trainer()
            print(f'made {public.with_suffix(".secret")} and {public}; set stream.keys = "{folder.path}"')
        case "worker":
            made = folder.make_worker(words.name)
            print(
                f"admitted {words.name}; copy {made} to its machine (scp -rp), keep it secret on the way, and"
                " give it there as --generator.keys"
            )
        case "admit":
            print(f"admitted {words.name}  {folder.admit(words.name, words.file)}")
        case "revoke":
            folder.revoke(words.name)
            print(f"revoked {words.name}")
        case _:
            _show(folder.admitted())
    return 0


def _show(admitted: dict[str, str]) -> None:
    width = max(map(len, admitted), default=0)
    for name, key in admitted.items():
        print(f"{name:<{width}}  {key}")
    if not admitted:
        print("nobody is admitted")


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="streamrep keys",
        description="Makes and admits keys: connections are encrypted, and only admitted workers are heard.",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in TEXTS.items():
        action = actions.add_parser(name, help=text, description=text, allow_abbrev=False)
        if name in ("worker", "admit", "revoke"):
            action.add_argument("name", metavar="NAME", help="what the worker is called")
        if name == "admit":
            action.add_argument("file", type=Path, metavar="FILE", help="its worker.public")
        if name in ("trainer", "worker"):
            action.add_argument(
                "--if-missing",
                action="store_true",
                help="leave keys that are there as they are, without error",
            )
        action.add_argument(
            "--keys", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help="folder of keys (keys)"
        )
    return parser
