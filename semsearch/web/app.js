import { cut, element, excerpt, found, line, marked, shown, SIGNS, TITLES, unwrapped } from "/marks.js";

const $ = (id) => document.getElementById(id);
const PART = 20000; // characters of a document that are asked for at once, if the server gives as many
const BEFORE = 0.2; // the share of them that lies before the passage
const EXCERPT = 380; // characters of a passage in the list
const PROSE = /\.(md|markdown|rst|txt|adoc|html?|docx|odt|pdf|epub|eml|mbox)$/i;

let state = { q: "", ask: false, only: [], mode: "hybrid", k: 10, doc: "", passage: "", from: 0, to: 0 };
let info = null;
let searching = null; // what stops the search that runs
let asking = null;
let reading = null; // what stops the document that is being loaded
let token = sessionStorage.getItem("token");

// -- the server -----------------------------------------------------------------------------------------------------

class Problem extends Error {}

async function request(path, { body, method, signal } = {}) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  if (body) headers["content-type"] = "application/json";
  let response;
  try {
    const how = { method: method ?? (body ? "POST" : "GET"), headers, signal };
    response = await fetch(path, body ? { ...how, body: JSON.stringify(body) } : how);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The server does not answer. Is it still running?");
  }
  if (response.status === 401) {
    await login(token !== null);
    return request(path, { body, method, signal });
  }
  if (!response.ok) {
    const said = await response.json().catch(() => ({}));
    throw new Problem(said.message ?? `The server answered with ${response.status}.`);
  }
  return response;
}

const json = async (path, options) => (await request(path, options)).json();

let loggingIn = null;

function login(wrong) {
  loggingIn ??= new Promise((resolve) => {
    $("login-problem").hidden = !wrong;
    $("login-problem").textContent = wrong ? "That is not the token." : "";
    $("login").showModal();
    $("login").onclose = () => loggingIn && !$("login").open && $("login").showModal(); // Escape is no way out
    $("login-form").addEventListener("submit", () => {
      token = $("token").value.trim();
      $("token").value = "";
      sessionStorage.setItem("token", token);
      loggingIn = null;
      resolve();
    }, { once: true });
  });
  return loggingIn;
}

// -- the state, which the address holds -----------------------------------------------------------------------------

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  if (given.has("token")) {
    token = given.get("token");
    sessionStorage.setItem("token", token);
    given.delete("token");
    history.replaceState(null, "", `#${given}`);
  }
  const number = (name, otherwise) => Math.max(0, Number.parseInt(given.get(name), 10) || otherwise);
  return {
    q: given.get("q") ?? "",
    ask: given.get("ask") === "1",
    only: given.getAll("only"),
    mode: ["dense", "lexical"].includes(given.get("mode")) ? given.get("mode") : "hybrid",
    k: number("k", 10),
    doc: given.get("doc") ?? "",
    passage: given.get("passage") ?? "",
    from: number("from", 0),
    to: number("to", 0),
  };
}

function address(of) {
  const given = new URLSearchParams();
  if (of.q) given.set("q", of.q.toWellFormed());
  if (of.ask) given.set("ask", "1");
  for (const suffix of of.only) given.append("only", suffix);
  if (of.mode !== "hybrid") given.set("mode", of.mode);
  if (of.k !== 10) given.set("k", of.k);
  if (of.doc) given.set("doc", of.doc);
  if (of.passage) given.set("passage", of.passage);
  if (of.doc || of.passage) {
    given.set("from", of.from);
    given.set("to", of.to);
  }
  return `#${given}`;
}

const CLOSED = { doc: "", passage: "", from: 0, to: 0 };

function go(changes, { replace = false } = {}) {
  const next = { ...state, ...changes };
  if (address(next) !== location.hash) history[replace ? "replaceState" : "pushState"](null, "", address(next));
  show(next);
}

function show(next, { afresh = false } = {}) {
  const before = state;
  state = next;
  const same = (...names) => !afresh && names.every((name) => String(before[name]) === String(next[name]));
  $("query").value = next.q;
  $("mode").value = next.mode;
  for (const chip of $("suffixes").children) chip.setAttribute("aria-pressed", next.only.includes(chip.dataset.suffix));
  $("welcome").hidden = next.q !== "";
  $("hits-title").hidden = next.q === "";
  document.title = next.q ? `${line(next.q)} – semsearch` : "semsearch";
  if (!same("q", "only", "mode", "k")) search(!same("q", "only", "mode"));
  if (!same("q", "only", "ask")) ask();
  if (!same("doc", "passage", "from", "to")) read();
}

