// Keeps a page true while it is looked at: relative times run on, and the live part is fetched anew.
// Without it the page is the same, only still.

const REFRESH_SECONDS = 15;
const live = () => document.getElementById("live");
let ahead = clockDifference();
let refreshedAt = Date.now();

// The server's clock counts: a reader's may be wrong.
function clockDifference() {
  return Date.parse(live().dataset.at) - Date.now();
}

function duration(seconds) {
  seconds = Math.max(0, Math.round(seconds));
  if (seconds < 90) return `${seconds} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

function tick() {
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

// A reader who has selected something, or is about to choose, is not disturbed.
function isBusy() {
  const selection = document.getSelection();
  return (selection && !selection.isCollapsed) || document.activeElement?.closest("form") != null;
}

async function refresh() {
  if (document.hidden || isBusy()) return;
  const aside = document.getElementById("as-of");
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("live");
    if (!fresh || isBusy()) return;
    live().replaceWith(document.adoptNode(fresh));
    aside.replaceChildren(...document.adoptNode(page.getElementById("as-of")).childNodes);
    aside.classList.remove("stale");
    document.title = page.title;
    ahead = clockDifference();
    refreshedAt = Date.now();
  } catch {
    aside.classList.add("stale");
    aside.textContent = `not reachable for ${duration((Date.now() - refreshedAt) / 1000)}`;
  }
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && Date.now() - refreshedAt > REFRESH_SECONDS * 1000) refresh();
});
setInterval(tick, 1000);
setInterval(refresh, REFRESH_SECONDS * 1000);
tick();
