// One rollout: its picture with what it and the truth mark, its text, the overlaps, and what it earned.
const COLOURS = 6;
const colour = (index) => "c" + (index % COLOURS);
const judged = ({ right }) => (right === null ? ["", "·", "not graded"] : right ? ["good", "✓", "right"] : ["bad", "✗", "wrong"]);

const region = (item, kind, link) => {
  const { shape, fill, outline } = drawnAs(item, link);
  return svg("g", { class: "region " + kind, ...link.data },
    svg(shape, { class: "tint", ...fill }), svg(shape, { class: "halo", ...outline }), svg(shape, { class: "edge", ...outline }));
};

// What a pointer meets of the truth: it lies below all that the model marked, the lines of the truth above.
const ground = (item, link) => {
  const { shape, fill } = drawnAs(item, link);
  return svg(shape, { class: "ground truth", ...link.data, ...fill });
};

const drawnAs = ({ box, mask }, { size }) => {
  if (mask) {
    const { fill, outline } = maskPaths(mask), [height, width] = mask.size;
    const transform = `scale(${size[0] / width} ${size[1] / height})`;
    return { shape: "path", fill: { d: fill, transform }, outline: { d: outline, transform } };
  }
  const [x1, y1, x2, y2] = box;
  const frame = { x: x1, y: y1, width: Math.max(0, x2 - x1), height: Math.max(0, y2 - y1) };
  return { shape: "rect", fill: frame, outline: frame };
};

// The number of a region: what the model marked at its first corner, the truth at its last.
const tag = ({ box: [x1, y1, x2, y2] }, text, kind, link) => {
  const [x, y] = kind === "truth" ? [x2, y2] : [x1, y1], [width, height] = link.size;
  const share = (at, side, [least, most]) => (100 * Math.min(Math.max(at / side, least), most)).toFixed(2) + "%";
  const inside = kind === "truth" ? [0.05, 1] : [0, 0.95];
  return h("span", { class: "tag " + kind, ...link.data, left: share(x, width, inside), top: share(y, height, inside) }, text);
};

const overlay = (group, rollout, { tags }) => {
  const size = group.size;
  const drawn = (items, name, kind) =>
    items.map((item, index) => ({ item, index, link: { size, data: { ["data-" + name]: index } }, kind: kind(index) })).filter(({ item }) => item.box);
  const truth = drawn(group.truth, "t", () => "truth"), found = drawn(rollout.evidence, "e", (index) => "found " + colour(index));
  const all = [...found, ...truth]; // a broken line over a whole one shows both
  const frame = h("div", { class: "picture" + (Math.max(...size) <= 256 ? " crisp" : ""), "--ratio": size.join("/") },
    svg("svg", { viewBox: `0 0 ${size.join(" ")}`, preserveAspectRatio: "none", "aria-hidden": "true" },
      truth.map(({ item, link }) => ground(item, link)),
      all.map(({ item, kind, link }) => region(item, kind, link))),
    tags && all.map(({ item, index, kind, link }) => tag(item, (kind === "truth" ? "T" : "") + (index + 1), kind, link)));
  picture(group.picture).then(({ source, problem }) => frame.prepend(problem
    ? h("p", { class: "problem" }, problem)
    : h("img", { src: source, alt: tags ? "The picture that the question is about" : "", decoding: "async" })));
  return frame;
};

// The text, a sentence at a time; a sentence carries the numbers of the boxes that it writes.
const responseText = (rollout) => {
  const written = {}; // numbers of what each sentence marks
  for (const [, sentence, evidence] of rollout.pieces) if (evidence !== undefined) (written[sentence] ??= []).push(evidence);
  let last = null;
  const found = [];
  for (const [text, sentence, evidence] of rollout.pieces) {
    if (sentence < 0) found.push(h("span", { class: "protocol" }, text));
    else {
      if (last?.sentence !== sentence) {
        last = { sentence, element: h("span", { class: "sentence", "data-e": written[sentence]?.join(" ") }) };
        found.push(last.element);
      }
      last.element.append(evidence === undefined ? text
        : h("mark", { class: colour(evidence), "data-e": evidence, tabindex: 0 }, text));
    }
  }
  return h("p", { class: "response", dir: "auto" }, found, rollout.omitted && h("span", { class: "protocol" }, " … " + rollout.omitted));
};