// -- searching ------------------------------------------------------------------------------------------------------

function where() {
  return state.only.length ? { suffix: { $in: state.only } } : null;
}

function say(text) {
  $("status").textContent = text;
}

function complain(error) {
  if (error.name === "AbortError") return;
  $("problem").textContent = error instanceof Problem ? shown(error.message) : "Something went wrong in this page.";
  $("problem").hidden = false;
  if (!(error instanceof Problem)) console.error(error);
}

async function search(fresh) {
  searching?.abort();
  $("problem").hidden = true;
  $("more").hidden = true;
  if (!state.q) {
    $("hits").replaceChildren();
    say("");
    return;
  }
  const { signal } = (searching = new AbortController());
  if (fresh) say("Searching …");
  const most = info?.limits.max_k ?? 100;
  const asked = { query: state.q.toWellFormed(), k: Math.min(state.k, most), mode: state.mode, where: where() };
  try {
    const found = await json("/api/search", { body: asked, signal });
    const focused = fresh ? -1 : titles().indexOf(document.activeElement);
    $("hits").replaceChildren(...found.hits.map((hit) => element("li", {}, card(hit))));
    if (focused >= 0) titles()[focused]?.focus();
    markOpen();
    $("more").hidden = found.hits.length < state.k || state.k >= most;
    say(told(found));
  } catch (error) {
    if (error.name !== "AbortError") {
      $("hits").replaceChildren();
      say("");
    }
    complain(error);
  }
}

function told(found) {
  const count = found.hits.length;
  const limits = state.only.length ? ` in ${state.only.join(", ")} files` : "";
  if (!count) return `No passage found for “${line(state.q)}”${limits}.`;
  return `${count} passage${count === 1 ? "" : "s"} for “${line(state.q)}”${limits}, ${milliseconds(found.seconds)}`;
}

function milliseconds(seconds) {
  return seconds < 1 ? `${Math.max(1, Math.round(seconds * 1000))} ms` : `${seconds.toFixed(1)} s`;
}

// Where a place of a document leads: by id, or by passage for an id that an address cannot hold.
function target(documentId, from, to, passageId) {
  const byId = !documentId.includes("\ufffd") || passageId === undefined;
  return { doc: byId ? documentId : "", passage: byId ? "" : String(passageId), from, to };
}

function link(text, to) {
  const made = element("a", { href: address({ ...state, ...to }) }, text);
  made.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(to);
  });
  return made;
}

function title(given, id) {
  return line(given) || line(id.split("/").at(-1)) || "(no name)";
}

function name(hit) {
  return title(hit.title, hit.document_id);
}

function place(hit) {
  const above = line(hit.title);
  let heading = line(hit.heading);
  if (heading === above) heading = "";
  if (above && heading.startsWith(`${above} > `)) heading = heading.slice(above.length + 3);
  const parts = [line(hit.document_id), hit.page === null ? "" : `page ${hit.page}`, heading].filter(Boolean);
  return element("p", { className: "place" }, ...parts.map((part) => element("span", { className: "part" }, part)));
}

function passageText(hit, layers, size, before) {
  const points = Array.from(hit.text);
  const [start, end, left] = excerpt(points, Object.values(layers).flat(), size, before);
  const all = { ...layers, sign: signs(hit.document_id, points) };
  const right = end < points.length;
  return [left ? "… " : null, ...marked(cut(points.slice(start, end), all, start)), right ? " …" : null];
}

function signs(id, points) {
  return PROSE.test(id) ? found(points, SIGNS) : [];
}

function card(hit) {
  const to = target(hit.document_id, hit.start, hit.end, hit.passage_id);
  const made = element("article", { className: "hit", "data-rank": hit.rank });
  made.dataset.passage = hit.passage_id;
  made.append(
    element("h3", {}, link(name(hit), to)),
    place(hit),
    element("p", { className: "text", dir: "auto" }, ...passageText(hit, { word: hit.marks }, EXCERPT)),
    why(hit),
  );
  return made;
}

// -- why a passage was found ----------------------------------------------------------------------------------------

const LEGS = { dense: ["by meaning", "cosine"], lexical: ["by words", "BM25"], rerank: ["reranked", "score"] };

