"""``reid datasets``: which datasets can be read, and whether a copy is whole."""

from __future__ import annotations

from .command import ArgumentParser, Command, Namespace


def configure(parser: ArgumentParser) -> None:
    pass


def run(options: Namespace) -> None:
    from ..data import list_datasets

    for name in list_datasets():
        print(name)


COMMAND = Command(
    name="datasets",
    summary="lists the datasets that can be read, or compares a copy with the published sizes",
    example="reid datasets\nreid datasets market1501 --root /data/Market-1501-v15.09.15",
    configure=configure,
    run=run,
)
