// Texts and the ranges that are to be seen in them. The server counts characters (code points), JavaScript UTF-16 units:
// every text is taken apart by Array.from before it is cut.
//
// Nothing here, nor in app.js, makes markup of a string: elements are made one by one, texts are text nodes.

// An element with properties and children; a string child becomes a text node.
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((each) => each !== null && each !== undefined));
  return made;
}

// What a person may see of a text: control characters as their pictures, and none of the characters that turn or hide
// what stands after them.
export function shown(text) {
  return text
    .replace(/[\u0000-\u0008\u000b\u000e-\u001f]/g, (each) => String.fromCharCode(0x2400 + each.charCodeAt(0)))
    .replace(/[\u007f-\u009f]/g, "\ufffd")
    .replace(/[\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/gu, "");
}

// The same on one line, for names and titles.
export function line(text) {
  return shown(text).replace(/\s+/g, " ").trim();
}

// A text cut where ranges begin or end: pieces of {text, start, in}, `in` being the names of the layers around it.
// `layers` maps names to lists of [start, end] in characters; `offset` is where the text begins in their counting.
export function cut(text, layers, offset = 0) {
  const points = Array.isArray(text) ? text : Array.from(text);
  const end = offset + points.length;
  const events = new Map([[offset, []], [end, []]]);
  for (const [name, ranges] of Object.entries(layers)) {
    for (const [from, to] of ranges) {
      const first = Math.max(from, offset), last = Math.min(to, end);
      if (first >= last) continue;
      events.set(first, [...(events.get(first) ?? []), [name, 1]]);
      events.set(last, [...(events.get(last) ?? []), [name, -1]]);
    }
  }
  const places = [...events.keys()].sort((a, b) => a - b);
  const depth = {};
  const pieces = [];
  places.forEach((place, number) => {
    for (const [name, step] of events.get(place)) depth[name] = (depth[name] ?? 0) + step;
    const next = places[number + 1];
    if (next === undefined) return;
    const inside = Object.keys(depth).filter((name) => depth[name] > 0);
    pieces.push({ text: points.slice(place - offset, next - offset).join(""), start: place, in: new Set(inside) });
  });
  return pieces;
}

// Where a pattern is found in a text: ranges in characters.
export function found(points, pattern) {
  const text = points.join("");
  const ranges = [...text.matchAll(pattern)].map((match) => [match.index, match.index + match[0].length]);
  if (text.length === points.length || !ranges.length) return ranges;
  const places = new Map(); // from UTF-16 units to characters
  let unit = 0;
  points.forEach((point, number) => {
    places.set(unit, number);
    unit += point.length;
  });
  places.set(unit, points.length);
  return ranges.map(([start, end]) => [places.get(start), places.get(end)]);
}

// What only says how a text is laid out, in Markdown and its like: it is shown fainter.
export const SIGNS = /^#{1,6}(?= )|\*\*|^(={3,}|-{3,}|~{3,})$/gm;
export const TITLES = /^#{1,6} .*$/gm;

// Nodes for the pieces of a text: <mark> for the layer "word", <mark class="span"> for "span", <b> for "title", <span
// class="sign"> for "sign".
export function marked(pieces) {
  return pieces.map((piece) => {
    const text = shown(piece.text);
    let node = document.createTextNode(text);
    if (piece.in.has("span")) node = element("mark", { className: "span" }, node);
    else if (piece.in.has("word")) node = element("mark", {}, node);
    else if (piece.in.has("sign")) node = element("span", { className: "sign" }, node);
    return piece.in.has("title") ? element("b", {}, node) : node;
  });
}

const HEADINGS = /^(\s*(#{1,6} .*|.+\n[=~^"'-]{3,})\s*\n)+/;

// The part of a passage to be shown in a list: at most `size` characters, those with the most marks: [start, end,
// whether something was left out before]. Headings that a passage begins with are left out: they stand above it.
export function excerpt(points, marks, size, before = 60) {
  const skipped = Array.from(HEADINGS.exec(points.join(""))?.[0] ?? "").length;
  const first = skipped < points.length && points.slice(skipped).join("").trim() ? skipped : 0;
  if (points.length - first <= size) return [first, points.length, false];
  let best = first, most = -1;
  for (const [start] of [[first, 0], ...marks]) {
    const from = Math.max(first, Math.min(start - before, points.length - size));
    const seen = marks.filter(([first, last]) => first >= from && last <= from + size).length;
    if (seen > most) [best, most] = [from, seen];
  }
  const space = (place) => /\s/.test(points[place] ?? " ");
  let start = best, end = Math.min(points.length, best + size);
  for (let step = 0; step < 20 && start > first && !space(start - 1); step += 1) start += 1;
  for (let step = 0; step < 20 && end < points.length && !space(end); step += 1) end -= 1;
  return [start, end, start > first];
}

// Lines that were broken at a width, as prose in plain text is, joined for another width. A line break becomes a space,
// so that offsets stay. Only long lines are joined: short ones were broken on purpose.
export function unwrapped(text) {
  return text.replace(/(?<=[^\n]{56})\n(?=[^\s\-*+#>|=~`.:•–0-9])/g, " ");
}
