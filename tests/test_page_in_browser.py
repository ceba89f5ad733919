"""The page in a real browser: requests, console, sorting, colour schemes, narrow screens, accessibility."""

from __future__ import annotations

import page_fixtures as fixtures
import pytest
from browsers import axe_source

from vggbench.findings import judge
from vggbench.report import render, write_page
from vggbench.report.curve import curve_page


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    records = fixtures.sample_records((0,), images=200, hostile=True) + fixtures.other_records(200)
    path = tmp_path_factory.mktemp("page") / "index.html"
    write_page(path, render(records, judge(records), fixtures.context(200, hostile=True)))
    return path.as_uri()


@pytest.fixture
def open_page(browser, address):
    """open_page(width=..., scheme=...) -> a page with .requests, .complaints and .dialogs collected from the start."""
    contexts = []

    def open_(width: int = 1280, scheme: str = "light", fragment: str = "", **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        contexts.append(context)
        page = context.new_page()
        page.requests, page.complaints, page.dialogs = [], [], []
        page.on("request", lambda request: page.requests.append(request.url))
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (page.dialogs.append(dialog.message), dialog.dismiss()))
        page.goto(address + fragment)
        return page

    yield open_
    for context in contexts:
        context.close()


def first_cells(page, table: str, column: int = 0) -> list[str]:
    rows = page.locator(f"{table} tbody tr")
    return [rows.nth(i).locator("th, td").nth(column).inner_text().split("\n")[0] for i in range(rows.count())]


def test_no_request_leaves_and_the_console_stays_empty(open_page, address):
    page = open_page()
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.locator("#scheme").click()
    page.locator("#open-records").click()
    page.wait_for_timeout(300)
    assert [url for url in page.requests if not url.startswith("data:")] == [address]
    assert page.complaints == []


def test_policy_stops_a_request_that_a_value_would_make(open_page, address):
    page = open_page()
    with page.expect_console_message(lambda message: "Content Security Policy" in message.text):
        page.evaluate("""() => { const i = new Image(); i.src = 'http://192.0.2.1/x.png'; document.body.append(i); }""")


def test_hostile_file_name_is_shown_as_text_and_opens_no_dialog(open_page):
    page = open_page()
    assert page.locator(f".gallery dd.file:text-is('{fixtures.HOSTILE}')").is_visible()
    assert page.locator(f"#method th.file:text-is('{fixtures.HOSTILE}')").is_visible()
    assert page.locator("img[src='x']").count() == 0
    assert page.dialogs == []


def test_click_sorts_up_then_down_then_as_printed(open_page):
    page = open_page()
    printed = first_cells(page, "#table3 table", 2)
    button = page.locator("#table3 thead th").nth(2).locator("button")
    numbers = sorted(map(float, printed))
    button.click()
    assert list(map(float, first_cells(page, "#table3 table", 2))) == numbers
    assert page.locator("#table3 thead th").nth(2).get_attribute("aria-sort") == "ascending"
    button.click()
    assert list(map(float, first_cells(page, "#table3 table", 2))) == numbers[::-1]
    button.click()
    assert first_cells(page, "#table3 table", 2) == printed
    assert page.locator("#table3 [aria-sort]").count() == 0


def test_keyboard_sorts_and_rows_without_a_value_stay_last(open_page):
    page = open_page()
    button = page.locator("#table6 thead th").nth(3).locator("button")
    button.focus()
    for direction in ("ascending", "descending"):
        page.keyboard.press("Enter")
        assert page.locator("#table6 thead th").nth(3).get_attribute("aria-sort") == direction
        assert first_cells(page, "#table6 table", 3)[-1] == "–"  # noqa: RUF001
    page.keyboard.press("Space")
    assert page.locator("#table6 [aria-sort]").count() == 0


def test_column_heads_are_reached_by_tab(open_page):
    page = open_page()
    page.locator("#table2 .scroll").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.matches('#table2 thead th button')")


def test_both_schemes_follow_the_system_and_the_button_overrides(open_page):
    ground = "getComputedStyle(document.body).backgroundColor"
    light, dark = open_page(scheme="light"), open_page(scheme="dark")
    bright, dim = light.evaluate(ground), dark.evaluate(ground)
    assert bright != dim
    assert light.locator("#scheme").inner_text() == "Dark"
    light.locator("#scheme").click()
    dark.locator("#scheme").click()
    assert (light.evaluate(ground), dark.evaluate(ground)) == (dim, bright)


def test_charts_follow_the_scheme(open_page):
    colour = "getComputedStyle(document.querySelector('#chart-depth .wide text')).fill"
    assert open_page(scheme="light").evaluate(colour) != open_page(scheme="dark").evaluate(colour)


def test_button_works_where_storage_is_forbidden(open_page):
    page = open_page()
    page.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('forbidden'); } })")
    page.reload()
    page.locator("#scheme").click()
    assert page.evaluate("document.documentElement.dataset.scheme") == "dark"
    assert page.complaints == []


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_page_never_scrolls_sideways(open_page, width):
    page = open_page(width=width)
    page.locator("#open-records").click()
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width


def test_first_column_stays_while_a_table_scrolls(open_page):
    page = open_page(width=390)
    place = "document.querySelector('#table3 tbody th').getBoundingClientRect().left"
    before = page.evaluate(place)
    page.evaluate("document.querySelector('#table3 .scroll').scrollLeft = 200")
    assert page.evaluate("document.querySelector('#table3 .scroll').scrollLeft") > 0
    assert abs(page.evaluate(place) - before) <= 1


def test_link_of_a_number_opens_its_record(open_page):
    page = open_page()
    link = page.locator("#table3 td.measured a").first
    link.click()
    page.wait_for_function("document.querySelector(location.hash).open")
    assert page.locator(link.get_attribute("href")).locator("pre").is_visible()


def test_print_shows_all_columns_and_the_comparisons(open_page):
    page = open_page(width=900)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator(".card details").first.get_attribute("open") is not None
    assert page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflow") == "visible"
    assert not page.locator("nav").is_visible()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light")])
def test_axe_finds_nothing_serious(open_page, width, scheme):
    page = open_page(width=width, scheme=scheme, bypass_csp=True)
    page.evaluate(
        "document.querySelectorAll('.card details, details.record:nth-of-type(-n+2)').forEach(d => { d.open = true; })"
    )
    page.evaluate(axe_source())
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    serious = [
        (violation["id"], violation["nodes"][0]["html"][:200], len(violation["nodes"]))
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_a_training_curve_never_scrolls_sideways(browser, tmp_path):
    rows = [{"epoch": n, "learning_rate": 0.01, "training_loss": 4 / n, "tuning_top1_error_percent": 90 - n}
            for n in range(1, 9)]  # fmt: skip
    (tmp_path / "curve.html").write_text(curve_page("Training of A", "width 0.02, crop_size 32, batch 2", rows))
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.goto((tmp_path / "curve.html").as_uri())
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 390
    assert page.locator("svg").count() == 2
    page.close()
