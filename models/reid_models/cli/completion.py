"""``reid completion``: what a shell needs to complete commands and options, by shtab."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .command import Command

if TYPE_CHECKING:
    from .parsing import ArgumentParser, Namespace

SHELLS = ("bash", "zsh", "tcsh")
FILES = ("FILE", "PATH", "RUN", "FEATURES", "SOURCE", "IMAGES", "QUERY", "GALLERY", "INPUT")
FOLDERS = ("DIR",)


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="whose script to print")


def run(options: Namespace) -> None:
    import argparse

    import shtab

    from ..recipes import list_recipes
    from ..training.short import SETTINGS
    from . import COMMANDS, find_command
    from .parsing import make_parser

    whole = argparse.ArgumentParser(prog="reid", description="re-identification")
    commands = whole.add_subparsers()
    for name in COMMANDS:
        parser = make_parser(find_command(name))
        if name == "train":
            parser.add_argument(*SETTINGS)
        for action in parser._actions:
            if action.dest == "recipe":
                action.choices = list_recipes()
            elif action.metavar in FILES:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            elif action.metavar in FOLDERS:
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        commands.add_parser(name, help=find_command(name).summary)
        commands.choices[name] = parser
    print(shtab.complete(whole, shell=options.shell))


COMMAND = Command(
    name="completion",
    summary="prints a script by which bash, zsh or tcsh complete commands and options",
    example="""
reid completion bash > ~/.local/share/bash-completion/completions/reid
reid completion zsh > ~/.zfunc/_reid          # a folder of fpath
""",
    configure=configure,
    run=run,
)
