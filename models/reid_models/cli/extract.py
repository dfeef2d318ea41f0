"""``reid extract``: images to features, on disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from . import arguments
from .command import Command

if TYPE_CHECKING:
    from ..data import ImageRecord
    from .parsing import ArgumentParser, Namespace

SPLITS = ("train", "query", "gallery")


def configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "images", nargs="*", default=[], metavar="IMAGES", help="folders, with all folders in them, and files"
    )
    arguments.add_model(parser, required=True)
    parser.add_argument(
        "--output",
        required=True,
        metavar="PATH",
        help="the features file (.safetensors); with --dataset a folder, which gets SPLIT.safetensors",
    )
    arguments.add_dataset(parser)
    parser.add_argument(
        "--split", nargs="+", choices=SPLITS, default=["query", "gallery"], help="of the dataset"
    )
    parser.add_argument(
        "--draw", type=int, default=0, metavar="N", help="which of the dataset's retrieval splits"
    )
    parser.add_argument("--dtype", choices=["float16", "float32"], default="float16", help="of the file")
    arguments.add_skip_damaged(parser)
    arguments.add_extraction(parser)


def run(options: Namespace) -> None:
    files = _dataset_files(options) if options.dataset else _image_file(options)

    import torch

    from ..retrieval.extraction import extract_to_file
    from ..runs.models import load_trained

    trained = load_trained(options.model)
    chosen = arguments.extraction(options, trained)
    with _folder(Path(options.output)) if options.dataset else nullcontext():
        for file, records in files.items():
            extract_to_file(file, trained.model, records, dtype=getattr(torch, options.dtype), **chosen)
            print(f"written: {file} ({len(records)} images)")


@contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """Makes a folder, which goes again if nothing was written into it."""
    made = not folder.exists()
    folder.mkdir(exist_ok=True)
    try:
        yield
    except BaseException:
        if made:
            with suppress(OSError):  # it is not empty
                folder.rmdir()
        raise


def _image_file(options: Namespace) -> dict[Path, tuple[ImageRecord, ...]]:
    from .._output import check_folder
    from ..data import read_images

    if not options.images:
        raise ValueError("IMAGES or --dataset must be given")
    file = Path(options.output)
    if file.suffix != ".safetensors":
        raise ValueError(f"--output must end in .safetensors, got {file}")
    check_folder(file, "--output")
    return {file: arguments.usable_images(lambda: read_images(options.images), options)}


def _dataset_files(options: Namespace) -> dict[Path, tuple[ImageRecord, ...]]:
    """Records of the splits asked for, by the files to write."""
    from .._output import check_writable

    if options.images:
        raise ValueError("IMAGES and --dataset exclude each other")
    if options.skip_damaged:
        raise ValueError("--skip-damaged is for IMAGES: a dataset's protocol wants all of them")
    folder = Path(options.output)
    if folder.suffix == ".safetensors" or folder.is_file() or not folder.absolute().parent.is_dir():
        raise ValueError(f"--output must be a folder, in one that exists, with --dataset, got {folder}")
    check_writable(folder if folder.is_dir() else folder.absolute().parent, folder, "--output")
    dataset = arguments.dataset(options.dataset, options)
    if not 0 <= options.draw < len(dataset.draws):
        raise ValueError(f"--draw must be in [0, {len(dataset.draws)}), got {options.draw}")
    draw = dataset.draws[options.draw]
    splits = {"train": dataset.train, "query": draw.query, "gallery": draw.gallery}
    return {folder / f"{split}.safetensors": splits[split] for split in options.split}


COMMAND = Command(
    name="extract",
    summary="computes features of images or of a dataset and writes them to disk",
    example="""
reid extract my_images --model runs/vans --output my_images.safetensors
reid extract --dataset market1501 --root /data/market --model runs/hsgnet --flip --output features
""",
    configure=configure,
    run=run,
)