const overlaps = (group, rollout) => {
  if (!rollout.evidence.length || !group.truth.length)
    return h("p", { class: "none" }, rollout.evidence.length ? "No true boxes to compare with." : "Nothing was marked.");
  const best = group.truth.map((_, column) => Math.max(...rollout.iou.map((row) => row[column])));
  return h("div", { class: "scroll" }, h("table", { class: "ious" },
    h("caption", {}, "IoU of each pair"),
    h("thead", {}, h("tr", {}, h("td"), group.truth.map((target, index) =>
      h("th", { scope: "col", "data-t": index }, "T" + (index + 1), target.name && h("span", { class: "name" }, target.name))))),
    h("tbody", {}, rollout.iou.map((row, index) => h("tr", {},
      h("th", { scope: "row", "data-e": index }, h("span", { class: "swatch " + colour(index) }), index + 1),
      row.map((value, column) =>
        h("td", { "data-e": index, "data-t": column, "--share": value, class: value && value === best[column] ? "best" : null }, number(value))))))));
};

const earned = (rollout) => {
  const row = ([name, value, weight, status, reason]) => status !== "ok"
    ? h("tr", { class: status === "failed" ? "failed" : "absent" }, h("th", { scope: "row" }, words(name)),
        h("td", { colspan: 3, title: reason || null }, words(status), reason && h("span", { class: "reason" }, reason)))
    : h("tr", {}, h("th", { scope: "row" }, words(name)), h("td", {}, number(value)),
        h("td", {}, weight === null ? "" : "× " + Number(weight.toPrecision(4))), h("td", {}, weight === null ? "" : number(value * weight)));
  const facts = [["advantage", signed(rollout.advantage)], ["tokens", rollout.length + (rollout.truncated ? ", cut" : "")],
    ["malformed boxes", rollout.malformed || null], ...Object.entries(rollout.parts).filter(([name]) => !rollout.terms.some(([term]) => term === name)).map(([name, value]) => [words(name), number(value)])];
  return [
    h("table", { class: "terms" }, h("caption", {}, "Reward"),
      rollout.terms.length > 0 && h("thead", { class: "quiet" }, h("tr", {}, ["term", "value", "weight", "earned"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, rollout.terms.map(row)),
      h("tfoot", {}, h("tr", {}, h("th", { scope: "row" }, "reward"), h("td", { colspan: 3 }, rollout.score === null ? "none" : number(rollout.score))))),
    h("dl", { class: "parts" }, facts.filter(([, value]) => value !== null && value !== "–").map(([name, value]) =>
      h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
  ];
};

const badge = (rollout) => {
  const [kind, sign, word] = judged(rollout);
  return h("span", { class: "badge " + kind }, `${sign} ${word}`, rollout.right !== null && ": " + rollout.answer);
};

const panel = (group, rollout, title) =>
  h("article", { class: "panel", "aria-label": title },
    h("h4", {}, title, badge(rollout)),
    h("div", { class: "parted" },
      h("div", {}, overlay(group, rollout, { tags: true })),
      h("div", { class: "told" }, responseText(rollout), h("div", { class: "numbers" }, overlaps(group, rollout), h("div", {}, earned(rollout))))));

const excerpt = ({ pieces }) => pieces
  .map(([text, sentence, evidence]) => (evidence !== undefined ? "▢" : sentence >= 0 ? text : text === "<answer>" ? "→ " : " "))
  .join("").trim().slice(0, 200);

const card = (group, rollout, { title, pressed, dimmed, most, choose }) => {
  const [kind, sign, word] = judged(rollout);
  const advantage = rollout.advantage;
  return h("button", { type: "button", class: "rollout" + (dimmed ? " dimmed" : ""), "aria-pressed": String(pressed), onclick: choose,
      "aria-label": `${title}, ${word}, reward ${number(rollout.score)}${advantage === null ? "" : ", advantage " + signed(advantage)}` },
    h("span", { class: "head" }, title, h("span", { class: "badge " + kind }, sign), h("b", {}, number(rollout.score))),
    overlay(group, rollout, { tags: false }),
    advantage !== null && h("span", { class: "advantage" + (advantage < 0 ? " below" : ""), "--share": most ? Math.abs(advantage) / most : 0 },
      h("i"), signed(advantage)),
    h("span", { class: "excerpt", dir: "auto" }, excerpt(rollout)));
};

// Pointing at a box, its text, its sentence or its numbers shows all of them.
const shares = (one, other) => one !== undefined && other !== undefined && one.split(" ").some((index) => other.split(" ").includes(index));
const light = (event) => {
  const of = event.target.closest(".panel");
  if (!of) return;
  const from = event.type === "pointerleave" || event.type === "focusout" ? null : event.target.closest("[data-e], [data-t]");
  of.classList.toggle("lit", from !== null);
  for (const twin of of.querySelectorAll("[data-e], [data-t]"))
    twin.classList.toggle("on", from !== null && (shares(from.dataset.e, twin.dataset.e) || shares(from.dataset.t, twin.dataset.t)));
};
