"""``reid datasets``: which datasets can be read, whether a copy is whole, what is wrong with one's own."""

from __future__ import annotations

import inspect
import json
import os
import shlex
from typing import TYPE_CHECKING

from . import arguments
from .command import Command

if TYPE_CHECKING:
    from ..data import ReidDataset
    from ..data.doctor import Diagnosis
    from .parsing import ArgumentParser, Namespace


def configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME|FOLDER",
        help="the dataset to read, or a folder or .csv file of your own to look through; none: list all",
    )
    arguments.add_root(parser)
    parser.add_argument("--decode", action="store_true", help="decode every image, to find damaged ones")
    parser.add_argument("--no-decode", action="store_true", help="of FOLDER: don't look into the images")
    parser.add_argument("--json", action="store_true", help="of FOLDER: print JSON")


def run(options: Namespace) -> None:
    if options.name is not None and _is_place(options.name):
        _diagnose(options)
    elif options.no_decode or options.json:
        raise ValueError("--no-decode and --json are for a FOLDER or file of your own")
    elif options.name is not None:
        from ..data.datasets.registry import read_any

        _check(read_any(options.name, options.root, **options.options), options)
    elif options.root or options.options or options.decode:
        raise ValueError("NAME must be given with --root, --options and --decode")
    else:
        _list()


def _is_place(name: str) -> bool:
    """Whether a name is a folder or file: no dataset's name, and there or written like a path."""
    from ..data import list_datasets

    return name not in list_datasets() and ":" not in name and (os.sep in name or os.path.exists(name))


def _diagnose(options: Namespace) -> None:
    """Prints what is in a folder and wrong with it; ValueError if it can't be used."""
    from .._text import visible
    from ..data.doctor import diagnose

    if options.root is not None:
        raise ValueError("--root must come with the NAME of a dataset, not with a FOLDER")
    found = diagnose(
        options.name,
        options=options.options or None,
        decode=not options.no_decode,
        progress=True,
    )
    if options.json:
        print(found.to_json(), end="")
    else:
        print(visible(found.path))
        for name, fact in found.facts.items():
            print(f"  {name:<11} {visible(fact)}")
        for finding in found.findings:
            print(f"{finding.kind}: {visible(finding.text)}")
            for file in finding.files:
                print(f"    {visible(file)}")
        print(_next(found))
    stopping = [finding.text for finding in found.findings if finding.stops]
    if stopping:
        more = f" (and {len(stopping) - 1} more)" if len(stopping) > 1 else ""
        raise ValueError(f"{found.path} can't be used as it is: {stopping[0]}{more}")


def _next(found: Diagnosis) -> str:
    """The command that goes on from here."""
    place = shlex.quote(found.path)
    if not found.reader:
        return f"to search in them: reid index {place} --model MODEL --output FILE"
    words = f"reid train own_images --data.dataset {found.reader} --data.root {place}"
    if found.options:
        words += f" --data.dataset_options {shlex.quote(json.dumps(found.options))}"
    return f"to train: {words}"


def _list() -> None:
    from ..data.datasets.registry import READERS

    for name, reader in sorted(READERS.items()):
        first = (inspect.getdoc(reader) or "").splitlines()[0].rstrip(".")
        known = [p.name for p in inspect.signature(reader).parameters.values() if p.kind is p.KEYWORD_ONLY]
        print(f"{name:<13} {first.removeprefix('Reads ')}")
        if known:
            print(f"{'':<13} --options: {', '.join(known)}")


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
    summary="lists datasets, compares a copy with its published sizes, or looks through a folder of your own",
    example="""
reid datasets
reid datasets my_images
reid datasets market1501 --root /data/Market-1501-v15.09.15
reid datasets vehicleid --root /data/VehicleID_V1.0 --options.test_size 1600 --decode
reid datasets cuhk03 --root /data/cuhk03_release --options.boxes detected
""",
    configure=configure,
    run=run,
)