function why(hit) {
  const body = element("div");
  const made = element("details", { className: "why" }, element("summary", {}, "Why this passage"), body);
  const query = state.q.toWellFormed();
  made.addEventListener("toggle", async () => {
    if (!made.open || body.childNodes.length) return;
    body.append(element("p", { className: "legs" }, legs(hit)));
    try {
      const said = await json("/api/explain", { body: { query, passage_id: hit.passage_id } });
      body.append(terms(said.terms), heat(hit, said.tokens));
    } catch (error) {
      complain(error);
    }
  });
  return made;
}

function legs(hit) {
  const told = Object.entries(hit.sources).map(([leg, { rank, score }]) => {
    const [how, what] = LEGS[leg] ?? [line(leg), "score"];
    return `${how}: rank ${rank}, ${what} ${score.toFixed(2)}`;
  });
  return `Score ${hit.score.toFixed(3)}. Found ${told.join("; ")}.`;
}

function bar(share) {
  const inner = element("i");
  inner.style.inlineSize = `${Math.round(100 * Math.max(0, Math.min(1, share)))}%`;
  return element("span", { className: "bar", "aria-hidden": "true" }, inner);
}

function terms(found) {
  const rows = Object.entries(found).sort((a, b) => b[1] - a[1]);
  if (!rows.length) return element("p", {}, "No word of the query is in it.");
  const most = rows[0][1] || 1;
  return element("table", {}, element("caption", { className: "away" }, "Share of each word in the BM25 score"),
    element("tbody", {}, ...rows.map(([term, share]) => element("tr", {},
      element("th", { scope: "row" }, line(term)),
      element("td", {}, bar(share / most)),
      element("td", {}, share.toFixed(2))))));
}

function heat(hit, tokens) {
  if (!tokens.length) return null;
  const points = Array.from(hit.text);
  const sorted = tokens.map((token) => token.similarity).sort((a, b) => a - b);
  const middle = sorted[Math.floor(sorted.length / 2)];
  const range = Math.max(sorted.at(-1) - middle, 1e-9);
  const made = element("p", { className: "heat", dir: "auto" });
  let last = 0;
  for (const { start, end, similarity } of tokens) {
    made.append(shown(points.slice(last, start).join("")));
    const level = Math.max(0, Math.round((4 * (similarity - middle)) / range)); // half of the words have no shade
    const text = shown(points.slice(start, end).join(""));
    made.append(element("span", { className: `h${level}`, title: similarity.toFixed(2) }, text));
    last = end;
  }
  made.append(shown(points.slice(last).join("")));
  return element("div", {}, element("p", {}, "The darker a word, the nearer it is to the query in meaning:"), made);
}

// -- asking ---------------------------------------------------------------------------------------------------------

async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    rest += value ?? "";
    const whole = rest.split("\n");
    rest = whole.pop();
    for (const each of whole) if (each) yield JSON.parse(each);
    if (done) return;
  }
}

async function ask() {
  asking?.abort();
  const asked = state.ask && state.q !== "";
  $("answer").hidden = !asked;
  const body = $("answer-body");
  body.replaceChildren();
  if (!asked) return;
  const { signal } = (asking = new AbortController());
  const said = element("p", { className: "said long", dir: "auto" });
  body.append(element("p", { className: "busy" }, "Reading the passages …"), said);
  body.setAttribute("aria-busy", "true");
  try {
    const question = { question: state.q.toWellFormed(), where: where() };
    for await (const event of lines(await request("/api/ask/stream", { body: question, signal }))) {
      if (signal.aborted) return;
      if (event.type === "piece") said.append(shown(event.text));
      if (event.type === "error") throw new Problem(event.error.message);
      if (event.type === "answer") body.replaceChildren(...answered(event.answer));
    }
  } catch (error) {
    if (error.name !== "AbortError") $("answer").hidden = true;
    complain(error);
  } finally {
    if (!signal.aborted) body.removeAttribute("aria-busy");
  }
}

const percent = (share) => (share < 0.005 ? "below 1 %" : `${Math.round(100 * share)} %`);

