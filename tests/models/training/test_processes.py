"""Runs that are killed and go on, and runs shared by two processes, against one undisturbed process."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed

from reid_models import load_model
from reid_models.training.train import alone, train

from .process_support import (
    NoisyModule,
    gradients,
    identity_batches,
    recipe,
    run_interrupted,
    run_killed,
    run_noisy,
    run_refused,
    run_shared,
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def context() -> Any:
    """Processes from a server that has imported the libraries once."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["tests.models.training.process_support"])
    return found


def start(function: Any, *arguments: Any) -> Any:
    process = context().Process(target=function, args=arguments)
    process.start()
    return process


def wait(process: Any) -> int:
    process.join(300)  # seconds, on an idle machine ten
    if process.is_alive():
        process.kill()
        pytest.fail("the process does not end")
    code: int = process.exitcode
    return code


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def weights(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "last.ckpt", weights_only=True)


def assert_same(found: Any, expected: Any, path: str = "") -> None:
    """Equal bit for bit, all the way down."""
    assert type(found) is type(expected), path
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), path
        for key in expected:
            assert_same(found[key], expected[key], f"{path}.{key}")
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), path
        for number, (left, right) in enumerate(zip(found, expected, strict=True)):
            assert_same(left, right, f"{path}[{number}]")
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), path
    else:
        assert found == expected, path


def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Killed in step 6 of 8, in the second epoch, its last checkpoint behind step 5; workers are ahead."""
    settings = recipe(tmp_path, checkpoint_every_n_steps=5, data={"workers": 1})
    with NoisyModule():
        whole = train({**settings, "name": "whole"})
    assert wait(start(run_killed, {**settings, "name": "killed"}, 6)) == -9
    killed = tmp_path / "killed"
    assert weights(killed)["global_step"] == 5 and len(rows(killed)) == 8  # 6 steps, a validation, an epoch
    with (killed / "metrics.csv").open("a") as file:
        file.write("1,,7,2.")  # as if it had been killed while writing
    with NoisyModule():
        assert train({**settings, "name": "killed", "resume": True}) == killed
    assert len(rows(whole)) == 12
    assert_same_run(killed, whole)


@pytest.mark.parametrize(
    ("number", "status", "step", "saved"),
    [(signal.SIGINT, 130, 2, 3), (signal.SIGINT, 130, 1, 2), (signal.SIGTERM, 143, 2, 3)],
    ids=["Ctrl-C in an epoch", "Ctrl-C in its last step", "SIGTERM in an epoch"],
)
def test_a_signal_saves_and_the_run_goes_on_bit_for_bit(
    tmp_path: Path, number: int, status: int, step: int, saved: int
) -> None:
    """It comes to the process and its workers in the first of a step's two batches: they must go on."""
    trainer = {"accumulate_grad_batches": 2}
    settings = recipe(tmp_path, trainer=trainer, data={"workers": 1})
    with NoisyModule():
        whole = train({**settings, "name": "whole"})
    file = tmp_path / "stopped.yaml"
    file.write_text(json.dumps({**settings, "name": "stopped"}))
    assert wait(start(run_interrupted, str(file), step, number)) == status
    stopped = tmp_path / "stopped"
    assert weights(stopped)["global_step"] == saved
    with NoisyModule():
        train({**settings, "name": "stopped", "resume": True})
    assert_same_run(stopped, whole)


