"""Training with pairs, image targets, several heads and a loss that remembers."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from reid_models.training.data_module import ReidDataModule
from reid_models.training.module import ReidModule
from reid_models.training.train import train
from reid_models.training.trial import asked_inputs, output_widths

from .pair_support import PairNet, pair_settings, run_pairs
from .process_support import recipe
from .test_processes import environments_of_two, start, wait

CENTRES = "tests.models.training.pair_support:Centres"
NAMES = ["Centres(parts)", "Darkness(parts)", "contrastive(distances)"]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def state(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(recipe(tmp_path_factory.mktemp("runs"), name="whole", **pair_settings()))


def test_every_term_is_logged_as_one_value_and_states_are_kept(whole: Path) -> None:
    found = [row for row in rows(whole) if row["step/total"]]
    assert len(found) == 10
    for row in found:
        total = sum(float(row[f"step/{name}"]) for name in NAMES)
        assert float(row["step/total"]) == pytest.approx(total, rel=1e-6)
    kept = {key: value for key, value in state(whole).items() if key.endswith(".centres")}
    assert len(kept) == 3 and all(value.shape == (5, 4) and value.any() for value in kept.values())


def test_the_state_goes_on_where_it_was(whole: Path, tmp_path: Path) -> None:
    settings = recipe(tmp_path, name="stopped", **pair_settings())
    for number, steps in enumerate((3, 100)):
        trainer = {**settings["trainer"], "max_steps": steps}
        folder = train({**settings, "trainer": trainer, "resume": number > 0})
    left, right = state(folder), state(whole)
    assert left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in right)


def test_two_processes_keep_the_state_of_one(whole: Path, tmp_path: Path) -> None:
    settings = recipe(tmp_path, name="two", **pair_settings())
    with environments_of_two() as environments:
        processes = [start(run_pairs, settings, each) for each in environments]
        assert [wait(process) for process in processes] == [0, 0]
    left, right = state(tmp_path / "two"), state(whole)
    for key, value in right.items():
        torch.testing.assert_close(left[key], value, rtol=1e-4, atol=1e-6, msg=lambda m, k=key: k + m)
    for one, two in zip(rows(whole), rows(tmp_path / "two"), strict=True):
        for name in NAMES:
            if one[f"step/{name}"]:
                assert float(two[f"step/{name}"]) == pytest.approx(float(one[f"step/{name}"]), rel=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"sampler": {"name": "shuffled", "batch_size": 4}}}, "data.sampler must make pairs"),
        ({"data": {"sampler": {"name": "pears"}}}, 'did you mean "pairs"'),
        (
            {"data": {"dataset_options": {"identities": 10, "cameras": 2, "images_per_camera": 1}}},
            r"at least anchors_per_batch \(11\) images .* got 10",
        ),
        ({"model": {"losses": [{"loss": "triplet", "output": "feature"}]}}, "must have 'feature'"),
        (
            {
                "model": {
                    "losses": [
                        {
                            "loss": CENTRES,
                            "output": "parts",
                            "target": "pear",
                        }
                    ]
                }
            },
            '"pair"',
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    settings = recipe(tmp_path, name="bad", **pair_settings())
    settings["data"]["sampler"]["anchors_per_batch"] = 11
    for group, values in change.items():
        settings[group] |= values
    with pytest.raises(Exception, match=message):
        train(settings)
    assert not list(tmp_path.iterdir())


def test_a_pair_target_needs_pairs(tmp_path: Path) -> None:
    losses = [{"loss": "contrastive", "output": "features", "target": "pair"}]
    with pytest.raises(ValueError, match="must make pairs for hsgnet and its losses, got IdentitySampler"):
        train(recipe(tmp_path, model={"losses": losses}))


def test_the_module_says_that_it_lacks_the_data() -> None:
    module = ReidModule(4, (32, 32), network="baseline", options={"backbone": "resnet10t"})
    with pytest.raises(RuntimeError, match=r"attach\(data\) must come before"):
        module.configure_optimizers()
    module.attach(ReidDataModule("synthetic", None, {"identities": 8}))
    assert module.configure_optimizers()["lr_scheduler"]["interval"] == "epoch"


def test_a_trial_leaves_the_network_as_it_is() -> None:
    module = ReidModule(4, (32, 32), network="baseline", options={"backbone": "resnet10t"})
    before = {key: value.clone() for key, value in module.network.state_dict().items()}
    random = torch.get_rng_state()
    assert output_widths(module.network) == {"logits": (4,), "features": (512,)}
    assert module.network.training and torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[key], value) for key, value in module.network.state_dict().items())
    assert asked_inputs(module.network) == () and asked_inputs(PairNet(4)) == ("pairs",)
    assert output_widths(PairNet(4)) == {"parts": (4, 4, 4), "distances": (1,)}
