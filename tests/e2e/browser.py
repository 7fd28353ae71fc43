"""Checks the pages of a daemon in Chromium. The daemon watches a simulated HealthOmics.

Usage: browser.py REFWATCH DIRECTORY

Checks Chromium's errors, requests, layout, accessibility tree and contrasts, at two widths, in light and dark mode. Screenshots go
to DIRECTORY.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

from devtools import Page

# Seconds.
DEADLINE = 60
WIDTHS = {"": 1200, "-phone": 400}
HOSTILE = "<img src=x onerror=alert(1)>\"'&" + "W" * 90
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
TOO_WIDE = """[...document.querySelectorAll("body *")].filter((one) => !one.closest("pre, .skip, .visually-hidden")
  && one.getBoundingClientRect().right > WIDTH + 0.5).map((one) => one.outerHTML.slice(0, 120))"""

# Parts of timelines that are empty or outside of their picture.
LOST_PARTS = """[...document.querySelectorAll(".timeline rect")].filter((part) => {
  const [inner, outer] = [part, part.closest("svg")].map((one) => one.getBoundingClientRect());
  return !(inner.width > 0 && inner.height > 0 && inner.left >= outer.left - 0.5 && inner.right <= outer.right + 0.5);
}).map((part) => part.outerHTML)"""


class Setup:
    """A simulator and a daemon that watches its jobs and a missing one."""

    def __init__(self, directory):
        self.config = pathlib.Path(directory, "refwatch.toml")
        self.address = f"127.0.0.1:{free_port()}"
        self.processes = []

    def begin(self, refwatch):
        simulated = ["--listen", "127.0.0.1:0", "--jobs", "8", "--stuck", "2", "--mean-seconds", "14", "--quota", "20"]
        self.start(refwatch, "simulate", *simulated, "--fault", "internal=0.06", "--config-out", str(self.config))
        eventually(self.config.exists)
        text = self.config.read_text().replace("127.0.0.1:10210", self.address)
        self.store = re.search(r'reference_store_id = "(\d+)"', text)[1]
        self.config.write_text(text + self.job("Mmul_10", "1111111111"))
        self.start(refwatch, "--config", str(self.config), "run")

    def start(self, *command):
        credentials = {"AWS_ACCESS_KEY_ID": "simulated", "AWS_SECRET_ACCESS_KEY": "simulated"}
        with open(self.config.with_suffix(f".log{len(self.processes)}"), "w") as log:
            process = subprocess.Popen(command, env=os.environ | credentials, stdout=log, stderr=log)
        self.processes.append(process)

    def job(self, name, number):
        return f'\n[[job]]\nname = {json.dumps(name)}\nreference_store_id = "{self.store}"\nid = "{number}"\n'

    def append(self, text):
        """Appends to the configuration and reloads it."""
        with self.config.open("a") as file:
            file.write(text)
        self.processes[-1].send_signal(signal.SIGHUP)

    def get(self, path):
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=10) as response:
            return response.read().decode()

    def watches(self):
        try:
            return json.loads(self.get("/api/v1/jobs"))
        except OSError:
            assert self.processes[-1].poll() is None, self.config.with_suffix(".log1").read_text()
            return []

    def settled(self):
        """Whether all jobs have ended that end, and the missing job was polled."""
        watches = self.watches()
        live = [watch for watch in watches if watch["state"] == "live"]
        return len(live) == 3 and all(watch["up"] is not None for watch in watches)

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
            process.wait(DEADLINE)


def check(page, setup, path):
    """Checks that apply to every page."""
    url = f"http://{setup.address}"
    assert page.errors == [], page.errors
    assert sorted(page.requests) == sorted([url + path, url + "/style.css"]), page.requests
    assert page.evaluate("document.querySelectorAll('script, [style], img, iframe').length") == 0
    too_wide = page.evaluate(TOO_WIDE.replace("WIDTH", str(page.width)))
    # A phone widens its window to wide content.
    width = page.evaluate("Math.max(innerWidth, document.documentElement.scrollWidth)")
    assert (width, too_wide) == (page.width, []), (width, too_wide)
    assert page.evaluate(LOST_PARTS) == [], page.evaluate(LOST_PARTS)
    contrasts = page.evaluate(CONTRASTS)
    least = {"text": TEXT_CONTRAST, "picture": PICTURE_CONTRAST}
    too_low = sorted({(kind, text, round(contrast, 2)) for kind, text, contrast in contrasts if contrast < least[kind]})
    assert too_low == [] and len(contrasts) > 20, too_low

    nodes = page.accessible()
    names = lambda role: [name for node_role, name, _ in nodes if node_role == role]
    for landmark in ["banner", "main", "contentinfo"]:
        assert len(names(landmark)) == 1, (landmark, nodes)
    assert all(names("navigation")) and names("navigation"), names("navigation")
    headings = [properties["level"] for role, _, properties in nodes if role == "heading"]
    assert headings.count(1) == 1, headings
    assert names("table") and all(names("table")), "a table without a name"
    assert names("columnheader") and names("rowheader"), "a table without headers"
    assert names("image") and all(names("image") + names("progressbar")), "a picture without a name"
    return nodes


def check_status_page(page, setup):
    nodes = check(page, setup, "/")
    names = lambda role: [name for node_role, name, _ in nodes if node_role == role]
    watches = setup.watches()
    links = names("link")
    for watch in watches:
        assert watch["watch"] in links, f"no link to {watch['watch']}"
        if watch["status"]:
            of_watch = [name for name in names("image") if name.startswith(watch["watch"] + ": ")]
            assert len(of_watch) == 1 and watch["status"] in of_watch[0], (watch["watch"], of_watch)
    assert "search" in [role for role, _, _ in nodes], "no search"
    text = page.evaluate("document.body.innerText")
    for shown in ["not found", "Allowed request rates", "GetReferenceImportJob", "of 16.0"]:
        assert shown in text, f"{shown} is missing"


def check_job_page(page, setup, watch):
    path = f"/jobs/reference_import/{watch['store_id']}/{watch['job_id']}"
    nodes = check(page, setup, path)
    names = lambda role: [name for node_role, name, _ in nodes if node_role == role]
    listed = watch["items"]["listed"]
    assert [name.split(":")[0] for name in names("image")] == [watch["watch"]] + [source["name"] for source in listed]
    text = page.evaluate("document.body.innerText")
    for shown in ["What to do.", "Transitions", "Sources", watch["status"], *(source["status_message"] or "" for source in listed)]:
        assert shown in text, f"{shown} is missing"


def check_links(page, setup):
    """Sorting, filtering and searching work without scripts."""
    url = f"http://{setup.address}/"
    sorted_by = "[...document.querySelectorAll('.watches th[aria-sort]')].map((one) => [one.innerText.trim()[0], one.ariaSort])"
    rows = "[...document.querySelectorAll('.watches tbody th a')].map((one) => one.innerText)"
    page.go(url)
    before = page.evaluate(rows)
    for order in ["ascending", "descending"]:
        page.await_load(lambda: page.evaluate("document.querySelector('.watches thead a').click()"))
        assert page.evaluate(sorted_by) == [["W", order]], page.evaluate(sorted_by)
        expected = sorted(before, key=str.lower, reverse=order == "descending")
        assert page.evaluate(rows) == expected, page.evaluate(rows)
    page.await_load(lambda: page.evaluate("[...document.querySelectorAll('.filters a')].find((one) => one.innerText.startsWith('FAILED')).click()"))
    failed = [watch["watch"] for watch in setup.watches() if watch["status"] == "FAILED"]
    assert sorted(page.evaluate(rows)) == sorted(failed) and failed, page.evaluate(rows)
    assert page.evaluate(sorted_by) == [["W", "descending"]], "the order is lost"
    page.go(url)
    name = before[0]
    page.await_load(lambda: page.evaluate(f"document.querySelector('[name=q]').value = {json.dumps(name)}; document.querySelector('form button').click()"))
    assert page.evaluate(rows) == [name] and page.errors == [], (page.evaluate(rows), page.errors)


def check_errors(page, setup):
    """Untrusted text is inert, and an error in the configuration is shown first."""
    setup.append(setup.job(HOSTILE, "2" * 36))
    eventually(lambda: any(watch["watch"] == HOSTILE and watch["recent_failures"] for watch in setup.watches()))
    setup.append("\n[poll]\nintervall = \"5s\"\n")
    eventually(lambda: "The configuration has an error" in setup.get("/"))
    for width in WIDTHS.values():
        page.set_window(width, "light")
        page.go(f"http://{setup.address}/")
        check(page, setup, "/")
        first = page.evaluate("document.querySelector('h1, h2').innerText")
        assert first.startswith("The configuration has an error"), first
        text = page.evaluate("document.querySelector('main').innerText")
        assert HOSTILE in text, text


def main():
    refwatch, directory = sys.argv[1], pathlib.Path(sys.argv[2])
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="refwatch-browser-") as setup_directory:
        page = Page()
        setup = Setup(setup_directory)
        try:
            setup.begin(refwatch)
            eventually(setup.settled)
            failed_sources = next(watch for watch in setup.watches() if watch["status"] == "COMPLETED_WITH_FAILURES")
            for scheme in ["light", "dark"]:
                for suffix, width in WIDTHS.items():
                    page.set_window(width, scheme)
                    dark = "-dark" if scheme == "dark" else ""
                    page.go(f"http://{setup.address}/")
                    check_status_page(page, setup)
                    page.screenshot(directory / f"status-page{suffix}{dark}.png")
                    page.go(f"http://{setup.address}/jobs/reference_import/{failed_sources['store_id']}/{failed_sources['job_id']}")
                    check_job_page(page, setup, failed_sources)
                    page.screenshot(directory / f"job-page{suffix}{dark}.png")
                    assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") == (scheme == "dark")
            check_links(page, setup)
            check_errors(page, setup)
        finally:
            page.close()
            setup.stop()
    shrink(directory)


def shrink(directory):
    """Reduces the screenshots to a palette."""
    if shutil.which("pngquant"):
        pictures = [str(path) for path in directory.glob("*-page*.png")]
        subprocess.run(["pngquant", "--force", "--ext=.png", "--strip", "--speed=1", "64", *pictures], check=True)


def eventually(condition):
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"{condition} was not met in time"
        time.sleep(0.1)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


main()
