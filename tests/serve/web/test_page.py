"""The page in headless Chromium: type, hover, play, filter, more like this, upload, export, keys."""

import pytest
from headless import needs_chromium, open_chromium, open_page, until

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """Chromium without a window; selenium's own downloads are off."""
    downloads = tmp_path_factory.mktemp("downloads")
    fake = ("use-fake-device-for-media-stream", "use-fake-ui-for-media-stream")  # a camera, a microphone, a nod
    made = open_chromium(downloads=downloads, flags=fake)
    made.downloads = downloads
    yield made
    made.quit()


@pytest.fixture
def page(driver, address):
    """The freshly opened page; at the end its console must be empty: no error, nothing that the policy refused."""
    open_page(driver, address, ready="#form")
    yield driver
    assert driver.get_log("browser") == []


def type_in(page, text):
    field = page.find_element("id", "text")
    field.clear()
    before = page.find_element("id", "status").text
    field.send_keys(text + "\n")
    until(lambda: " of 30 moments in " in page.find_element("id", "status").text)
    return before


def names(page):
    return [one.text for one in page.find_elements("css selector", ".hit .name")]


def set_fold(page, on):
    box = page.find_element("id", "fold")
    if box.is_selected() != on:
        box.click()


def test_a_query_shows_its_film(page):
    set_fold(page, False)
    until(lambda: page.find_element("id", "about").text.startswith("8 files · 30 moments"))
    type_in(page, "grey 230")
    assert names(page)[0] == "grey230.mp4" and len(names(page)) == 8
    picture = page.find_element("css selector", ".hit img")
    until(lambda: page.execute_script("return arguments[0].naturalWidth", picture) > 10)
    ramp = names(page).index("ramp.mp4")
    assert len(page.find_elements("css selector", f".hit:nth-child({ramp + 1}) .strip rect")) == 23


def test_hits_play_on_hover_and_on_enter(page):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    set_fold(page, False)
    type_in(page, "grey 160")
    ramp = next(one for one in page.find_elements("css selector", ".hit") if "ramp.mp4" in one.text)
    ActionChains(page).move_to_element(ramp.find_element("css selector", ".view")).perform()
    script = "const v = arguments[0].querySelector('video'); return v && v.currentTime"
    until(lambda: (page.execute_script(script, ramp) or 0) > 28)  # of 48 seconds: the moment, not the beginning
    ramp.find_element("css selector", ".view").send_keys(Keys.ENTER)
    until(lambda: page.find_element("id", "player").is_displayed())
    assert page.find_element("id", "playing").text == "ramp.mp4"
    until(lambda: (page.execute_script(script, page.find_element("id", "stage")) or 0) > 28)
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    until(lambda: not page.find_element("id", "player").is_displayed())


def test_filters_and_look_alikes(page):
    from selenium.webdriver.support.select import Select

    set_fold(page, False)
    type_in(page, "grey 90")
    everything = names(page)
    set_fold(page, True)
    until(lambda: len(names(page)) < len(everything))
    same = page.find_elements("css selector", ".same")[0]
    count = int(same.text.split()[0])
    before = len(names(page))
    same.click()
    assert len(names(page)) == before + count
    Select(page.find_element("id", "within")).select_by_value("transcript")
    until(lambda: names(page) == ["ramp.mp4"])


def test_more_like_this_and_not(page):
    set_fold(page, False)
    type_in(page, "grey 70")
    place = names(page).index("grey190.mp4")
    page.find_elements("css selector", ".more")[place].click()
    until(lambda: names(page)[:1] == ["grey190.mp4"])
    assert "like grey190.mp4" in page.find_element("id", "terms").text
    page.find_element("css selector", "#terms button").click()
    until(lambda: "names only what to avoid" in page.find_element("id", "status").text)
    page.find_elements("css selector", "#terms button")[1].click()
    until(lambda: not page.find_elements("css selector", "#terms li") and not names(page))
    page.get_log("browser")  # the refused search is in it


def test_a_file_is_looked_for(page, films):
    set_fold(page, False)
    page.find_element("id", "file").send_keys(str(films / "short" / "grey150.mp4"))
    until(lambda: names(page)[:1] == ["grey150.mp4"])
    assert "grey150.mp4" in page.find_element("id", "terms").text


@pytest.mark.parametrize("kind", ["clip", "sound"])
def test_recordings_are_looked_for(page, kind):
    set_fold(page, False)
    button, view = page.find_element("id", f"record-{kind}"), page.find_element("id", "viewfinder")
    until(button.is_displayed)
    button.click()
    until(lambda: button.text == "Stop (0:01)" and button.get_attribute("aria-pressed") == "true")
    if kind == "clip":
        assert page.execute_script("return arguments[0].videoWidth", view) > 0
    button.click()
    until(lambda: len(names(page)) == (8 if kind == "clip" else 6))  # two files have no sound
    assert f"like recorded {kind}.webm" in page.find_element("id", "terms").text
    assert button.text == f"Record {kind}" and not view.is_displayed()
    assert page.execute_script("return arguments[0].srcObject", view) is None  # the camera is off


