"""A training run and its folder: :func:`train`."""

from __future__ import annotations

import csv
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed
import yaml  # type: ignore[import-untyped]
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from .._output import replacing
from ..data.samplers import TrainSampler
from ..recipes import load_recipe
from ..runs.files import LAST, METRICS, RECIPE
from .checkpoints import BestModel, LastCheckpoint, WholeCheckpointIO, read_step
from .configuration import check_same_run, count_processes, make_parser, read_configuration
from .interruption import Interruption
from .joint_batch import JointBatchNorm
from .module import ReidModule
from .timing import ParameterCount, TrainingTime

KEPT = f"{METRICS}.kept"  # rows of before, while Lightning begins its file anew


def train(recipe: Mapping[str, Any], overrides: Sequence[str] = ()) -> Path:
    """Trains by a recipe.

    The run's folder, ``RUNS/NAME``, gets ``recipe.yaml`` (the whole configuration), ``metrics.csv``,
    TensorBoard's events, ``last.ckpt`` (for ``resume``) and ``best.safetensors`` (the highest mAP; see
    :func:`reid_models.load_model`).

    A run that was interrupted at any moment goes on with ``resume``, and on the CPU ends with the weights it
    would have had, bit for bit. Ctrl-C and SIGTERM save at the end of the step, a second one stops at once;
    SIGUSR1 in a job of SLURM saves likewise and has the job queued again, which then goes on if its command
    has ``resume``. On several GPUs or machines start it by torchrun; the processes share every batch, and
    compute what one would.

    Args:
        recipe: settings by name: ``name``, ``runs``, ``resume``, ``checkpoint_every_n_steps``,
            ``seed_everything``, and those in ``model`` (:class:`ReidModule`), ``data``
            (:class:`ReidDataModule`) and ``trainer`` (Lightning's ``Trainer``).
        overrides: settings as on a command line, over those of the recipe.

    Returns:
        The run's folder.

    Raises:
        ValueError, TypeError, FileNotFoundError: a setting is unknown or out of range; the data, or the
            checkpoint to go on from, are missing or damaged. Nothing has been written then.
        FileExistsError: the folder has a run and ``resume`` is not set, or another process trains it.
        RuntimeError: the loss is no longer finite.
        KeyboardInterrupt: by Ctrl-C or, as ``Terminated``, by SIGTERM, once the run is saved.

    Example:
        >>> sampler = {"name": "identity", "identities_per_batch": 8}
        >>> data = {"dataset": "synthetic", "image_size": [64, 64], "sampler": sampler}
        >>> train({"name": "trial", "data": data, "trainer": {"max_epochs": 3}})
        PosixPath('runs/trial')
    """
    parser = make_parser()
    configuration = read_configuration(parser, recipe, overrides)
    folder = Path(configuration.runs) / (configuration.name or "run")
    settings = yaml.safe_load(parser.dump(configuration, skip_unset=False))
    first_process = _is_first_process()
    with ExitStack() as lock:
        if first_process:
            if folder.is_dir():
                lock.enter_context(alone(folder))
            _check_folder(folder, settings)
        _run(parser, configuration, settings, folder, lock if first_process else None)
    return folder


def _run(parser: Any, configuration: Any, settings: Any, folder: Path, lock: ExitStack | None) -> None:
    """The run itself; the first process comes with the lock of its folder, which may not be there yet."""
    # The same in every process: the first checkpoint is written after all have come here.
    resumed = configuration.resume and (folder / LAST).exists()
    seed_everything(configuration.seed_everything, workers=True, verbose=False)
    made = parser.instantiate(configuration)
    sampler = made.data.make_sampler(world_size=count_processes(configuration))  # refuses what doesn't fit
    _check_pairs(made.model, sampler)
    made.data.make_comparison(made.model.network)  # refuses a network that the metric doesn't fit
    made.model.attach(made.data)
    checkpoint = folder / LAST if resumed else None
    wait = f"saving {folder / LAST} at the end of this step or validation; Ctrl-C again stops at once"
    interruption = Interruption(wait if lock else "", requeues=lock is not None)
    last = LastCheckpoint(folder, configuration.checkpoint_every_n_steps, interruption)
    with _quiet():
        trainer = _make_trainer(made.trainer, folder, last, checkpoint)
    if lock:
        made.data.prepare_data()
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            lock.enter_context(alone(folder))
        if not (folder / RECIPE).exists():
            with replacing(folder / RECIPE) as unfinished:
                unfinished.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    try:
        with _quiet(), interruption.handled():
            trainer.fit(made.model, made.data, ckpt_path=checkpoint, weights_only=True)
    finally:
        made.data.close()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """The right to write to a run's folder. It ends with the process, and its workers do not inherit it.

    Raises:
        FileExistsError: another process has it.
    """
    try:
        import fcntl  # here, so that training works where there is none (not POSIX)
    except ImportError:
        yield
        return
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise FileExistsError(f"{folder} is being trained by another process") from None
        yield
    finally:
        os.close(descriptor)


