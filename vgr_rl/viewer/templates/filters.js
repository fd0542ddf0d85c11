// Which groups are listed, and in which order. A group is listed when one of its rollouts passes every filter.
const textOf = (rollout) => rollout.pieces.map(([text]) => text).join("");

const searched = new WeakMap(); // what a rollout is searched by, made when it is first searched
const haystack = (group, rollout) => {
  if (!searched.has(rollout))
    searched.set(rollout, [group.id, group.question, group.answer, ...group.options, textOf(rollout)].join("\n").toLowerCase());
  return searched.get(rollout);
};

const MEASURES = {
  reward: (rollout) => rollout.score,
  advantage: (rollout) => rollout.advantage,
  tokens: (rollout) => rollout.length,
  boxes: (rollout) => rollout.evidence.length,
};
const measured = (rollout, name) => (name in MEASURES ? MEASURES[name](rollout) : rollout.parts[name]) ?? null;
const measureNames = (set) => {
  const parts = new Set();
  for (const group of set.groups) for (const rollout of group.rollouts) for (const name in rollout.parts) parts.add(name);
  return [...new Set([...Object.keys(MEASURES), ...parts])];
};

const rightOn = (group, side) => // null where nothing is graded
  mean(group.rollouts.filter((rollout) => rollout.side === side && rollout.right !== null).map(({ right }) => +right));
const change = (before, after) => (before === null || after === null ? null : after - before);
const scoreOn = (group, side) => meanOf(group.rollouts.filter((rollout) => rollout.side === side), "reward");
const meanOf = (rollouts, name) =>
  mean(rollouts.map((rollout) => measured(rollout, name)).filter((value) => value !== null));
const gain = (group) => change(scoreOn(group, 0), scoreOn(group, 1));

const OUTCOMES = {
  right: (group, rollout) => rollout.right === true,
  wrong: (group, rollout) => rollout.right === false,
  "not graded": (group, rollout) => rollout.right === null,
  "became right": (group) => change(rightOn(group, 0), rightOn(group, 1)) > 0,
  "became wrong": (group) => change(rightOn(group, 0), rightOn(group, 1)) < 0,
};

const passes = (query, group, rollout) =>
  (!query.step || String(group.step) === query.step) &&
  (!query.source || group.source === query.source) &&
  (!query.outcome || OUTCOMES[query.outcome](group, rollout)) &&
  (query.limit === null || compared(measured(rollout, query.measure), query.bound, query.limit)) &&
  query.words.every((word) => haystack(group, rollout).includes(word));
const compared = (value, bound, limit) => value !== null && (bound === "least" ? value >= limit : value <= limit);

const spread = (group) => {
  const scores = group.rollouts.map(({ score }) => score).filter((score) => score !== null);
  return scores.length ? Math.max(...scores) - Math.min(...scores) : null;
};
const ORDERS = {
  "newest first": (group, index) => index,
  "oldest first": (group, index) => -index,
  "in the order drawn": (group, index) => -index,
  "largest gain": gain,
  "largest loss": (group) => (gain(group) === null ? null : -gain(group)),
  "highest reward": (group) => meanOf(group.rollouts, "reward"),
  "lowest reward": (group) => -(meanOf(group.rollouts, "reward") ?? Infinity),
  "largest spread": spread,
  "most boxes": (group) => meanOf(group.rollouts, "boxes"),
  "longest": (group) => meanOf(group.rollouts, "tokens"),
};
const ordersOf = (set) =>
  Object.keys(ORDERS).filter((name) =>
    set.sides.length ? !/newest|oldest|spread/.test(name) : !/drawn|gain|loss/.test(name));

// Returns [{group, hits: the rollouts that pass}], ordered.
const listed = (set, query) => {
  const found = [];
  set.groups.forEach((group, index) => {
    const hits = group.rollouts.filter((rollout) => passes(query, group, rollout));
    if (hits.length) found.push({ group, hits: new Set(hits), rank: ORDERS[query.order](group, index) ?? -Infinity });
  });
  return found.sort((one, other) => other.rank - one.rank);
};