function answered(answer) {
  if (!answer.found) return notFound(answer);
  const made = [];
  if (answer.sentences.length) made.push(element("p", { className: "said long", dir: "auto" }, ...sentences(answer)));
  else made.push(element("p", { className: "said", dir: "auto" }, shown(answer.text)));
  const what = answer.sentences.length ? "supported by the passages" : "sure";
  const sure = `${percent(answer.score)} ${what}, ${milliseconds(answer.seconds)}`;
  made.push(element("p", { className: "sure" }, bar(answer.score), sure));
  if (answer.passage) {
    const { passage } = answer;
    if (passage.marks.length) {
      made.push(element("blockquote", { dir: "auto" }, ...around(passage)));
    }
    const page = passage.page === null ? null : `, page ${passage.page}`;
    made.push(element("p", { className: "place" }, "Read in ", candidateLink(answer), page));
  }
  const others = answer.alternatives.filter((other) => other.passage);
  if (others.length) {
    made.push(element("details", {}, element("summary", {}, "Other readings"), element("ul", {}, ...others.map((other) =>
      element("li", {}, `“${shown(other.text)}”, ${percent(other.score)}, in `, candidateLink(other))))));
  }
  return made;
}

// The answer in its paragraph, or as much of it as fits.
function around(passage) {
  const points = Array.from(passage.text);
  const [[first, last]] = passage.marks;
  const before = Array.from(points.slice(0, first).join("").split(/\n\s*\n/).at(-1)).length;
  const after = Array.from(points.slice(last).join("").split(/\n\s*\n/)[0]).length;
  const start = first - Math.min(before, 200), end = last + Math.min(after, 160);
  return [
    before > 200 ? "… " : null,
    ...marked(cut(points.slice(start, end), { span: passage.marks, sign: signs(passage.document_id, points) }, start)),
    after > 160 ? " …" : null,
  ];
}

function candidateLink(candidate) {
  const { passage } = candidate;
  const from = candidate.start ?? passage.start;
  const to = candidate.end ?? passage.end;
  return link(name(passage), target(passage.document_id, from, to, passage.passage_id));
}

function notFound(answer) {
  const made = [element("p", { className: "said" }, "There is no answer in these documents.")];
  const best = answer.alternatives[0];
  if (best?.text && !best.passage) {
    made.push(element("p", { className: "place" }, "What the model wrote is said by no passage:"),
      element("p", { className: "said long unsupported", dir: "auto" }, shown(best.text)));
  } else if (best?.text) {
    made.push(element("p", { className: "place" }, "The best guess is too unlikely to count: ",
      `“${shown(best.text)}” (${percent(best.score)}), in `, candidateLink(best), "."));
  }
  return made;
}

// A generated answer: what no passage says is marked, the rest has links to the places that say so.
function sentences(answer) {
  const points = Array.from(answer.text);
  const nodes = [];
  let last = 0, number = 0;
  for (const sentence of answer.sentences) {
    nodes.push(shown(points.slice(last, sentence.start).join("")));
    const text = shown(sentence.text);
    if (sentence.supported) nodes.push(text);
    else nodes.push(element("span", { className: "unsupported" }, text), element("small", {}, " (no passage says so)"));
    for (const citation of sentence.citations) {
      number += 1;
      const made = link(`[${number}]`, target(citation.document_id, citation.start, citation.end));
      made.setAttribute("aria-label", `Source ${number}: ${line(citation.document_id)}`);
      nodes.push(" ", made);
    }
    last = sentence.end;
  }
  return [...nodes, shown(points.slice(last).join(""))];
}

// -- reading --------------------------------------------------------------------------------------------------------

const partSize = () => Math.min(PART, info?.limits.max_window ?? PART);

async function read() {
  reading?.abort();
  const open = state.doc !== "" || state.passage !== "";
  const wasOpen = !$("reader").hidden;
  markOpen();
  if (!open) {
    $("reader").hidden = true;
    document.body.classList.remove("reading");
    if (wasOpen) comeBack();
    return;
  }
  const { signal } = (reading = new AbortController());
  const { from, to } = state;
  const size = partSize();
  const start = Math.max(0, from - Math.floor(BEFORE * size));
  const named = state.doc ? { id: state.doc, start } : { passage_id: state.passage };
  try {
    const part = await json(`/api/document?${parameters({ ...named, size })}`, { signal });
    open_(part, from, to);
  } catch (error) {
    complain(error);
  }
}

function parameters(given) {
  const made = new URLSearchParams(given);
  if (state.q) made.set("query", state.q.toWellFormed());
  return made;
}