def _is_first_process() -> bool:
    ranks = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))  # as Lightning does
    return next((rank for rank in ranks if rank is not None), "0") == "0"


def _check_pairs(module: ReidModule, sampler: TrainSampler) -> None:
    if module.needs_pairs and sampler.pairs is None:
        raise ValueError(
            f"data.sampler must make pairs for {module.network.name} and its losses, got "
            f"{type(sampler).__name__}"
        )


def _check_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    if (folder / RECIPE).exists():
        if not settings["resume"]:
            raise FileExistsError(f"{folder} has a run: --resume goes on with it, --name starts another")
        check_same_run(load_recipe(folder / RECIPE).config, settings, folder)


def _make_trainer(given: Any, folder: Path, last: LastCheckpoint, checkpoint: Path | None) -> Trainer:
    options = dict(given)
    steps = 0 if checkpoint is None else read_step(checkpoint)
    if checkpoint is not None:
        options["num_sanity_val_steps"] = 0  # it was measured when it began
    callbacks = [*(options.pop("callbacks") or []), last, BestModel(folder), TrainingTime(folder)]
    if options["enable_progress_bar"] is not False:
        callbacks.append(RichProgressBar())
    if options.pop("enable_model_summary") is not False:
        callbacks.append(ParameterCount())
    plugins: list[Any] = [WholeCheckpointIO()]
    if options.pop("sync_batchnorm"):
        plugins.append(JointBatchNorm())
    if torch.distributed.is_torchelastic_launched():  # torchrun says how many processes there are
        here, everywhere = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
        options |= {"devices": here, "num_nodes": everywhere // here}
        if options["strategy"] == "auto":
            options["strategy"] = "ddp"
    loggers = [
        _csv_logger(folder, steps),
        TensorBoardLogger(folder, name="", version="", default_hp_metric=False, purge_step=steps),
    ]
    options |= {"logger": loggers, "callbacks": callbacks, "plugins": plugins, "default_root_dir": folder}
    options["enable_model_summary"] = False
    try:
        return Trainer(**options)
    except MisconfigurationException as error:
        raise ValueError(f"trainer: {error}") from error


def _keep_rows(folder: Path, steps: int) -> list[dict[str, str]]:
    """Rows of before the checkpoint; those behind it come again.

    Lightning deletes the file when it starts: until the rows are in the new one they are in another.
    """
    metrics, kept = folder / METRICS, folder / KEPT
    if metrics.exists() and not kept.exists():
        os.replace(metrics, kept)
    if not kept.exists():
        return []
    with kept.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    # A row that was being written when the run was killed is cut off: it is behind the checkpoint.
    return [row for row in rows if (row["step"] or "").isdigit() and int(row["step"]) < steps]


def _csv_logger(folder: Path, steps: int) -> CSVLogger:
    rows = _keep_rows(folder, steps) if steps and _is_first_process() else []
    logger = CSVLogger(folder, name="", version="", flush_logs_every_n_steps=1)
    for row in rows:
        values: Any = {key: value for key, value in row.items() if value and key != "step"}
        logger.experiment.log_metrics(values, int(row["step"]))
    if rows:
        logger.save()
    if _is_first_process():
        (folder / KEPT).unlink(missing_ok=True)
    return logger


def _is_no_advertisement(record: logging.LogRecord) -> bool:
    return "Tip: For seamless" not in record.getMessage()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of Lightning that are no news here, and what it advertises."""
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    with warnings.catch_warnings(), ExitStack() as filtered:
        log.addFilter(_is_no_advertisement)
        filtered.callback(log.removeFilter, _is_no_advertisement)
        for message in (
            ".*exists and is not empty.*",  # a run folder holds several things
            ".*module\\(s\\) in eval mode at the start.*",  # batch norms that are frozen
            ".*is smaller than the logging interval.*",  # epochs are logged in any case
            ".*does not have many workers.*",  # data.workers is the user's
            ".*sync_dist=True.*",  # what is logged is the same in every process
            ".*torch.distributed.nn.functional.all_gather is deprecated.*",  # Lightning calls it
            ".*isinstance\\(treespec, LeafSpec\\).*",  # likewise
        ):
            warnings.filterwarnings("ignore", message)
        yield
