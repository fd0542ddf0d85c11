// The list of groups: rows are made for what is in view only.
const ROW_PX = 52;

const makeList = (box, choose) => {
  const rows = h("div", { class: "rows" });
  box.append(rows);
  let entries = [], set = null, chosen = -1;

  const dots = ({ group, hits }) => h("span", { class: "dots", "aria-hidden": "true" }, group.rollouts.map((rollout) =>
    h("i", { class: (rollout.right === null ? "open" : rollout.right ? "right" : "wrong") + (hits.has(rollout) ? "" : " dimmed") })));
  const told = ({ group }) => set.sides.length
    ? [group.source, "reward " + signed(gain(group))]
    : [group.step === null ? "" : "step " + group.step, group.split === "train" ? "" : group.split, "reward " + number(meanOf(group.rollouts, "reward"))];
  const outcomes = ({ group }) => {
    const graded = group.rollouts.filter(({ right }) => right !== null);
    return graded.length ? `, ${graded.filter(({ right }) => right).length} of ${graded.length} right` : "";
  };
  const row = (entry, index) => h("div", {
      role: "option", id: "row-" + index, class: "row", "--at": index * ROW_PX + "px", "aria-selected": String(index === chosen),
      "aria-setsize": entries.length, "aria-posinset": index + 1, onclick: () => choose(index),
      "aria-label": [entry.group.question, ...told(entry)].filter(Boolean).join(", ") + outcomes(entry) },
    h("span", { class: "asked", dir: "auto" }, entry.group.question || entry.group.id),
    h("span", { class: "about" }, h("span", {}, told(entry).filter(Boolean).join(" · ")), dots(entry)));

  const draw = () => {
    const first = Math.max(0, Math.floor(box.scrollTop / ROW_PX) - 4);
    const last = Math.min(entries.length, Math.ceil((box.scrollTop + box.clientHeight) / ROW_PX) + 4);
    rows.replaceChildren(...entries.slice(first, last).map((entry, index) => row(entry, first + index)));
    if (chosen >= first && chosen < last) box.setAttribute("aria-activedescendant", "row-" + chosen);
    else box.removeAttribute("aria-activedescendant");
  };
  let asked = 0;
  box.addEventListener("scroll", () => { cancelAnimationFrame(asked); asked = requestAnimationFrame(draw); });
  new ResizeObserver(draw).observe(box);

  return {
    // Shows other entries; what was in view stays where it was when entries came before it.
    show(shown, of, index) {
      const moved = set === of && chosen >= 0 && index >= 0 && box.scrollTop > 0 ? (index - chosen) * ROW_PX : 0;
      [entries, set, chosen] = [shown, of, index];
      rows.style.height = entries.length * ROW_PX + "px";
      box.scrollTop += moved;
      draw();
    },
    choose(index) {
      chosen = index;
      const top = index * ROW_PX;
      if (top < box.scrollTop) box.scrollTop = top;
      else if (top + ROW_PX > box.scrollTop + box.clientHeight) box.scrollTop = top + ROW_PX - box.clientHeight;
      draw();
    },
    top() { box.scrollTop = 0; },
  };
};