function open_(part, from, to) {
  $("reader-title").textContent = title(part.title, part.id);
  const pages = Number.isInteger(part.metadata.pages) ? `, ${part.metadata.pages} pages` : "";
  $("reader-place").textContent = `${line(part.id)} · ${part.length.toLocaleString("en")} characters${pages}`;
  $("pages").classList.toggle("code", !PROSE.test(part.id) && !Number.isInteger(part.metadata.pages));
  const text = element("div", { className: "text" });
  text.append(...textOf(part, from, to));
  $("pages").replaceChildren(text);
  if (part.start > 0) $("pages").prepend(further("Earlier text", part, text, from, to, -1));
  if (part.end < part.length) $("pages").append(further("Later text", part, text, from, to, 1));
  $("reader").hidden = false;
  document.body.classList.add("reading");
  const goal = text.querySelector(".target");
  $("pages").scrollTop = 0;
  $("reader-title").focus({ preventScroll: true });
  if (matchMedia("(min-width: 64rem)").matches) {
    const below = (goal ?? text).getBoundingClientRect().top - $("pages").getBoundingClientRect().top;
    if (goal) $("pages").scrollTop = below - $("pages").clientHeight / 3;
  } else (goal ?? $("reader")).scrollIntoView({ block: goal ? "center" : "start" });
}

// The nodes of a part: what was found in a .target, the query's words in <mark>, a line where a page begins.
function textOf(part, from, to) {
  const prose = !$("pages").classList.contains("code");
  const points = Array.from(prose ? unwrapped(part.text) : part.text);
  const moved = (ranges) => ranges.map(([start, end]) => [start + part.start, end + part.start]);
  const layout = prose ? { sign: moved(found(points, SIGNS)), title: moved(found(points, TITLES)) } : {};
  const pieces = cut(points, { target: [[from, to]], word: moved(part.marks), ...layout }, part.start);
  const nodes = [];
  let page = part.page;
  let goal = null;
  if (page !== null && part.start === 0) nodes.push(pageLine(page));
  for (const piece of pieces) {
    const inTarget = piece.in.has("target");
    if (inTarget && goal === null) nodes.push((goal = element("span", { className: "target" })));
    if (!inTarget) goal = null;
    piece.text.split("\f").forEach((text, number) => {
      if (number > 0 && page !== null) {
        page += 1;
        (goal ?? { append: (node) => nodes.push(node) }).append(pageLine(page));
      }
      for (const node of marked([{ ...piece, text }])) goal ? goal.append(node) : nodes.push(node);
    });
  }
  return nodes;
}

function pageLine(page) {
  return element("span", { className: "page" }, `Page ${page}`);
}

// A button for the text before (step -1) or after (step 1) what is shown.
function further(label, part, text, from, to, step) {
  const button = element("button", { type: "button" }, label);
  const id = state.doc; // the reader may show another one when the part comes
  let [first, last] = [part.start, part.end];
  let loading = false;
  button.addEventListener("click", async () => {
    if (loading) return; // a second click would put the same part there twice
    loading = true;
    const start = step < 0 ? Math.max(0, first - partSize()) : last;
    const size = step < 0 ? first - start : partSize();
    try {
      const more = await json(`/api/document?${parameters({ id, start, size })}`);
      if (!text.isConnected) return;
      const height = $("pages").scrollHeight;
      text[step < 0 ? "prepend" : "append"](...textOf(more, from, to));
      if (step < 0) $("pages").scrollTop += $("pages").scrollHeight - height;
      [first, last] = [Math.min(first, more.start), Math.max(last, more.end)];
      if (step < 0 ? first === 0 : last >= more.length) button.remove();
    } catch (error) {
      complain(error);
    } finally {
      loading = false;
    }
  });
  button.hidden = id === "";
  return button;
}

let opener = null; // the passage whose title opened the reader

// An address without whether an answer was asked for: the hits of a search stay when it is.
function place_(hash) {
  const given = new URLSearchParams(hash.slice(1));
  given.delete("ask");
  return String(given);
}

function markOpen() {
  const shows = state.doc || state.passage ? place_(address(state)) : null;
  for (const each of document.querySelectorAll(".hit")) {
    const link = each.querySelector("h3 a");
    const open = shows !== null && place_(link.hash) === shows;
    each.classList.toggle("open", open);
    if (open) {
      link.setAttribute("aria-current", "true");
      opener = each.dataset.passage;
    } else {
      link.removeAttribute("aria-current");
    }
  }
}

function comeBack() {
  const hit = [...document.querySelectorAll(".hit")].find((each) => each.dataset.passage === opener);
  (hit?.querySelector("h3 a") ?? titles()[0] ?? $("query")).focus();
}

// -- keyboard -------------------------------------------------------------------------------------------------------

const titles = () => [...document.querySelectorAll("#answer-body > .place a, #hits h3 a")];

