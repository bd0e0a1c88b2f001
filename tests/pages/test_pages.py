"""The pages of a report, in a real browser, from disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.browsed_runs import make_repeated_run, make_run, report_on
from tests.support.browser import NARROW, WIDE, Scheme, Tab, open_tab
from tests.support.cli import Evalkit

AXE = Path(__file__).parents[2] / "frontend/node_modules/axe-core/axe.min.js"
EVERY = (
    "#/",
    "#/runs/after",
    "#/runs/after?tab=statistics",
    "#/runs/after?tab=config",
    "#/runs/after/i/clock-1",
    "#/runs/after/i/clock-1?tab=trajectory",
    "#/runs/after/i/clock-1?tab=logs",
    "#/runs/after/i/clock-1?tab=facts",
    "#/compare/before/after",
    "#/compare/before/after?i=clock-1",
)


def shown(tab: Tab, address: str, fragment: str) -> None:
    tab.open(f"{address}{fragment}")
    tab.page.wait_for_function("() => !document.querySelector('.loading')")


def test_the_first_page_lists_the_runs(tab: Tab, address: str) -> None:
    tab.open(address)

    assert tab.texts("td.run-name .id") == ["after", "before"]
    rates = tab.texts("td.rate-cell .rate")
    assert len(rates) == 2
    assert all("%" in rate and "–" in rate for rate in rates)


def test_a_report_of_one_run_opens_with_it(tab: Tab, tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "alone", ["a-1", "a-2"], {"a-1"})

    tab.open(report_on(tmp_path / "report", run))

    tab.page.wait_for_selector(".card-rate")
    assert tab.ids == ["a-1", "a-2"]


def test_a_run_says_at_the_top_what_matters(tab: Tab, address: str) -> None:
    shown(tab, address, "#/runs/after")

    top = tab.page.inner_text(".cards")
    assert "95 %" in top
    assert "n = " in top
    assert "selected" in top, "the bounds over all instances, since some are not graded"
    assert tab.texts(".card .gained") == ["+9"]
    assert tab.texts(".card .lost") == ["−3"]
    assert "killed at" in tab.page.inner_text(".failures")


def test_filters_search_and_order_are_in_the_address(tab: Tab, address: str) -> None:
    shown(tab, address, "#/runs/after")

    tab.page.click(".chip:has-text('unresolved')")
    tab.page.fill("#search", "parser")
    tab.page.wait_for_function("() => location.hash.includes('q=parser')")
    tab.page.click("[role=columnheader] button:has-text('Cost')")
    wanted = tab.ids

    assert wanted
    assert all(name.startswith("parser") for name in wanted)
    assert "b=unresolved" in tab.fragment
    assert "sort=-cost" in tab.fragment
    tab.page.reload()
    tab.page.wait_for_selector(".grid-row .col-id a")
    assert tab.ids == wanted
    assert tab.page.input_value("#search") == "parser"


def test_the_search_looks_in_statements(tab: Tab, address: str) -> None:
    shown(tab, address, "#/runs/after?q=do+clock-7")
    tab.page.wait_for_function("() => !document.body.innerText.includes('searching')")

    assert tab.ids == ["clock-7"]


def test_statements_begin_beside_the_ids_where_there_is_room(browser: Any, address: str) -> None:
    with open_tab(browser, size=WIDE) as tab:
        shown(tab, address, "#/runs/after?q=clock-7")
        tab.page.wait_for_selector(".begins")
        assert tab.texts(".begins")[0].lower().startswith("do clock-7")
        tab.page.set_viewport_size({"width": NARROW[0], "height": NARROW[1]})
        tab.page.wait_for_function("() => !document.querySelector('.begins')")


def test_keys_walk_the_table_and_come_back_to_their_place(tab: Tab, address: str) -> None:
    shown(tab, address, "#/runs/after?b=unresolved,error")
    second, third = tab.ids[1:3]

    tab.press("j", "j", "Enter")
    tab.page.wait_for_selector("h1.id")
    assert tab.page.inner_text("h1.id") == second
    tab.press("ArrowRight")
    tab.page.wait_for_function("name => document.querySelector('h1.id')?.innerText === name", arg=third)
    tab.press("Escape")
    tab.page.wait_for_selector(".grid-row[aria-selected=true]")

    assert tab.texts(".grid-row[aria-selected=true] .col-id a") == [third]
    assert "b=unresolved,error" in tab.fragment
    tab.press("/")
    assert tab.page.evaluate("document.activeElement.id") == "search"
    tab.press("Escape", "?")
    assert tab.page.is_visible("dialog[open]")


def test_an_instance_shows_its_failing_tests_before_the_output(tab: Tab, address: str) -> None:
    shown(tab, address, "#/runs/before/i/clock-1")
    tab.page.wait_for_selector(".ansi-1")

    headings = tab.texts("main h2")
    assert headings.index("Failing tests1") < headings.index("Test output")
    assert "test_clock.py::test_hour" in tab.page.inner_text(".tests")
    assert tab.texts(".long-text .ansi-1") == ["FAILED"]
    assert tab.texts(".diff-add .code")[1].strip() == "return minutes * 60"
    assert "return" in tab.texts(".diff-add .word-keyword")
    assert tab.texts(".copy code")[0].startswith("evalkit infer")


def test_a_trajectory_is_read_step_by_step(tab: Tab, address: str) -> None:
    shown(tab, address, "#/runs/after/i/clock-1?tab=trajectory")
    tab.page.wait_for_selector(".call")

    assert "pytest -k 1" in tab.texts(".call")[0]
    tab.press("e")
    tab.page.wait_for_selector(".step-current.step-error")
    tab.page.fill("#search", "pytest -k 6")
    tab.page.wait_for_selector("mark")
    assert "1 found" in tab.page.inner_text(".trajectory-bar")
    assert "find=pytest" in tab.fragment


def test_runs_are_compared_with_their_flips_first(tab: Tab, address: str) -> None:
    tab.open(address)
    for box in tab.page.locator("td.tick input").all():
        box.check()
    tab.page.click("button:has-text('Compare 2 runs')")
    tab.page.wait_for_selector(".difference-figures")
    tab.page.wait_for_selector(".grid-row .col-id a")

    figures = tab.page.inner_text(".difference-figures")
    assert "p = " in figures
    assert "points" in figures
    assert len(tab.ids) == 9 + 3, "only what differs, at first"
    tab.page.click(".grid-row .col-id a >> nth=0")
    tab.page.wait_for_selector(".side-by-side .call")
    assert len(tab.texts(".side-by-side .trajectory")) == 2


def test_repeats_and_several_runs_are_compared_as_on_the_command_line(
    tab: Tab, tmp_path: Path, evalkit: Evalkit
) -> None:
    """Of several attempts half must resolve an instance, in the figures and in the grid; p-values are corrected."""
    names = [f"task-{number}" for number in range(12)]
    shares = {"first": [0, 1, 2, 4] * 3, "second": [4] * 10 + [1, 0], "third": [1, 2] * 6}
    runs = [
        make_repeated_run(
            tmp_path / "runs" / name,
            {
                task: [None, *(attempt < share for attempt in range(4))]
                for task, share in zip(names, resolved, strict=True)
            },
        )
        for name, resolved in shares.items()
    ]
    told = evalkit("compare", *runs).document["comparisons"]
    shown(tab, report_on(tmp_path / "report", *runs), "#/compare/first/second/third")
    tab.page.wait_for_selector(".difference-figures:has-text('Holm') >> nth=1")

    for figures, comparison in zip(tab.texts(".difference-figures"), told, strict=True):
        assert f"p = {comparison['test']['p_value']:.2g} after Holm" in " ".join(figures.split())
        assert f"↑ {comparison['only_b']} gained" in " ".join(figures.split())
        assert f"↓ {comparison['only_a']} lost" in " ".join(figures.split())
    flips = {name for each in told for kind in ("only_a", "only_b") for name in each["ids"][kind]}
    assert set(tab.ids) == flips
    tab.page.click("button:has-text('all')")
    row = tab.page.inner_text(".grid-row:has(a[title='task-1'])").split("\n")
    assert [" ".join(each.split()) for each in row if "%" in each] == ["25 % of 4", "100 % of 4", "50 % of 4"]


@pytest.mark.parametrize("header", ["diff --git a/a b/c.py b/a b/c.py", "diff --git b/a b/c.py b/a b/c.py"])
def test_a_file_of_a_patch_is_named_once(tab: Tab, tmp_path: Path, header: str) -> None:
    run = make_run(tmp_path / "runs" / "one", ["a-1"], {"a-1"})
    patch = f"{header}\nnew file mode 100644\n--- /dev/null\n+++ b/a b/c.py\n@@ -0,0 +1 @@\n+0\n"
    (run / "instances" / "a-1" / "attempt-1" / "patch.diff").write_text(patch)
    shown(tab, report_on(tmp_path / "report", run), "#/runs/one/i/a-1")
    tab.page.wait_for_selector(".diff")
    assert tab.page.inner_text(".diff").count("c.py") == 1


def test_settings_that_differ_are_compared(tab: Tab, tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "runs" / name, ["a-1", "a-2"], {"a-1"}) for name in ("before", "after")]
    manifest = json.loads((runs[1] / "run.json").read_text())
    manifest["config"]["run"]["critic"] = "graded"
    (runs[1] / "run.json").write_text(json.dumps(manifest))

    shown(tab, report_on(tmp_path / "report", *runs), "#/compare/before/after")
    tab.page.wait_for_selector(".settings")

    assert "1 setting differs" in tab.page.inner_text("main")
    assert tab.page.inner_text(".settings tbody").split() == ["run.critic", "pass", "graded"]


def test_an_output_with_failures_that_no_grader_names_shows_them_first(tab: Tab, tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "alone", ["a-1", "a-2"], {"a-2"})
    attempt = run / "instances" / "a-1" / "attempt-1"
    (attempt / "report.json").unlink()
    (attempt / "test_output.txt").write_text("test_one ... ok\n\x1b[31mFAIL: test_two (Clock)\x1b[0m\nTraceback\n")

    shown(tab, report_on(tmp_path / "report", run), "#/runs/alone/i/a-1")
    tab.page.wait_for_selector(".tests")

    assert tab.page.inner_text(".tests").split("\n") == ["✗ FAIL: test_two (Clock)"]


def test_stages_are_shown_for_each_bucket(tab: Tab, address: str) -> None:
    shown(tab, address, "#/runs/after?tab=statistics")

    assert tab.texts(".stage-rows th") == ["resolved", "unresolved", "error"]


def test_scores_are_shown_over_cost_and_time_with_their_data(tab: Tab, address: str) -> None:
    shown(tab, address, "#/compare/before/after")
    tab.page.wait_for_selector(".dot")

    titles = tab.texts(".figure-title")
    assert titles == ["Cost and rate", "Resolved over cost", "Resolved over time"]
    tab.page.click("figcaption button >> nth=0")
    assert len(tab.texts(".figure-data tbody tr")) == 2


def test_the_theme_follows_the_system_and_the_switch(browser: Any, address: str) -> None:
    def background(tab: Tab) -> str:
        return str(tab.page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))

    with open_tab(browser) as light, open_tab(browser, scheme="dark") as dark:
        light.open(address)
        dark.open(address)
        by_system = background(light), background(dark)
        assert by_system[0] != by_system[1]
        dark.page.click("button:has-text('auto')")
        assert background(dark) == by_system[0]


@pytest.mark.slow
@pytest.mark.parametrize("size", [NARROW, WIDE, (2560, 1300)], ids=["narrow", "wide", "huge"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_page_is_accessible_and_fits(browser: Any, address: str, size: tuple[int, int], scheme: Scheme) -> None:
    if not AXE.exists():
        pytest.skip("axe-core is not installed: npm ci in frontend/")
    for fragment in EVERY:
        with open_tab(browser, size=size, scheme=scheme) as tab:
            shown(tab, address, fragment)
            assert tab.page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), (
                fragment
            )
            # The policy of the pages forbids scripts in the page, but not those of a debugger.
            tab.page.evaluate(AXE.read_text())
            found = tab.page.evaluate("axe.run(document, {resultTypes: ['violations'], preload: false})")
            assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == [], fragment


def test_a_missing_document_is_named(browser: Any, tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "alone", ["a-1", "a-2"], {"a-1"})
    address = report_on(tmp_path / "report", run)
    (tmp_path / "report/data/runs/alone/i/a-1.js").unlink()
    context = browser.new_context()
    page = context.new_page()

    page.goto(f"{address}#/runs/alone/i/a-1")
    page.wait_for_selector(".problem")

    assert "runs/alone/i/a-1" in page.inner_text(".problem")
    context.close()