def test_slurm_queues_a_job_again_which_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """SIGUSR1 comes to all processes of a job step; the same command is then run once more."""
    settings = recipe(tmp_path, data={"workers": 1}, resume=True)
    with NoisyModule():
        whole = train({**settings, "name": "whole"})
    file = tmp_path / "queued.yaml"
    file.write_text(json.dumps({**settings, "name": "queued"}))
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (programs / "scontrol").chmod(0o755)
    job = {"SLURM_JOB_ID": "4711", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    job |= {"SLURM_NODEID": "0", "SLURM_JOB_NAME": "train", "SLURM_NTASKS_PER_NODE": "1"}
    job["PATH"] = f"{programs}:{os.environ['PATH']}"
    assert wait(start(run_interrupted, str(file), 2, signal.SIGUSR1, job)) == 143
    assert (tmp_path / "asked").read_text() == "requeue 4711\n"
    queued = tmp_path / "queued"
    assert weights(queued)["global_step"] == 3 and not list(queued.glob("hpc_*"))
    assert wait(start(run_interrupted, str(file), -1, signal.SIGUSR1, job)) == 0
    assert (tmp_path / "asked").read_text() == "requeue 4711\n"
    assert_same_run(queued, whole)


def test_a_run_is_trained_by_one_process_at_a_time(tmp_path: Path) -> None:
    settings = recipe(tmp_path, name="shared")
    folder = train(settings)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with alone(folder):
        assert wait(start(run_refused, {**settings, "resume": True})) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    train({**settings, "resume": True, "trainer": {**settings["trainer"], "max_epochs": 3}})


def test_the_lock_follows_no_link(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("kept")
    (tmp_path / ".lock").symlink_to(target)
    with pytest.raises(OSError), alone(tmp_path):
        pytest.fail("it went on")
    assert target.read_text() == "kept"


def assert_same_run(found: Path, expected: Path) -> None:
    """Rows, weights and all that a run keeps, bit for bit; nothing else is left behind."""
    assert rows(found) == rows(expected)
    left, right = weights(found), weights(expected)
    assert_same(left["state_dict"], right["state_dict"])
    for key in ("optimizer_states", "lr_schedulers", "random_states", "global_step", "epoch", "loops"):
        assert_same(left[key], right[key], key)
    assert_same(*(load_model(folder / "best.safetensors").state_dict() for folder in (found, expected)))
    assert not list(found.glob("*.part")) and not list(found.glob("*.kept"))


@contextmanager
def environments_of_two() -> Iterator[list[dict[str, str]]]:
    """As torchrun sets them for two processes of one machine, which meet at a store that it has started.

    A port that was free a moment ago may be taken by the time that one of them starts the store.
    """
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": "2"}
    shared |= {"LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test"}
    shared["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    yield [{**shared, "RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    del store  # not before: they need it to the end


def run_two(settings: dict[str, Any], step: int | None) -> list[int]:
    together = context().Barrier(2)
    with environments_of_two() as environments:
        processes = [start(run_noisy, settings, each, step, together) for each in environments]
        return [wait(process) for process in processes]


def test_two_killed_processes_go_on_bit_for_bit(tmp_path: Path) -> None:
    """Each with random numbers of its own, which both go on with."""
    settings = recipe(tmp_path, checkpoint_every_n_steps=2, trainer={"max_epochs": 1})
    assert run_two({**settings, "name": "whole"}, None) == [0, 0]
    assert run_two({**settings, "name": "killed"}, 3) == [-9, -9]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    assert weights(killed)["global_step"] == 2
    states = weights(killed)["random_states"]
    assert len(states) == 2 and not torch.equal(states[0]["torch"], states[1]["torch"])
    assert run_two({**settings, "name": "killed", "resume": True}, None) == [0, 0]
    assert rows(killed) == rows(whole)
    found, expected = weights(killed), weights(whole)
    for key in ("state_dict", "optimizer_states", "random_states"):
        assert_same(found[key], expected[key], key)


def test_two_processes_are_one(tmp_path: Path) -> None:
    """First gradients in float64, to rounding; then a whole run with HSGNet."""
    odd = {"identities": 34, "images_per_camera": 1, "size": [32, 32]}  # 51 test images do not divide
    gentle = {"optimizer": {"name": "SGD", "lr": 0.001}, "schedule": {"name": "constant"}}
    settings = recipe(
        tmp_path,
        data={"sampler": identity_batches(4, 3), "dataset_options": odd},
        model=gentle,
        trainer={"max_epochs": 1},
    )
    two = {**settings, "name": "two"}
    with environments_of_two() as environments:
        processes = [start(run_shared, two, str(tmp_path / "gradients"), each) for each in environments]
        alone = gradients(0, 1)
        one = train({**settings, "name": "one"})
        assert [wait(process) for process in processes] == [0, 0]

    for rank in range(2):
        found = torch.load(tmp_path / f"gradients.{rank}", weights_only=True)
        assert found.keys() == alone.keys()
        for name, value in alone.items():
            torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: n + m)

    found_rows, expected_rows = rows(tmp_path / "two"), rows(one)
    assert len(found_rows) == len(expected_rows) > 5
    for left, right in zip(found_rows, expected_rows, strict=True):
        for key, value in right.items():
            assert (value == "") == (left[key] == "")
            if value:
                assert float(left[key]) == pytest.approx(float(value), rel=1e-4), key
    models = [load_model(folder / "best.safetensors").state_dict() for folder in (tmp_path / "two", one)]
    for name, value in models[1].items():
        torch.testing.assert_close(models[0][name], value, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: n + m)