function step(by) {
  const all = titles();
  const at = all.indexOf(document.activeElement);
  if (at + by < 0) $("query").focus();
  else all[Math.min(all.length - 1, at + by)]?.focus();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || $("login").open) return;
  const inBox = document.activeElement === $("query");
  const elsewhere = document.activeElement.matches("select, textarea") || $("pages").contains(document.activeElement);
  if (event.key === "/" && !inBox) {
    event.preventDefault();
    $("query").focus();
    $("query").select();
  } else if (event.key === "Escape") {
    if (!$("reader").hidden) {
      event.preventDefault();
      go(CLOSED);
    } else if (!inBox) $("query").focus();
  } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && !elsewhere) {
    if (!titles().length || (inBox && event.key === "ArrowUp") || document.activeElement.closest(".reader")) return;
    event.preventDefault();
    step(event.key === "ArrowDown" ? 1 : -1);
  }
});

// -- syncing --------------------------------------------------------------------------------------------------------

function offerSync() {
  const said = element("span", { role: "status" });
  const buttons = info.roots.map((root) => {
    const button = element("button", { type: "button" }, `Update from ${line(root)}`);
    button.addEventListener("click", () => sync(root, said, buttons));
    return button;
  });
  $("sync").replaceChildren(...buttons.flatMap((button) => [button, " "]), said);
  $("sync").hidden = buttons.length === 0;
}

async function sync(root, said, buttons) {
  for (const button of buttons) button.disabled = true;
  try {
    let job = await json("/api/sync", { body: { root } });
    while (job.state === "running") {
      const at = Math.min(job.done + 1, job.total);
      said.textContent = job.total ? `Reading file ${at} of ${job.total} …` : "Looking for changes …";
      await new Promise((resolve) => setTimeout(resolve, 400));
      job = await json(`/api/sync/${job.id}`);
    }
    said.textContent = job.report
      ? `${job.report.added} added, ${job.report.updated} updated, ${job.report.removed} removed, ${job.report.failed} failed`
      : `The update ended: ${job.error ? shown(job.error.message) : job.state}`;
    await describe();
    if (job.report && state.q) show(state, { afresh: true });
  } catch (error) {
    said.textContent = "";
    complain(error);
  } finally {
    for (const button of buttons) button.disabled = false;
  }
}

// -- the beginning --------------------------------------------------------------------------------------------------

async function describe() {
  info = await json("/api/info");
  const many = (count, what) => `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`;
  const sizes = `${many(info.documents, "document")} in ${many(info.passages, "passage")}`;
  $("collection").textContent = `“${line(info.name)}” holds ${sizes}.`;
  $("query").maxLength = info.limits.max_query;
  const known = Object.entries(info.suffixes).sort((a, b) => b[1] - a[1]).slice(0, 16);
  $("suffixes").replaceChildren(...(known.length < 2 ? [] : known.map(([suffix, count]) => chip(suffix, count))));
}

function chip(suffix, count) {
  const made = element("button", { type: "button" }, `${line(suffix)} ${count.toLocaleString("en")}`);
  made.dataset.suffix = suffix;
  made.setAttribute("aria-pressed", state.only.includes(suffix));
  made.addEventListener("click", () => {
    const only = state.only.includes(suffix) ? state.only.filter((each) => each !== suffix) : [...state.only, suffix];
    go({ only, k: 10, ...CLOSED });
  });
  return made;
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  submit(false);
});
$("ask").addEventListener("click", () => submit(true));
$("home").addEventListener("click", (event) => {
  event.preventDefault();
  go({ q: "", ask: false, only: [], mode: "hybrid", k: 10, ...CLOSED });
  $("query").focus();
});
$("mode").addEventListener("change", () => go({ mode: $("mode").value, k: 10, ...CLOSED }));
$("more").addEventListener("click", () => go({ k: Math.min(state.k + 10, info?.limits.max_k ?? 100) }, { replace: true }));
$("close").addEventListener("click", () => go(CLOSED));
window.addEventListener("popstate", () => show(readAddress()));

function submit(asked) {
  const q = $("query").value.trim();
  if (!q) {
    $("query").focus();
    return;
  }
  const same = q === state.q && asked === state.ask;
  if (same) show({ ...state, ...CLOSED }, { afresh: true });
  else go({ q, ask: asked, k: 10, ...CLOSED });
}

async function begin() {
  state = readAddress();
  if (!state.q) $("query").focus();
  try {
    await describe();
    offerSync();
  } catch (error) {
    complain(error);
  }
  show(state, { afresh: true });
}

begin();
