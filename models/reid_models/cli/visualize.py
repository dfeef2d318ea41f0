"""``reid visualize``: figures of runs, networks and datasets, and whole reports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._suggest import unknown
from . import arguments
from .command import Command

if TYPE_CHECKING:
    from ..report.kinds import FigureKind, FigureOption
    from .parsing import ArgumentParser, Namespace


def configure(parser: ArgumentParser) -> None:
    from ..report.kinds import FIGURES

    kinds = dict(FIGURES)
    summaries = "; ".join(f"{name}: {kind.summary}" for name, kind in kinds.items())
    parser.add_argument("kind", metavar="KIND", help=f"{summaries}; or package.module:NAME")
    parser.add_argument(
        "inputs", nargs="*", metavar="INPUT", help="as KIND says; NAME=RUN shows a run under another name"
    )
    parser.add_argument(
        "--output", required=True, metavar="FILE", help=".png, .svg or .pdf; for a report .html"
    )
    parser.add_argument("--title", default="", help="of the figure or report")
    arguments.add_dataset(parser)
    for name, owners in _options(kinds).items():
        _add_option(parser, name, owners)
    parser.add_argument("--set", type=dict[str, Any], default={}, metavar="JSON", help=SET)
    arguments.add_rerank(parser)
    arguments.add_keep(parser)
    arguments.add_extraction(parser)


SET = "options of a KIND given as package.module:NAME, one by one as in `--set.count 3`"


def _options(kinds: Mapping[str, FigureKind]) -> dict[str, dict[str, FigureOption]]:
    """Every option by name: the kinds that have it, by name, with what it is there."""
    found: dict[str, dict[str, FigureOption]] = {}
    for kind, described in kinds.items():
        for option in described.options:
            others = found.setdefault(option.name, {})
            for other, same in others.items():
                if same.type is not option.type:
                    raise ValueError(f"{option.word} must be of one type in {other} and {kind}")
            others[kind] = option
    return found


def _add_option(parser: ArgumentParser, name: str, owners: Mapping[str, FigureOption]) -> None:
    """Without a default, so that an option that a kind does not have can be refused."""
    meanings: dict[str, list[str]] = {}
    for kind, option in owners.items():
        default = "" if option.default in (None, False) else f" ({option.default})"
        meanings.setdefault(f"{option.help}{default}", []).append(kind)
    text = "; ".join(f"{', '.join(kinds)}: {meaning}" for meaning, kinds in meanings.items())
    option = next(iter(owners.values()))
    if option.type is bool:
        parser.add_argument(option.word, action="store_true", default=None, help=text)
    else:
        metavar = "N" if option.type is int else name.upper()
        parser.add_argument(option.word, type=option.type | None, default=None, metavar=metavar, help=text)


def run(options: Namespace) -> None:
    from ..report.kinds import FIGURES, FigureRequest

    kind = FIGURES.find(options.kind)
    least, most = kind.inputs
    if not least <= len(options.inputs) <= most:
        count = f"{least} or more" if most > least else "no" if most == 0 else str(least)
        raise ValueError(f"{options.kind} takes {count} INPUT, got {len(options.inputs)}")
    request = FigureRequest(
        inputs=tuple(options.inputs),
        title=options.title,
        options=_values(options, kind, dict(FIGURES)),
        dataset=options.dataset,
        root=options.root,
        dataset_options=options.options,
        rerank=arguments.rerank_options(options),
        extraction=_extraction(options),
        device=options.device,
        keep=not options.no_keep,
    )
    _check_output(options, kind)
    drawn = kind.draw(request)
    if kind.endings == (".html",):
        drawn.write_html(options.output)
    else:
        from ..report.style import save_figure

        save_figure(drawn, options.output)
    print(f"written: {options.output}")


def _values(options: Namespace, kind: FigureKind, kinds: Mapping[str, FigureKind]) -> dict[str, Any]:
    """A value for each option of the kind; ValueError for an option that it does not have."""
    own = {option.name: option for option in kind.options}
    given = {name: options[name] for name in _options(kinds) if options.get(name) is not None}
    for name, value in {**given, **options.set}.items():
        if name not in own:
            raise ValueError(f"--{name.replace('_', '-')} is not an option of {options.kind}")
        if own[name].choices and value not in own[name].choices:
            raise unknown(name, value, own[name].choices)
    values = {name: option.default for name, option in own.items()}
    return {**values, **given, **options.set}


def _check_output(options: Namespace, kind: FigureKind) -> None:
    from .._output import check_folder
    from ..report.style import check_output

    check_folder(options.output, "--output")
    if ".png" in kind.endings:
        check_output(options.output)
    elif Path(options.output).suffix.lower() not in kind.endings:
        endings = ", ".join(kind.endings)
        raise ValueError(f"--output of a {options.kind} must end in {endings}, got {options.output}")


def _extraction(options: Namespace) -> dict[str, Any]:
    """The keywords of ``extract_features`` that are the user's, not the network's."""
    names = {"flip": "flip_average", "batch_size": "batch_size", "workers": "workers", "autocast": "autocast"}
    return {keyword: options[name] for name, keyword in names.items()} | {"progress": True}


COMMAND = Command(
    name="visualize",
    summary="draws ranked lists, Grad-CAM, curves and other figures, or writes a report of runs",
    example="""
reid visualize ranks runs/baseline runs/hsgnet --choose improved --output ranks.png
reid visualize ranks vans.index --queries photos --output ranks.png
reid visualize cam runs/baseline HSGNet=runs/hsgnet --output cam.pdf
reid visualize curves runs/baseline runs/hsgnet --curve cmc --output cmc.svg
reid visualize montage --dataset omniglot --output montage.png
reid visualize report runs/baseline runs/hsgnet --rerank --output report.html
""",
    configure=configure,
    run=run,
)
