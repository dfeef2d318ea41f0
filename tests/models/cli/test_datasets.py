"""`reid datasets` and `reid benchmark`."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from reid_models.cli import benchmark, main
from reid_models.data import list_datasets


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["datasets"]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines() if line[0] != " "] == list_datasets()
    assert "--options: test_size, convention, draws, seed" in shown


def test_a_whole_copy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["datasets", "omniglot", "--decode"]) == 0
    shown = capsys.readouterr().out
    assert "query_images          318        318" in shown and "every image can be decoded" in shown


def test_without_published_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["datasets", "synthetic", "--options.identities", "8"]) == 0
    assert "train_identities        4          -" in capsys.readouterr().out


@pytest.fixture
def market(tmp_path: Path) -> Path:
    names = (
        "bounding_box_train/0002_c1s1_1.png",
        "query/0001_c1s1_1.png",
        "bounding_box_test/0001_c2s1_1.png",
    )
    for name in names:
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    return tmp_path


def test_half_a_copy(market: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["datasets", "market1501", "--root", str(market)]) == 2
    shown = capsys.readouterr()
    assert shown.err == (
        f"reid datasets: the copy is not whole: market1501: train_identities must be 751, got 1 ({market}) "
        "(and 4 more)\n"
    )
    assert "gallery_images          1      19732" in shown.out


def test_damaged_images(market: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (market / "query" / "0001_c1s1_1.png").write_bytes(b"no image")
    assert main(["datasets", "market1501", "--root", str(market), "--decode"]) == 2
    assert "0001_c1s1_1.png is damaged or not an image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["market1502"], "unknown dataset 'market1502'; did you mean \"market1501\"?"),
        (["market1501"], "root must be a path for market1501, got None"),
        (["market1501", "--root", "gone"], "market1501: root must be a folder, got gone"),
        (["--root", "gone"], "NAME must be given with --root"),
        (["synthetic", "--options.identitis", "3"], 'did you mean "identities"?'),
    ],
)
def test_refusals(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["datasets", *words]) == 2
    assert message in capsys.readouterr().err


def test_benchmark_passes_its_words_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """From another folder: those of the checkout that reid_ops is built in, with their exit status."""
    monkeypatch.chdir(tmp_path)
    assert main(["benchmark", "part_corelation", "--quick"]) == 2
    assert "python -m benchmarks: unknown operator 'part_corelation'" in capfd.readouterr().err


def test_benchmark_without_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benchmark, "MARK", Path("benchmarks") / "not there")
    assert main(["benchmark", "--list"]) == 2
    shown = capsys.readouterr().err
    assert f"which only a checkout of the project has, is not in {tmp_path} or above" in shown
