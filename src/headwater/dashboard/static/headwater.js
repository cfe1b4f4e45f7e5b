// Keeps a page true while it is looked at: relative times run on, the live part is fetched anew where that helps, and
// keys lead where the links do. Without it the page is the same, only still.

const REFRESH_SECONDS = 15;
const TOP_PIXELS = 300; // further down, a reader reads: the page stays as it is
const live = () => document.getElementById("live");
let ahead = clockDifference();
let refreshedAt = Date.now();

// The server's clock counts: a reader's may be wrong.
function clockDifference() {
  return live() ? Date.parse(live().dataset.at) - Date.now() : 0;
}

function duration(seconds) {
  seconds = Math.max(0, Math.round(seconds));
  if (seconds < 90) return `${seconds} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

function tick() {
  if (!live()) return;
  const now = Date.now() + ahead;
  for (const time of live().querySelectorAll("time[data-ago]")) {
    setText(time, `${duration((now - Date.parse(time.dateTime)) / 1000)} ago`);
  }
  for (const time of live().querySelectorAll("time[data-until]")) {
    const left = (Date.parse(time.dateTime) - now) / 1000;
    setText(time, left > 0 ? `in ${duration(left)}` : left > -60 ? "due" : "overdue");
  }
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// A reader who has selected or unfolded something, reads further down, or is about to choose, is not disturbed.
function isBusy() {
  const selection = document.getSelection();
  return (
    (selection && !selection.isCollapsed) ||
    window.scrollY > TOP_PIXELS ||
    document.querySelector("dialog[open]") !== null ||
    live().querySelector("details[open], input:checked") !== null ||
    (document.activeElement !== document.body && document.activeElement?.closest("#live, form") != null)
  );
}

async function refresh() {
  if (!live()?.hasAttribute("data-refresh") || document.hidden || isBusy()) return;
  const aside = document.getElementById("as-of");
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!answer.ok || answer.redirected) throw new Error(`status ${answer.status}`);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("live");
    if (!fresh || isBusy()) return;
    live().replaceWith(document.adoptNode(fresh));
    aside?.replaceChildren(...document.adoptNode(page.getElementById("as-of")).childNodes);
    aside?.classList.remove("stale");
    document.title = page.title;
    ahead = clockDifference();
    refreshedAt = Date.now();
  } catch {
    if (!aside) return;
    aside.classList.add("stale");
    aside.textContent = `not reachable for ${duration((Date.now() - refreshedAt) / 1000)}`;
  }
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && Date.now() - refreshedAt > REFRESH_SECONDS * 1000) refresh();
});

// Keys: `/` to the search, `g` and a letter to a page of the navigation, `j` and `k` through the rows, `?` for all.
let goes = false;

function row(step) {
  const links = [...document.querySelectorAll("[data-row] a[href]")].filter(
    (link, place, all) => place === 0 || link.closest("[data-row]") !== all[place - 1].closest("[data-row]"),
  );
  const now = links.findIndex((link) => link.closest("[data-row]") === document.activeElement?.closest("[data-row]"));
  links[Math.min(links.length - 1, Math.max(0, now + step))]?.focus();
}

function onKey(event) {
  const writes = event.target.closest?.("input, select, textarea, [contenteditable]");
  if (writes || event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key;
  if (goes) {
    goes = false;
    const link = document.querySelector(`[data-key="${CSS.escape(key)}"]`);
    if (link) {
      event.preventDefault();
      link.click();
    }
    return;
  }
  if (key === "g") goes = true;
  else if (key === "j") row(1);
  else if (key === "k") row(-1);
  else if (key === "/") {
    const search = document.querySelector('[role="search"] input[type="search"]');
    if (!search) return;
    event.preventDefault();
    search.focus();
    search.select();
  } else if (key === "?") document.getElementById("keys")?.showModal();
}

document.addEventListener("keydown", onKey);
setInterval(tick, 1000);
setInterval(refresh, REFRESH_SECONDS * 1000);
tick();
