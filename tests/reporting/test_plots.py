from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from simulated_month import CONFIDENCE, chunks, month_question, reported_month

from annserve.domain.errors import InputError
from annserve.reporting.plots import undrawn, write_plot
from annserve.reporting.report import Report, report


@pytest.fixture(scope="module")
def month() -> Report:
    return asyncio.run(reported_month(1, 100))


def test_a_plot_is_a_picture_of_every_placement(month: Report, tmp_path: Path) -> None:
    write_plot(month, tmp_path / "month.png", "December", CONFIDENCE)
    write_plot(month, tmp_path / "month.svg", "December", CONFIDENCE)

    assert (tmp_path / "month.png").read_bytes().startswith(b"\x89PNG")
    svg = (tmp_path / "month.svg").read_text(encoding="utf-8")
    for said in ("December", "popup: taste", "home: taste", "personalize", "related", "impressions"):
        assert said in svg


def test_placements_without_similarities_are_told_from_those_that_are_drawn(month: Report) -> None:
    unlike = [cell for cell in month.cells if cell.placement != "home" or not cell.by or cell.by == ("mode",)]

    assert undrawn(month) == []
    assert undrawn(replace(month, cells=tuple(unlike))) == ["home"]


def test_a_page_needs_nothing_else_and_escapes_its_title(month: Report, tmp_path: Path) -> None:
    write_plot(month, tmp_path / "month.html", "<December>", CONFIDENCE)

    page = (tmp_path / "month.html").read_text(encoding="utf-8")
    assert "<h1>&lt;December&gt;</h1>" in page
    assert "<svg" in page
    assert "<script" not in page
    assert "src=" not in page


def test_another_suffix_is_refused(month: Report, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.png, \.svg, \.html"):
        write_plot(month, tmp_path / "month.gif", "", CONFIDENCE)


def test_nothing_to_plot_is_said(tmp_path: Path) -> None:
    empty = asyncio.run(report(chunks([]), month_question()))

    with pytest.raises(InputError, match="nothing to plot: there are no impressions"):
        write_plot(empty, tmp_path / "empty.png", "", CONFIDENCE)
