"""Checks that apply to every page: errors, requests, layout, contrasts, accessibility tree and axe."""

import importlib.util
import pathlib

# Level AA of the Web Content Accessibility Guidelines, for text and for graphics.
TEXT_CONTRAST, PICTURE_CONTRAST = 4.5, 3.0

# The contrast of each visible text with its background, and of each part of a timeline.
CONTRASTS = """(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const luminance = (colour) => {
    const [r, g, b] = [...rgba(colour)].map((part) => (part /= 255) <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = (element) => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if (rgba(colour)[3] === 255) return colour;
    }
    return "white";
  };
  const contrast = (a, b) => { const [low, high] = [luminance(a), luminance(b)].sort((a, b) => a - b); return (high + 0.05) / (low + 0.05); };
  const contrasts = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode, element = text.parentElement;
    if (!text.data.trim() || element.closest("svg") || !element.getClientRects().length) continue;
    contrasts.push(["text", text.data.trim(), contrast(getComputedStyle(element).color, background(element))]);
  }
  for (const part of document.querySelectorAll(".timeline rect:not(.track):not(.unsure)"))
    contrasts.push(["picture", part.getAttribute("class"), contrast(getComputedStyle(part).fill, background(part.closest("svg")))]);
  return contrasts;
})()"""

# Elements beyond the right edge of the window, except in scrolling boxes.
TOO_WIDE = """[...document.querySelectorAll("body *")].filter((one) => !one.closest("pre, svg, .skip, .visually-hidden")
  && one.getBoundingClientRect().right > WIDTH + 0.5).map((one) => one.outerHTML.slice(0, 120))"""

# Parts of timelines that are empty or outside of their picture.
LOST_PARTS = """[...document.querySelectorAll(".timeline rect")].filter((part) => {
  const [inner, outer] = [part, part.closest("svg")].map((one) => one.getBoundingClientRect());
  return !(inner.width > 0 && inner.height > 0 && inner.left >= outer.left - 0.5 && inner.right <= outer.right + 0.5);
}).map((part) => part.outerHTML)"""


AXE = pathlib.Path(importlib.util.find_spec("axe_playwright_python").origin).with_name("axe.min.js").read_text()
VIOLATIONS = """axe.run(document, { resultTypes: ["violations"] }).then((results) => results.violations.map((violation) =>
  [violation.id, violation.help, ...violation.nodes.map((node) => node.html.slice(0, 200))]))"""


def check(page, url, tables=True):
    """Checks the page that was just loaded from `url`."""
    assert page.errors == [], page.errors
    origin = "/".join(url.split("/")[:3])
    expected = {url, *(f"{origin}/{name}" for name in ["style.css", "icon.svg", "icon-attention.svg"])}
    # A date field has a picture of Chromium's own. The content security policy blocks `data:` in pages.
    requests = {request for request in page.requests if not request.startswith("data:")}
    assert {url, f"{origin}/style.css"} <= requests <= expected, requests
    assert page.evaluate("document.querySelectorAll('[style], img, iframe').length") == 0
    assert page.evaluate("document.querySelectorAll('script').length") == 1
    too_wide = page.evaluate(TOO_WIDE.replace("WIDTH", str(page.width)))
    # A phone widens its window to wide content.
    width = page.evaluate("Math.max(innerWidth, document.documentElement.scrollWidth)")
    assert (width, too_wide) == (page.width, []), (width, too_wide)
    assert page.evaluate(LOST_PARTS) == [], page.evaluate(LOST_PARTS)
    contrasts = page.evaluate(CONTRASTS)
    least = {"text": TEXT_CONTRAST, "picture": PICTURE_CONTRAST}
    too_low = sorted({(kind, text, round(contrast, 2)) for kind, text, contrast in contrasts if contrast < least[kind]})
    assert too_low == [] and len(contrasts) > 9, too_low
    page.evaluate(AXE)
    violations = page.evaluate(VIOLATIONS)
    assert violations == [], (page.width, url, violations)

    nodes = page.accessible()
    names = lambda role: [name for node_role, name, _ in nodes if node_role == role]
    for landmark in ["banner", "main", "contentinfo"]:
        assert len(names(landmark)) == 1, (landmark, nodes)
    assert all(names("navigation")) and names("navigation"), names("navigation")
    headings = [properties["level"] for role, _, properties in nodes if role == "heading"]
    assert headings.count(1) == 1, headings
    if tables:
        assert names("table") and all(names("table")), "a table without a name"
        assert names("columnheader") and names("rowheader"), "a table without headers"
    assert all(names("image") + names("progressbar")), "a picture without a name"
    return nodes


