"""Checks the pages of a daemon in Chromium. The daemon watches a simulated HealthOmics.

Usage: browser.py REFWATCH DIRECTORY

Checks Chromium's errors, requests, layout, accessibility tree, contrasts and axe, at six widths, in light and dark mode. Screenshots go
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
from page_checks import check

# Seconds.
DEADLINE = 60
HOSTILE = "<img src=x onerror=alert(1)>\"'&" + "W" * 90
# Pages are checked at each width. Screenshots of some are in the documentation.
WIDTHS = [320, 400, 768, 900, 1200, 1920]
DOCUMENTED = {1200: "", 400: "-phone"}
PHONES = [320, 400]
# Jobs on the status page, and its height on a phone in pixels.
JOBS, PHONE_HEIGHT_MAX = 14, 2000


class Setup:
    """A simulator and a daemon that watches its jobs and a missing one."""

    def __init__(self, directory):
        self.config = pathlib.Path(directory, "refwatch.toml")
        self.address = f"127.0.0.1:{free_port()}"
        self.processes = []

    def begin(self, refwatch):
        simulated = ["--listen", "127.0.0.1:0", "--jobs", "11", "--stuck", "2", "--mean-seconds", "14", "--quota", "20"]
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


def check_status_page(page, setup):
    nodes = check(page, f"http://{setup.address}/")
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
    for shown in ["Quota", "GetReferenceImportJob", "16.0 requests per second, as configured", f"{JOBS} watches, "]:
        assert shown in text, f"{shown} is missing"
    assert len(watches) == JOBS, len(watches)
    if page.width in PHONES:
        height = page.evaluate("document.documentElement.scrollHeight")
        assert height <= PHONE_HEIGHT_MAX, (page.width, height)
    # A bar of one status begins and ends at the same place in each row if it does at the same time.
    widths = page.evaluate("[...document.querySelectorAll('.watches .timeline')].map((one) => one.getBoundingClientRect().width)")
    axis = page.evaluate("document.querySelector('.axis').getBoundingClientRect().width")
    assert max(widths) - min(widths) < 1 and abs(axis - widths[0]) < 1, (axis, widths)
    assert page.evaluate("document.querySelectorAll('.axis text').length") > 0, "no ticks"
    assert page.title().startswith("(") and "icon-attention.svg" in page.icon(), (page.title(), page.icon())


def check_job_page(page, setup, watch):
    path = f"/jobs/reference_import/{watch['store_id']}/{watch['job_id']}"
    nodes = check(page, f"http://{setup.address}{path}")
    names = lambda role: [name for node_role, name, _ in nodes if node_role == role]
    listed = watch["items"]["listed"]
    assert [name.split(":")[0] for name in names("image")] == [watch["watch"]] + [source["name"] for source in listed]
    text = page.evaluate("document.body.innerText")
    for shown in ["What to do.", "Transitions", "Sources", watch["status"], *(source["status_message"] or "" for source in listed)]:
        assert shown in text, f"{shown} is missing"
    # In lists, phones show no copy buttons: a row with one would be taller. The job's page always shows them.
    buttons = "[...document.querySelectorAll('.summary .copy')].map((button) => button.checkVisibility({ opacityProperty: true }))"
    assert page.evaluate(buttons) == [True, True], (page.width, page.evaluate(buttons))


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
    setup.append("\n[log]\nlevell = \"info\"\n")
    eventually(lambda: "The configuration has an error" in setup.get("/"))
    for width in WIDTHS:
        page.set_window(width, "light")
        page.go(f"http://{setup.address}/")
        check(page, f"http://{setup.address}/")
        first = page.evaluate("document.querySelector('h1, h2').innerText")
        assert first.startswith("The configuration has an error"), first
        text = page.evaluate("document.querySelector('main').innerText")
        assert HOSTILE in text, text
        assert "did you mean `level`" in text, text
        wrapped = "[...document.querySelectorAll('.alert .lines')].every((one) => one.scrollWidth <= one.clientWidth)"
        assert page.evaluate(wrapped), "the text of the alert does not wrap"


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
            job = f"/jobs/reference_import/{failed_sources['store_id']}/{failed_sources['job_id']}"
            for scheme in ["light", "dark"]:
                for width in WIDTHS:
                    page.set_window(width, scheme)
                    visit(page, setup, directory, "status-page", "/", check_status_page)
                    visit(page, setup, directory, "job-page", job, lambda *arguments: check_job_page(*arguments, failed_sources))
                    for name, path in [("config", "/config"), ("not-found", "/none/here"), ("history", "/history"), ("runbook", "/runbook")]:
                        visit(page, setup, directory, name, path, lambda *arguments: check_other_page(*arguments, path))
                    assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") == (scheme == "dark")
            check_typing(page, setup)
            check_removed_job(page, setup)
            check_times(page, setup, job)
            check_copy(page, setup, job)
            check_links(page, setup)
            check_errors(page, setup)
        finally:
            page.close()
            setup.stop()
    shrink(directory)


def visit(page, setup, directory, name, path, check_page):
    """Loads a page, checks it and saves a screenshot. The documentation has two pages at two widths."""
    page.go(f"http://{setup.address}{path}")
    check_page(page, setup)
    is_documented = page.width in DOCUMENTED and name.endswith("-page")
    if is_documented or directory.name != "docs":
        suffix = DOCUMENTED.get(page.width, f"-{page.width}") + ("-dark" if page.scheme == "dark" else "")
        page.screenshot(directory / f"{name}{suffix}.png")


def check_other_page(page, setup, path):
    if path == "/none/here":
        page.errors = [error for error in page.errors if "404" not in error]
    check(page, f"http://{setup.address}{path}", tables=path == "/history")
    page.errors = []


def check_typing(page, setup):
    """A refresh shows new data. It keeps what a person types, and the focus. A daemon that does not respond is shown."""
    page.set_window(1200, "light")
    page.go(f"http://{setup.address}/")
    page.evaluate("document.querySelector('[name=q]').value = 'GRC'; document.querySelector('.watches tbody a').focus()")
    focused = page.evaluate("document.activeElement.href")
    as_of = "document.querySelector('footer time').dateTime"
    before = page.evaluate(as_of)
    eventually(lambda: page.evaluate(as_of) != before)
    assert page.evaluate("document.querySelector('[name=q]').value") == "GRC", "typed text is lost"
    assert page.evaluate("document.activeElement.href") == focused, "the focus is lost"
    page.evaluate("document.querySelector('[name=q]').focus()")
    before = page.evaluate(as_of)
    eventually(lambda: page.evaluate(as_of) != before)
    assert page.evaluate("document.activeElement.name") == "q", "the focus is lost"
    assert page.errors == [], page.errors
    page.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    eventually(lambda: page.evaluate("!document.getElementById('stale').hidden"))
    page.call("Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    eventually(lambda: page.evaluate("document.getElementById('stale').hidden"))


def check_removed_job(page, setup):
    """A refresh of a job page shows "Not found" once the job is removed. The check changes the address instead."""
    watch = next(watch for watch in setup.watches() if watch["state"] == "live" and watch["status"])
    page.go(f"http://{setup.address}/jobs/reference_import/{watch['store_id']}/{watch['job_id']}")
    page.await_load(lambda: page.evaluate("history.replaceState(null, '', '/none/here')"))
    assert page.evaluate("document.querySelector('h1').innerText") == "Not found"
    page.errors = []


def check_times(page, setup, job):
    """With the script, times are local and UTC. Without it, they are UTC."""
    shown = "document.querySelector('figcaption time').innerText"
    page.call("Emulation.setTimezoneOverride", timezoneId="Asia/Tokyo")
    page.go(f"http://{setup.address}{job}")
    assert "UTC" in page.evaluate(shown) and "GMT+9" in page.evaluate(shown), page.evaluate(shown)
    page.go(f"http://{setup.address}/")
    tokyo = page.evaluate("document.querySelector('.axis text').textContent")
    page.call("Emulation.setTimezoneOverride", timezoneId="UTC")
    page.go(f"http://{setup.address}/")
    utc = page.evaluate("document.querySelector('.axis text').textContent")
    assert (int(tokyo[:2]) - int(utc[:2])) % 24 in [9, 8, 10], (tokyo, utc)
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    page.go(f"http://{setup.address}{job}")
    assert page.evaluate(shown).endswith("UTC"), page.evaluate(shown)
    assert page.evaluate("[...document.querySelectorAll('.copy')].every((button) => button.hidden)")
    page.go(f"http://{setup.address}/")
    footer = page.evaluate("document.querySelector('footer').innerText")
    assert "Refresh every 10 s." in footer and "Stop refreshing." not in footer, footer
    page.call("Emulation.setScriptExecutionDisabled", value=False)


def check_copy(page, setup, job):
    store, number = job.split("/")[-2:]
    for path, nth, expected in [(job, 1, number), (f"/?q={number}", 0, f"{store}/{number}")]:
        page.go(f"http://{setup.address}{path}")
        page.evaluate("window.copied = null; document.addEventListener('copy', () => { window.copied = getSelection().toString(); })")
        page.evaluate(f"document.querySelectorAll('button.copy')[{nth}].click()")
        assert page.evaluate("window.copied") == expected, (path, page.evaluate("window.copied"))


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
