// Follows a run: the server sends groups of samples as they are written, and the curves anew.
const follow = () => {
  const status = byId("live"), groups = new Map(); // by key, oldest first
  const set = { title: "Rollouts", note: "What the model writes while it trains.", sides: [], groups: [] };
  let browser = null;

  const add = (added, limit) => {
    for (const group of added) groups.set(group.key, group);
    let rollouts = [...groups.values()].reduce((sum, group) => sum + group.rollouts.length, 0);
    for (const [key, group] of groups) {
      if (rollouts <= limit || groups.size === 1) break;
      groups.delete(key);
      rollouts -= group.rollouts.length;
    }
    set.groups = [...groups.values()];
    if (browser) browser.refresh();
    else if (set.groups.length) { byId("samples").hidden = false; browser = makeBrowser([set]); }
  };

  const source = new EventSource("events");
  source.addEventListener("state", ({ data }) => {
    const { server, fresh, limit, groups: added, curves, text } = JSON.parse(data);
    if (server !== document.body.dataset.live) { // started anew, perhaps for another run: this page is not its own
      source.close();
      location.reload();
      return;
    }
    if (fresh) groups.clear();
    if (added.length || fresh) add(added, limit);
    if (curves !== null) { byId("curves").outerHTML = curves; watchCharts(); } // our own template, escaped by the server
    status.textContent = text;
    status.classList.remove("lost");
  });
  source.addEventListener("error", () => {
    status.textContent = source.readyState === EventSource.CLOSED
      ? "The server refuses this page: open the address that it printed when it was started."
      : "The server does not answer; trying again.";
    status.classList.add("lost");
  });
};

watchCharts();
if (live) follow();
else start();
