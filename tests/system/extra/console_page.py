"""Find elements on the console's page."""

import re


def visit(page, place: str) -> None:
    page.goto(re.match(r"http://[^/]+", page.url)[0] + place)
    page.get_by_role("heading", level=1).wait_for()


def dialog(page):
    return page.get_by_role("dialog")


def row(page, text: str):
    return page.get_by_role("row").filter(has_text=text)
