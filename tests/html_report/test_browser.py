"""The page in a real browser: no error, nothing loaded, and what is there can be used, by keyboard too."""

import os
from pathlib import Path

import pytest

from jdet.config import get_defaults
from jdet.html_report.write import write
from tests.html_report import chromium, made_run

pytestmark = pytest.mark.skipif(
    chromium.find() is None, reason=f"none of {', '.join(chromium.NAMES)} is on PATH"
)

VISIBLE = """[...document.querySelectorAll('#images .grid-of-images rect.KIND')].filter(
    (one) => one.getClientRects().length).length"""
SLIDE = """(() => { const one = document.getElementById('score'); one.value = VALUE;
    one.dispatchEvent(new Event('input')); })()"""


# The least contrast of text with what is behind it, by the formula of WCAG 2.1.
CONTRAST = """(() => {
    const light = (color) => {
        const whole = color.startsWith('rgb') ? 255 : 1;
        const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map((x) => x / whole).map(
            (x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (node) => {
        for (; node; node = node.parentElement) {
            const color = getComputedStyle(node).backgroundColor;
            if (!color.endsWith(', 0)')) return color;
        }
    };
    const texts = document.querySelectorAll('p, h1, h2, td, th, a, li, dt, dd, summary, label');
    return Math.min(...[...texts].map((node) => {
        const pair = [light(getComputedStyle(node).color), light(behind(node))];
        return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    }));
})()"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    config = get_defaults()
    config.class_names = made_run.NAMES
    scenes = [made_run.scene(i, masks=True) for i in range(30)]
    return write(folder, source=made_run.evaluated(folder, config, scenes)), folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory, run):
    opened = chromium.Browser(tmp_path_factory.mktemp("profile"))
    opened.size(1280, 900)
    opened.open(run[0])
    opened.painted()
    yield opened
    opened.close()


def slide(browser, value):
    browser.run(SLIDE.replace("VALUE", str(value)))
    browser.painted()


def show_all(browser):
    browser.run("document.querySelector('#images > button:last-child').click()")


def count(browser, kind):
    return browser.run(VISIBLE.replace("KIND", kind))


def test_it_loads_and_every_image_appears(browser):
    shown = browser.run(
        "[...document.querySelectorAll('.grid-of-images img')].map(i => [i.naturalWidth, i.alt])"
    )
    assert len(shown) == 24 and all(width == 80 and alt for width, alt in shown)
    show_all(browser)
    assert browser.run("document.querySelectorAll('.grid-of-images img').length") == 30
    sections = browser.run("[...document.querySelectorAll('main > section')].map(s => s.id)")
    assert sections == [
        *("classes", "errors", "images", "calibration", "sizes", "labels", "curves", "data"),
        *("config", "cost"),
    ]
    assert browser.run("document.querySelectorAll('.plot svg path.line').length") >= 6
    assert made_run.HOSTILE in browser.run("document.getElementById('classes').textContent")
    assert browser.errors == []


def test_the_slider_shows_and_hides_boxes_and_counts_follow(browser):
    show_all(browser)
    counted = {}
    for value in (0.0, 0.5, 1.0):
        slide(browser, value)
        counted[value] = [count(browser, kind) for kind in ("found", "false", "missed")]
    # Of three objects in each of 30 images 7 are ignored; two detections of each are false.
    assert counted[0.0] == [83, 60, 0]
    assert counted[0.5] == [60, 0, 23] and counted[1.0] == [0, 0, 83]
    slide(browser, 0.5)
    text = browser.run("document.getElementById('counts').textContent")
    assert "60 of 83 objects found (recall 72.3 %), 0 false detections (precision 100.0 %)" in text
    assert "2 found, 0 false, 1 missed" in browser.run(
        "document.querySelector('.tally').textContent"
    )
    assert browser.errors == []


def test_tables_sort_by_keyboard(browser):
    first = "document.querySelector('#classes tbody th').textContent"
    browser.run(
        "[...document.querySelectorAll('#classes thead button')].find(b => b.textContent === 'AP').focus()"
    )
    browser.press("Enter")
    state = "document.activeElement.closest('th').getAttribute('aria-sort')"
    one = browser.run(first), browser.run(state)
    browser.press("Enter")
    other = browser.run(first), browser.run(state)
    assert {one[1], other[1]} == {"ascending", "descending"} and one[0] != other[0]
    last = browser.run("[...document.querySelectorAll('#classes tbody th')].at(-1).textContent")
    assert last == made_run.NAMES[2]  # whose AP is not known, either way
    browser.run("document.querySelector('#curves .plot').focus()")
    browser.press("End")
    assert browser.run("document.querySelector('#curves .readout').textContent").startswith(
        "step 200"
    )


def test_an_image_opens_large_and_closes_by_keyboard(browser):
    slide(browser, 0.3)
    browser.run("document.querySelector('.grid-of-images .open').focus()")
    browser.press("Enter")
    assert browser.run("document.getElementById('viewer').open")
    before = browser.run("document.getElementById('viewer-title').textContent")
    assert browser.run("document.querySelectorAll('#viewer tbody tr').length") >= 3
    browser.press("ArrowRight")
    assert browser.run("document.getElementById('viewer-title').textContent") != before
    browser.press("Escape")
    assert not browser.run("document.getElementById('viewer').open")
    browser.run("document.querySelector('#labels tbody button').click()")
    assert browser.run("document.querySelectorAll('#viewer .suspect').length") == 1
    browser.press("Escape")
    assert browser.errors == []


def test_everything_has_a_name(browser):
    kinds = "button, input, select, a, img, table, section, dialog"
    said = "n.textContent.trim() || n.alt || n.getAttribute('aria-label') || n.labels?.length"
    nameless = (
        f"[...document.querySelectorAll('{kinds}')].filter(n => !({said})).map(n => n.outerHTML)"
    )
    assert browser.run(nameless) == []
    assert browser.run("document.querySelectorAll('table th:not([scope])').length") == 0
    ids = "[...document.querySelectorAll('[id]')].map(n => n.id)"
    found = browser.run(ids)
    assert (
        len(found) == len(set(found)) and browser.run("document.querySelectorAll('h1').length") == 1
    )
    unreachable = (
        """[...document.querySelectorAll('.scroll')].filter(n => n.tabIndex !== 0).length"""
    )
    assert browser.run(unreachable) == 0


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (375, False)])
def test_it_fits_and_can_be_read(browser, run, width, dark):
    browser.size(width, 812, dark)
    browser.open(run[0])
    browser.painted()
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run(CONTRAST) >= 4.5  # WCAG 2.1, AA
    if folder := os.environ.get("JDET_SCREENSHOTS"):
        browser.screenshot(Path(folder) / f"report_{width}{'_dark' * dark}.png", whole=True)
    assert browser.errors == []


def test_a_run_without_evaluation(browser, tmp_path):
    config = get_defaults()
    config.class_names = made_run.NAMES
    made_run.begin(tmp_path, config)
    browser.size(1280, 900)
    browser.open(write(tmp_path))
    assert "no evaluation yet" in browser.run("document.getElementById('headline').textContent")
    sections = browser.run("[...document.querySelectorAll('main > section')].map(s => s.id)")
    assert sections == ["curves", "data", "config", "cost"] and browser.errors == []