def test_no_recording_without_support_or_permission(page, address):
    button = page.find_element("id", "record-clip")
    until(button.is_displayed)
    refuse = "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('no', 'NotAllowedError'); };"
    page.execute_script(refuse)
    button.click()
    status = page.find_element("id", "status")
    until(lambda: status.text == "Cannot record a clip: the browser was not allowed to.")
    assert button.text == "Record clip" and "bad" in status.get_attribute("class")
    hidden = {"source": "delete globalThis.MediaRecorder"}
    script = page.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", hidden)
    try:
        open_page(page, address, ready="#form")
        until(lambda: page.find_element("id", "about").text)
        assert not page.find_element("id", "record-clip").is_displayed()
        assert not page.find_element("id", "record-sound").is_displayed()
    finally:
        page.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def test_a_bad_file_is_a_message(page, films):
    page.find_element("id", "file").send_keys(str(films / "notes.txt"))
    status = page.find_element("id", "status")
    until(lambda: "notes.txt cannot be looked for" in status.text)
    assert "bad" in status.get_attribute("class")
    page.get_log("browser")


def test_hits_are_saved(page):
    from selenium.webdriver.support.select import Select

    type_in(page, "grey 30")
    Select(page.find_element("id", "form-of")).select_by_value("csv")
    file = page.downloads / "twinreel.csv"
    until(file.is_file)
    assert file.read_text().startswith("rank,score,path")


def test_keys(page):
    from selenium.webdriver.common.keys import Keys

    set_fold(page, False)
    type_in(page, "grey 30")
    page.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    first = page.switch_to.active_element
    assert first.get_attribute("data-place") == "0"
    first.send_keys(Keys.ARROW_RIGHT)
    assert page.switch_to.active_element.get_attribute("data-place") == "1"
    page.switch_to.active_element.send_keys("/")
    assert page.switch_to.active_element.get_attribute("id") == "text"


def test_a_narrow_screen_has_no_sideways_scrolling(page):
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    )
    try:
        type_in(page, "grey 30")
        assert page.execute_script("return document.documentElement.scrollWidth") <= 360
        columns = "return getComputedStyle(document.getElementById('hits')).gridTemplateColumns.split(' ').length"
        assert page.execute_script(columns) == 2
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_map_shows_and_plays_moments(page):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    set_fold(page, False)
    type_in(page, "grey 230")
    page.find_element("id", "show-map").click()
    about = page.find_element("id", "map-about")
    until(lambda: "30 moments" in about.text and "t-SNE" in about.text)  # the better map came by itself
    canvas, tip = page.find_element("id", "map-canvas"), page.find_element("id", "map-tip")
    painted = (
        "const c = arguments[0]; return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v)"
    )
    assert page.execute_script(painted, canvas)
    canvas.send_keys(Keys.ARROW_RIGHT)
    until(lambda: tip.is_displayed() and tip.text)
    seen = {tip.get_attribute("data-moment")}
    picture = tip.find_element("css selector", "img")
    until(lambda: page.execute_script("return arguments[0].naturalWidth", picture) > 10)
    for key in (Keys.ARROW_LEFT, Keys.ARROW_RIGHT, Keys.ARROW_UP, Keys.ARROW_DOWN):
        canvas.send_keys(key)
        seen.add(tip.get_attribute("data-moment"))
    assert len(seen) > 1 and tip.text in canvas.get_attribute("aria-label")
    name = tip.text
    canvas.send_keys(Keys.ENTER)
    until(lambda: page.find_element("id", "player").is_displayed())
    assert page.find_element("id", "playing").text == name
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    until(lambda: not page.find_element("id", "player").is_displayed())
    box = "const r = arguments[0].getBoundingClientRect(), c = document.getElementById('map-canvas')"
    box += ".getBoundingClientRect(); return [r.left - c.left, c.right - r.right, r.width]"
    assert min(page.execute_script(box, tip)[:2]) >= -1
    canvas.send_keys(Keys.ESCAPE)
    assert not tip.is_displayed()
    ActionChains(page).move_to_element(canvas).perform()  # the pointer finds none or one, and nothing breaks
    page.find_element("id", "show-map").click()
    assert not canvas.is_displayed()


def test_hits_are_kept_in_a_named_collection(page):
    from selenium.webdriver.support.select import Select

    set_fold(page, False)
    type_in(page, "grey 70")
    page.find_element("id", "show-kept").click()
    page.find_element("id", "kept-name").send_keys("Dark ones\n")
    wanted = names(page)[:2]
    for button in page.find_elements("css selector", ".keep")[:2]:
        button.click()
        button.click()  # once is enough
    kept = [one.text.split(" · ")[0] for one in page.find_elements("css selector", "#kept-list span")]
    assert kept == wanted and page.find_element("id", "show-kept").text == "Collections (2)"
    Select(page.find_element("id", "kept-as")).select_by_value("csv")
    file = page.downloads / "Dark ones.csv"
    until(file.is_file)
    assert [line.split(",")[2].rpartition("/")[2] for line in file.read_text().splitlines()[1:]] == wanted
    page.refresh()  # another visit
    until(lambda: page.find_element("id", "show-kept").text == "Collections (2)")
    page.find_element("id", "show-kept").click()
    page.find_elements("css selector", "#kept-list button")[0].click()
    assert [one.text.split(" · ")[0] for one in page.find_elements("css selector", "#kept-list span")] == wanted[1:]
    page.find_element("id", "kept-drop").click()
    assert page.find_element("id", "show-kept").text == "Collections"
    assert page.find_element("id", "kept-none").is_displayed()
