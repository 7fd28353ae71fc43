// Local times, copy buttons and the refresh. Every page works without this script.
"use strict";

const SECONDS = 1000;

// "2026-03-01 09:00:00 CET": the Swedish format is that of ISO 8601.
const local = (time) => new Date(time).toLocaleString("sv", {
  year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short" });
const isUtc = new Date().getTimezoneOffset() === 0 && /UTC$/.test(local(Date.now()));

// Returns a label of the time axis in local time. `length` is that of the UTC label: 5 is HH:MM, 8 is HH:MM:SS, 11 is MM-DD HH:MM.
const axisLabel = (time, length) => local(time).slice(...{ 5: [11, 16], 8: [11, 19], 11: [5, 16] }[length]);

const improve = () => {
  for (const element of document.querySelectorAll(".scripted")) element.hidden = false;
  if (isUtc) return;
  for (const time of document.querySelectorAll("time.absolute:not(:has(small))")) {
    const utc = document.createElement("small");
    utc.textContent = time.textContent;
    time.replaceChildren(local(time.dateTime) + " ", utc);
  }
  for (const time of document.querySelectorAll("time[title]")) time.title = `${local(time.dateTime)}, ${time.dateTime}`;
  for (const label of document.querySelectorAll("[data-time]")) label.textContent = axisLabel(label.dataset.time, label.textContent.length);
  for (const zone of document.querySelectorAll(".zone")) zone.textContent = "local time";
};

document.addEventListener("click", (event) => {
  const button = event.target.closest("button.copy");
  if (!button) return;
  // `navigator.clipboard` is missing on pages without TLS.
  getSelection().selectAllChildren(button.previousElementSibling);
  document.execCommand("copy");
  getSelection().removeAllRanges();
  button.textContent = "✓";
});

const parts = (page) => new Map([...page.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));

// `sameAs` returns the links and copy buttons with the same key. If a refresh replaces the focused element, `show` focuses its counterpart.
const key = (element) => element.getAttribute("href") ?? element.dataset.key;
const sameAs = (element) => [...document.querySelectorAll("a, button.copy")].filter((other) => key(other) === key(element));

const isTyping = () => [...document.querySelectorAll("input")].some((input) => input.value !== input.defaultValue);

const show = (page) => {
  const [shown, fetched] = [parts(document), parts(page)];
  // If the names of the parts differ, the page has changed its kind, for example to "Not found".
  const names = (parts) => [...parts.keys()].join();
  if (names(shown) !== names(fetched) && !isTyping()) return location.reload();
  const focused = document.activeElement;
  const nth = sameAs(focused).indexOf(focused);
  // Equal parts are kept: a screen reader would read a replaced alert again.
  for (const [name, part] of shown) if (!part.isEqualNode(fetched.get(name) ?? null)) part.replaceWith(fetched.get(name) ?? "");
  document.title = page.title;
  document.querySelector("link[rel=icon]").href = page.querySelector("link[rel=icon]").href;
  document.body.dataset.refresh = page.body.dataset.refresh ?? "";
  improve();
  if (!focused.isConnected) sameAs(focused)[nth]?.focus({ preventScroll: true });
};

const refresh = async () => {
  // Without the header, the response 404 would be plain text.
  const options = { headers: { Accept: "text/html" }, signal: AbortSignal.timeout(10 * SECONDS) };
  const response = await fetch(location.href, options).catch(() => null);
  const page = new DOMParser().parseFromString((await response?.text().catch(() => "")) ?? "", "text/html");
  const isPage = page.querySelector("[data-part]") !== null;
  document.getElementById("stale").hidden = isPage;
  try { if (isPage) show(page); } finally { schedule(); }
};

const schedule = () => {
  const seconds = Number(document.body.dataset.refresh);
  if (seconds) setTimeout(refresh, seconds * SECONDS);
};

improve();
schedule();
