"""The HTML page: alone, well formed, with nothing of its contents taken for markup."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from PIL import Image

from reid_models.report import Code, Picture, Report, Table, Text, plot_cmc

from .report_support import Page

HOSTILE = "<script>alert('x')</script>\"' onerror=\"alert(1)\" {{ 7*7 }} {% raw %}"


def png(width: int = 30, name: str = "png") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, 20), (1, 2, 3)).save(stream, name)
    return stream.getvalue()


def test_page() -> None:
    report = Report(
        "Baseline and HSGNet",
        [
            Table(
                ("method", "mAP"), [("baseline", 0.5), ("HSGNet", None)], "Results", "Percent.", decimals=2
            ),
            Text(["One.", "Two."], "Notes"),
            Picture(png(), "a rectangle", "Pictures", "Small."),
            Picture(plot_cmc({"a": [0.5, 1.0]}), "a curve"),
            Code("a: 1\n  b: <2>\n", "recipe", "Recipes"),
        ],
        subtitle="On Omniglot",
    )
    page = Page(report.to_html())
    page.check_alone()
    assert page.headings == ["Results", "Notes", "Pictures", "Recipes"]
    assert page.tables == [[["method", "mAP"], ["baseline", "0.50"], ["HSGNet", "–"]]]
    assert [image.size for image in page.images] == [(30, 20), (930, 600)]
    assert [values["alt"] for tag, values in page.tags if tag == "img"] == ["a rectangle", "a curve"]
    # A figure is as large as its inches say, however fine its pixels are.
    sizes = [(values["width"], values["height"]) for tag, values in page.tags if tag == "img"]
    assert sizes == [("30", "20"), ("595", "384")]
    assert "a: 1\n  b: <2>\n" in page.text
    links = [values["href"] for tag, values in page.tags if tag == "a"]
    assert links == [f"#{values['id']}" for tag, values in page.tags if tag == "h2"]
    assert len(set(links)) == 4
    assert "prefers-color-scheme: dark" in page.html and "color-scheme: light dark" in page.html
    assert report.to_html() == page.html  # the same again


def test_what_may_be_wider_than_the_screen_scrolls_by_keyboard_too() -> None:
    sections = [
        Table(("a",), [("x",)], "Results"),
        Table(("a",), [], caption="Sizes."),
        Picture(png(), "a dot"),
    ]
    page = Page(Report("Title", [*sections, Code("wide", "recipe")]).to_html())
    boxes = [values for tag, values in page.tags if values.get("class") == "scroll"]
    assert [box["aria-label"] for box in boxes] == ["Results", "Sizes.", "a dot"]
    assert all(box["role"] == "region" and box["tabindex"] == "0" for box in boxes)
    assert [values["tabindex"] for tag, values in page.tags if tag == "pre"] == ["0"]


def narrow_style(page: Page) -> str:
    """The rules for phones."""
    return page.html.partition("@media screen and (max-width: 40rem) {")[2].partition("\n}")[0]


def test_a_phone_shows_tables_as_cards() -> None:
    """Each cell below its row's name, behind its column's; what a table is stays known to screen readers."""
    page = Page(Report("Title", [Table(("method", "mAP", 'a "b"'), [("x", 0.5, 1)])]).to_html())
    cells = [values for tag, values in page.tags if tag == "td"]
    assert [cell["data-column"] for cell in cells] == ["mAP", 'a "b"']
    roles = {tag: values["role"] for tag, values in page.tags if tag in ("table", "tr", "td", "tbody")}
    assert roles == {"table": "table", "tr": "row", "td": "cell", "tbody": "rowgroup"}
    rules = narrow_style(page)
    assert "content: attr(data-column)" in rules and "tbody th, td { display: block" in rules


def test_a_phone_says_that_wide_figures_scroll() -> None:
    page = Page(Report("Title", [Picture(png(400), "wide"), Picture(png(300), "narrow")]).to_html())
    assert [values.get("class") for tag, values in page.tags if tag == "p"] == ["hint"]
    assert "Wider than this screen: scroll the figure sideways." in page.text
    assert ".hint { display: block; }" in narrow_style(page)
    assert page.html.count(".hint { display: none") == 1  # elsewhere


def test_a_phone_gets_the_narrow_figure() -> None:
    page = Page(Report("Title", [Picture(png(900), "panels", narrow=png(300))]).to_html())
    (source,) = [values for tag, values in page.tags if tag == "source"]
    assert source["media"] == "(max-width: 40rem)" and source["width"] == "300"
    assert (source["srcset"] or "").startswith("data:image/png;base64,")
    assert page.images[0].size == (900, 20) and "hint" not in [v.get("class") for _, v in page.tags]
    page.check_alone()


def test_long_cells_are_no_narrow_columns() -> None:
    page = Page(Report("Title", [Table(("a", "b", "c"), [("x", "words " * 9, "omniglot")])]).to_html())
    assert [values.get("class") for tag, values in page.tags if tag == "td"] == ["long", None]


def test_hostile_text_stays_text() -> None:
    report = Report(
        HOSTILE,
        [
            Text([HOSTILE], HOSTILE),
            Table((HOSTILE, "x"), [(HOSTILE, HOSTILE)], HOSTILE, HOSTILE),
            Picture(png(), HOSTILE, HOSTILE, HOSTILE),
            Code(f"</pre>{HOSTILE}", HOSTILE, HOSTILE),
        ],
        subtitle=HOSTILE,
    )
    page = Page(report.to_html())
    page.check_alone()
    assert page.headings == [HOSTILE] * 4
    assert page.tables == [[[HOSTILE, "x"], [HOSTILE, HOSTILE]]]
    assert [values["alt"] for tag, values in page.tags if tag == "img"] == [HOSTILE]
    assert f"</pre>{HOSTILE}" in page.text


def test_the_best_is_bold() -> None:
    table = Table(
        ("method", "mAP", "seconds"),
        [("a", 1.0, 5.0), ("b", 3.0, 4.0), ("c", 3.0, None), ("d", math.nan, 1)],
        best=("mAP",),
    )
    page = Page(Report("Title", [table]).to_html())
    assert page.bold == ["3.0", "3.0"]
    assert page.tables[0][-1] == ["d", "–", "1"]
    single = Table(("method", "mAP"), [("a", 1.0)], best=("mAP",))
    assert Page(Report("Title", [single]).to_html()).bold == []
    unknown = Table(("method", "mAP"), [("a", None), ("b", None)], best=("mAP",))
    assert Page(Report("Title", [unknown]).to_html()).bold == []


def test_a_page_of_one_section_has_no_list_of_sections() -> None:
    page = Page(Report("Title", [Text(["One."], "Notes")]).to_html())
    assert "nav" not in {tag for tag, _ in page.tags}


def test_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "report.html"
    Report("Größe 図 \udcff", [Text(["x"])]).write_html(file)
    html = file.read_text(encoding="utf-8")
    Page(html).check_alone()
    assert "<title>Größe 図 ?</title>" in html
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    monkeypatch.setattr(Path, "write_bytes", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Report("Other", []).write_html(file)
    assert file.read_text(encoding="utf-8") == html
    with pytest.raises(FileNotFoundError, match="must be in a folder that exists"):
        Report("Title", []).write_html(tmp_path / "none" / "report.html")


@pytest.mark.parametrize("name", ["png", "jpeg", "webp", "gif"])
def test_pictures_of_files(name: str) -> None:
    uri, *size = Picture(png(17, name), "x").shown
    assert uri.startswith(f"data:image/{name};base64,") and size == [17, 20]


def test_bad_sections() -> None:
    with pytest.raises(ValueError, match="must be an image file's bytes"):
        Picture(b"<svg onload='alert(1)'/>", "x")
    with pytest.raises(ValueError, match="got 8 others"):
        Picture(png(), "x", narrow=b"no image")
    with pytest.raises(ValueError, match="got BMP"):
        Picture(png(3, "bmp"), "x")
    with pytest.raises(ValueError, match="description must say"):
        Picture(png(), "")
    with pytest.raises(ValueError, match="rows must have 2 cells, got 1"):
        Table(("a", "b"), [("x",)])
    with pytest.raises(ValueError, match="best must be of a, b, got 'c'"):
        Table(("a", "b"), [], best=("c",))
