"""Chromium without a window, for tests of pages."""

import contextlib
import importlib.util
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
_FOUND = {"chromium": CHROMIUM, "chromedriver": DRIVER, "selenium": importlib.util.find_spec("selenium")}
_MISSING = [name for name, found in _FOUND.items() if found is None]
needs_chromium = pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {', '.join(_MISSING)}")


def open_chromium(*, downloads: Path | None = None, flags: Sequence[str] = ()) -> Any:
    """Return a driver that keeps the console's log; selenium's own downloads are off."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1280,1000", *flags):
        options.add_argument(f"--{flag}")
    if downloads is not None:
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SE_OFFLINE", "true")
        return webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=str(DRIVER)))


def until(condition: Callable[[], Any], *, seconds: float = 60) -> Any:
    """Wait until `condition()` is true, and return what it returns; elements that went away are looked up again."""
    from selenium.common.exceptions import StaleElementReferenceException

    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(StaleElementReferenceException):
            if found := condition():
                return found
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def open_page(driver: Any, address: str, *, ready: str) -> None:
    """Load a page and wait until it shows an element that the selector `ready` finds.

    A blank page comes first: on a busy machine, the driver may answer for the page that it still shows.
    """
    driver.get("about:blank")
    driver.get(address)
    until(lambda: any(one.is_displayed() for one in driver.find_elements("css selector", ready)))
