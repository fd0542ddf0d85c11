"use strict";
(() => {
  const light = (event, on) => {
    const from = event.target.closest("[data-box]");
    const panel = from && from.closest(".panel");
    if (!panel) return;
    for (const twin of panel.querySelectorAll("[data-box]"))
      if (twin.dataset.box === from.dataset.box) twin.classList.toggle("on", on);
  };
  for (const [name, on] of [["pointerover", true], ["pointerout", false], ["focusin", true], ["focusout", false]])
    document.addEventListener(name, (event) => light(event, on));

  const tip = document.getElementById("tip");
  for (const svg of document.querySelectorAll("svg[data-chart]")) {
    const cursor = svg.querySelector(".cursor");
    const labels = [...svg.parentElement.querySelectorAll(".legend li")].map((item) => item.textContent + " ");
    let data = null;
    const hide = () => { tip.hidden = true; cursor.style.visibility = "hidden"; };
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("pointercancel", hide);
    svg.addEventListener("pointermove", (event) => {
      data ??= JSON.parse(svg.dataset.chart);
      const frame = svg.getBoundingClientRect();
      const x = (event.clientX - frame.left) * svg.viewBox.baseVal.width / frame.width;
      let near = 0;
      data.x.forEach((at, index) => { if (Math.abs(at - x) < Math.abs(data.x[near] - x)) near = index; });
      cursor.setAttribute("x1", data.x[near]);
      cursor.setAttribute("x2", data.x[near]);
      cursor.style.visibility = "visible";
      const values = data.values.map((line, index) => (labels[index] || "") + (line[near] ?? "–"));
      tip.textContent = ["step " + data.steps[near], ...values].join("\n");
      tip.hidden = false;
      const right = event.clientX + 14 + tip.offsetWidth > innerWidth;
      tip.style.left = (right ? event.clientX - 14 - tip.offsetWidth : event.clientX + 14) + "px";
      tip.style.top = event.clientY + 14 + "px";
    });
  }
})();
