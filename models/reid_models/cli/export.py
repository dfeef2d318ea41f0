"""``reid export``: a model as one ONNX file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import arguments
from .command import Command

if TYPE_CHECKING:
    from .parsing import ArgumentParser, Namespace


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=arguments.MODEL)
    parser.add_argument("--output", required=True, metavar="FILE", help="the file (.onnx)")


def run(options: Namespace) -> None:
    from .._output import check_folder

    if not options.output.endswith(".onnx"):
        raise ValueError(f"--output must end in .onnx, got {options.output}")
    if options.model.startswith("onnx:"):
        raise ValueError(f"MODEL must not be an ONNX file already, got {options.model}")
    check_folder(options.output, "--output")

    from ..networks import export_onnx
    from ..runs.models import load_trained

    trained = load_trained(options.model)
    export_onnx(trained.model, options.output, images=trained.image_statistics)
    print(f"written: {options.output} (features of length {trained.model.feature_length})")


COMMAND = Command(
    name="export",
    summary="writes a model's feature extractor as an ONNX file, which onnx:FILE names again",
    example="""
reid export runs/vans --output vans.onnx
reid index my_images --model onnx:vans.onnx --output vans.index
""",
    configure=configure,
    run=run,
)
