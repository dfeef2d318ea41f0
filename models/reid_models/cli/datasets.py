"""``reid datasets``: which datasets can be read, and whether a copy is whole."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from . import arguments
from .command import Command

if TYPE_CHECKING:
    from ..data import ReidDataset
    from .parsing import ArgumentParser, Namespace


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="the dataset to read; none: list all")
    arguments.add_root(parser)
    parser.add_argument("--decode", action="store_true", help="decode every image, to find damaged ones")


def run(options: Namespace) -> None:
    if options.name is not None:
        from ..data.datasets.registry import read_any

        _check(read_any(options.name, options.root, **options.options), options)
    elif options.root or options.options or options.decode:
        raise ValueError("NAME must be given with --root, --options and --decode")
    else:
        _list()


def _list() -> None:
    from ..data.datasets.registry import READERS

    for name, reader in sorted(READERS.items()):
        first = (inspect.getdoc(reader) or "").splitlines()[0].rstrip(".")
        known = [p.name for p in inspect.signature(reader).parameters.values() if p.kind is p.KEYWORD_ONLY]
        print(f"{name:<11} {first.removeprefix('Reads ')}")
        if known:
            print(f"{'':<11} --options: {', '.join(known)}")


def _check(dataset: ReidDataset, options: Namespace) -> None:
    """Prints the sizes; ValueError if they are not those published, or images can't be decoded."""
    from ..data import check_images, count_split, verify_split

    expected = dataset.published
    counts = count_split(dataset)
    print(f"{dataset.name} in {dataset.root}; retrieval splits: {len(dataset.draws)}")
    print(f"{'':<17}{'here':>8}{'published':>11}")
    for field, count in vars(counts).items():
        wanted = None if expected is None else getattr(expected, field)
        here = "-" if count is None else count
        print(f"{field:<17}{here:>8}{'-' if wanted is None else wanted:>11}")
    if options.decode:
        tests = (record for draw in dataset.draws for record in (*draw.query, *draw.gallery))
        check_images(dict.fromkeys((*dataset.train, *tests)))
        print("every image can be decoded")
    differences = [] if expected is None else verify_split(dataset, expected)
    if differences:
        more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
        raise ValueError(f"the copy is not whole: {differences[0]}{more}")


COMMAND = Command(
    name="datasets",
    summary="lists the datasets that can be read, or compares a copy with the published sizes",
    example="""
reid datasets
reid datasets market1501 --root /data/Market-1501-v15.09.15
reid datasets vehicleid --root /data/VehicleID_V1.0 --options.test_size 1600 --decode
reid datasets cuhk03 --root /data/cuhk03_release --options.boxes detected
""",
    configure=configure,
    run=run,
)
