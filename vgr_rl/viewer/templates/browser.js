// The browser of samples: filters, the list, and the group that is looked at.
const makeBrowser = (sets) => {
  const filters = byId("filters"), detail = byId("detail"), count = byId("count"), box = byId("list"), help = byId("help");
  const fields = filters.elements;
  let set = null, entries = [], at = -1, group = null;
  let chosen = {}; // by side: which rollout of the group is looked at
  let passed = new Set(); // which of its rollouts passed the filters when it was drawn

  const list = makeList(box, (index) => open(index));

  const query = () => ({
    words: fields.text.value.toLowerCase().split(/\s+/).filter(Boolean),
    step: fields.step.value,
    source: fields.source.value,
    outcome: fields.outcome.value,
    measure: fields.measure.value,
    bound: fields.bound.value,
    limit: fields.limit.value === "" ? null : Number(fields.limit.value),
    order: fields.order.value,
  });

  const options = (field, names, any) => {
    const kept = field.value, told = names.join("\n");
    if (field.dataset.told === told) return; // a menu that is open stays open
    field.dataset.told = told;
    const found = [...(any ? [h("option", { value: "" }, any)] : []), ...names.map((name) => h("option", { value: name }, words(String(name))))];
    field.replaceChildren(...found);
    if (found.some(({ value }) => value === kept)) field.value = kept;
    field.closest("label").hidden = any !== undefined && names.length < 2;
  };
  const distinct = (name) => [...new Set(set.groups.map((each) => each[name]))].filter((value) => value !== null && value !== "");

  const offer = () => {
    options(fields.step, distinct("step").sort((one, other) => one - other), "all");
    options(fields.source, distinct("source").sort(), "all");
    options(fields.outcome, Object.keys(OUTCOMES).filter((name) => set.sides.length || !name.startsWith("became")), "all");
    options(fields.measure, measureNames(set));
    options(fields.order, ordersOf(set));
  };

  const filter = () => {
    entries = listed(set, query());
    const index = entries.findIndex((entry) => entry.group.key === group?.key);
    const rollouts = entries.reduce((sum, { hits }) => sum + hits.size, 0);
    count.textContent = entries.length === set.groups.length ? `${counted(entries.length, "prompt")}, ${counted(rollouts, "response")}`
      : `${counted(entries.length, "prompt")} of ${set.groups.length.toLocaleString("en")}, ${counted(rollouts, "response")}`;
    at = index;
    list.show(entries, set, index);
    if (index >= 0) open(index);
    else if (entries.length) { list.top(); open(0); }
    else { group = null; detail.replaceChildren(h("p", { class: "none" }, "No sample passes these filters.")); }
  };

  const choose = (next) => {
    set = next;
    for (const button of byId("sets").children) button.setAttribute("aria-pressed", String(button.value === String(sets.indexOf(set))));
    byId("set-note").textContent = set.note;
    group = null;
    offer();
    filter();
  };

  const open = (index) => {
    const entry = entries[index], { hits } = entry;
    const same = entry.group === group && hits.size === passed.size && [...hits].every((rollout) => passed.has(rollout));
    at = index;
    list.choose(index);
    if (entry.group.key !== group?.key) chosen = {};
    group = entry.group;
    if (!same) {
      for (const side of sidesOf(group)) {
        const own = placesOf(side);
        const hit = (index) => hits.has(group.rollouts[index]);
        if (!hit(chosen[side])) chosen[side] = own.find(hit) ?? chosen[side] ?? own[0]; // a side without one is shown as well
      }
      show();
    }
    byId("position").textContent = `${(index + 1).toLocaleString("en")} / ${entries.length.toLocaleString("en")}`;
  };
  const sidesOf = ({ rollouts }) => [...new Set(rollouts.map(({ side }) => side ?? 0))];
  const placesOf = (side) =>
    group.rollouts.map((_, index) => index).filter((index) => (group.rollouts[index].side ?? 0) === side);
  const titleOf = (rollout) => {
    const several = group.rollouts.filter(({ side }) => side === rollout.side).length > 1;
    const own = "ollout " + rollout.number;
    return !set.sides.length ? "R" + own : set.sides[rollout.side] + (several ? ", r" + own : "");
  };

  const show = () => {
    const most = Math.max(...group.rollouts.map(({ advantage }) => Math.abs(advantage ?? 0)));
    const { hits } = entries[at];
    passed = hits;
    const strip = group.rollouts.map((rollout, index) => card(group, rollout, {
      title: set.sides.length ? titleOf(rollout) : "#" + rollout.number, most, dimmed: !hits.has(rollout),
      pressed: chosen[rollout.side ?? 0] === index, choose: () => look(index) }));
    const correct = (option) => option.startsWith(group.answer + ". ");
    detail.replaceChildren(
      h("div", { class: "question" },
        h("h3", { dir: "auto" }, group.question || "No question"),
        group.options.length > 0 && h("ul", { class: "options", "aria-label": "Options" }, group.options.map((option) =>
          h("li", { class: correct(option) ? "true" : null, dir: "auto" }, option, correct(option) && h("span", {}, " ✓ true")))),
        h("p", { class: "meta" }, !group.options.some(correct) && ["true answer ", h("b", { dir: "auto" }, group.answer || "none"), " · "],
          [group.step === null ? "" : "step " + group.step, group.split, group.source, group.id].filter(Boolean).join(" · "))),
      ...(group.rollouts.length > sidesOf(group).length
        ? [h("div", { class: "strip", role: "group", "aria-label": "Responses to this question" }, strip)] : []),
      h("div", { class: "focus" }, sidesOf(group).map((side) => {
        const rollout = group.rollouts[chosen[side]];
        return panel(group, rollout, titleOf(rollout));
      })));
    for (const element of detail.querySelectorAll(".panel")) element.addEventListener("pointerleave", light);
  };

  const look = (index) => {
    chosen[group.rollouts[index].side ?? 0] = index;
    const focused = document.activeElement?.classList.contains("rollout");
    show();
    if (focused) detail.querySelectorAll(".rollout")[index].focus();
  };
  const step = (by) => { if (entries.length) open(Math.min(Math.max(at + by, 0), entries.length - 1)); };
  const turn = (by) => {
    if (!group) return;
    const side = Math.max(...sidesOf(group)); // of a comparison: the later model
    const own = placesOf(side);
    look(own[(own.indexOf(chosen[side]) + by + own.length) % own.length]);
  };
  const truth = (shown = byId("truth").getAttribute("aria-pressed") !== "true") => {
    byId("truth").setAttribute("aria-pressed", String(shown));
    byId("samples").classList.toggle("untrue", !shown);
  };

  const KEYS = {
    j: () => step(1), k: () => step(-1), l: () => turn(1), h: () => turn(-1), t: () => truth(),
    "/": () => fields.text.focus(), "?": () => help.showModal(),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    if (event.target.closest("input, select, textarea")) {
      if (event.key === "Escape") { event.target.blur(); }
      return;
    }
    if (byId("keys").checked && KEYS[event.key]) { event.preventDefault(); KEYS[event.key](); }
  });
  const pages = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8, Home: -Infinity, End: Infinity };
  box.addEventListener("keydown", (event) => {
    if (!(event.key in pages)) return;
    event.preventDefault();
    step(pages[event.key]);
  });
  detail.addEventListener("keydown", (event) => {
    if (!event.target.closest(".strip") || !["ArrowRight", "ArrowLeft"].includes(event.key)) return;
    event.preventDefault();
    turn(event.key === "ArrowRight" ? 1 : -1);
  });
  for (const name of ["pointerover", "focusin", "focusout"]) detail.addEventListener(name, light);

  let waiting = 0;
  fields.order.addEventListener("input", () => { group = null; }); // who orders anew wants the first
  filters.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 120); });
  filters.addEventListener("submit", (event) => { event.preventDefault(); filter(); });
  filters.addEventListener("reset", () => setTimeout(filter));
  byId("truth").addEventListener("click", () => truth());
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("show-help").addEventListener("click", () => help.showModal());

  byId("sets").replaceChildren(...sets.map(({ title, groups }, index) =>
    h("button", { type: "button", value: index, onclick: () => choose(sets[index]) }, title, h("span", {}, groups.length.toLocaleString("en")))));
  byId("sets").hidden = sets.length < 2;
  choose(sets[0]);
  return { refresh() { offer(); filter(); } };
};

const start = async () => {
  const sets = await unpack(byId("packed").textContent);
  if (sets.length) { byId("samples").hidden = false; makeBrowser(sets); }
};
