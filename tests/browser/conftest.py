"""A headless Chromium: Debian's, driven by Playwright. Where it is not installed it is downloaded
with what it needs, and unpacked below .venv/debian.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests import packages

PLACES = (packages.ROOT / "usr/lib/chromium/chromium", Path("/usr/lib/chromium/chromium"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Skips where there is none to be had. Ends with the module: its driver keeps an event loop
    running in this thread, beside which no other test could run one.
    """
    packages.fetch("chromium", "fonts-dejavu-core")
    place = next((place for place in PLACES if place.exists()), None)
    if place is None:
        pytest.skip("no chromium on this machine")
    environment = dict(os.environ)
    if place.is_relative_to(packages.ROOT):
        environment |= packages.environment()
        fonts = packages.ROOT / "etc/fonts"
        environment |= {"FONTCONFIG_PATH": str(fonts)} if fonts.exists() else {}
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=place, env=environment, args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        chromium.close()
