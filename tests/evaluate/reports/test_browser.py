"""The page in headless Chromium: what a reader sees, clicks and types."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from fakes import embeddings, frames
from headless import needs_chromium, open_chromium, open_page

from twinreel.evaluate import results
from twinreel.evaluate.reports import browser, gallery
from twinreel.evaluate.reports.rank_file import read_ranks

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report of 24 clips with 48 captions, its embeddings and its ranks of text to video."""
    folder, fake = tmp_path_factory.mktemp("browser") / "report", embeddings(noise=2.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gallery, "clip_frames", frames)
        results.write(fake, out=folder, records=object())
    return folder, fake, read_ranks(folder / "ranks.npz")[0]


@pytest.fixture(scope="module")
def driver():
    """Chromium without a window; selenium's own downloads are off."""
    made = open_chromium()
    yield made
    made.quit()


@pytest.fixture
def page(report, driver):
    """The freshly opened page; at the end its console must be empty."""
    folder, *_ = report
    open_page(driver, (folder / "index.html").as_uri(), ready="#queries .query")
    yield driver
    assert driver.get_log("browser") == []


def seen(page, selector):
    """The texts of the visible elements."""
    return [one.text for one in page.find_elements("css selector", selector) if one.is_displayed()]


def captions(page):
    return [text.strip("“”") for text in seen(page, "#queries .query q")]


def tab(page, name):
    (button,) = (one for one in page.find_elements("css selector", "[role=tab]") if one.text == name)
    button.click()


def test_the_browser_takes_the_place_of_the_examples(page):
    assert "Queries" in seen(page, "h2")
    assert not {"Example queries", "Worst queries"} & set(seen(page, "h2"))
    assert seen(page, "#found") == ["48 queries, by rank of the right clip, worst first."]


def test_the_worst_queries_come_first(page, report):
    _, fake, ranks = report
    worst = max(range(48), key=lambda query: ranks.expected[query])
    assert captions(page)[0] == fake.captions[worst]
    assert seen(page, "#queries .rank")[0] == f"rank {ranks.expected[worst]:.0f}"
    shown = [float(text.removeprefix("rank ")) for text in seen(page, "#queries .rank")]
    assert shown == sorted(ranks.expected, reverse=True)[:10]


def test_tabs_change_the_order(page, report):
    _, fake, ranks = report
    tab(page, "Best")
    assert set(seen(page, "#queries .rank")) == {"rank 1"}
    tab(page, "Most confused")
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (fake.text, fake.video)]
    scores, own = unit[0] @ unit[1].T, fake.video_of_text
    right = scores[np.arange(48), own]
    wrong = np.where(np.arange(24) == own[:, None], -9, scores).max(axis=1)
    assert captions(page)[0] == fake.captions[int(np.argmax(wrong - right))]
    tab(page, "Random")
    first = captions(page)
    assert [fake.captions[query] for query in browser.choose_queries(ranks, most=100)[:10]] == first


def test_the_keyboard_moves_between_tabs(page):
    from selenium.webdriver.common.keys import Keys

    page.find_element("id", "order-worst").send_keys(Keys.ARROW_RIGHT)
    assert page.switch_to.active_element.text == "Best"
    assert page.find_element("id", "order-best").get_attribute("aria-selected") == "true"
    page.switch_to.active_element.send_keys(Keys.END)
    assert page.switch_to.active_element.text == "Random"


def test_a_filter_reduces_the_list_at_once(page):
    field = page.find_element("id", "filter")
    field.send_keys("CLIP> 13")
    assert sorted(captions(page)) == ["caption 0 of <clip> 13 & more", "caption 1 of <clip> 13 & more"]
    assert seen(page, "#found")[0].startswith("2 of 48 queries")
    field.send_keys(" nowhere")
    assert captions(page) == [] and "No caption has all of these words" in seen(page, "#queries p")[0]
    field.clear()
    field.send_keys(" ")
    assert len(captions(page)) == 10


def test_pages_turn(page):
    first = captions(page)
    assert seen(page, "#pages") == ["of 5"] and not page.find_element("id", "previous").is_enabled()
    page.find_element("id", "next").click()
    second = captions(page)
    assert len(second) == 10 and not set(first) & set(second)
    field = page.find_element("id", "page")
    field.clear()
    field.send_keys("5\n")
    assert len(captions(page)) == 8 and not page.find_element("id", "next").is_enabled()
    page.find_element("id", "previous").click()
    assert page.find_element("id", "page").get_attribute("value") == "4"


def test_thumbnails_are_loaded(page):
    page.find_element("id", "queries").location_once_scrolled_into_view  # noqa: B018
    picture = page.find_element("css selector", "#queries img")
    wide = "const i = arguments[0], done = arguments[1]; const go = () => done(i.naturalWidth); "
    assert page.execute_async_script(wide + "i.complete ? go() : i.addEventListener('load', go)", picture) == 64


def test_without_scripts_the_page_shows_its_examples(report, driver):
    folder, *_ = report
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        open_page(driver, (folder / "index.html").as_uri(), ready="footer")
        heads = seen(driver, "h2")
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert {"Example queries", "Worst queries", "Groups"} <= set(heads) and "Queries" not in heads


def test_without_its_data_the_page_shows_its_examples(report, driver, tmp_path):
    folder, *_ = report
    shutil.copy(folder / "index.html", tmp_path)
    open_page(driver, Path(tmp_path / "index.html").as_uri(), ready="footer")
    assert {"Example queries", "Worst queries"} <= set(seen(driver, "h2")) and "Queries" not in seen(driver, "h2")
    driver.get_log("browser")  # what is missing is logged there
