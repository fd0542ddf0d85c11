// The value of each line under the pointer.
const watchCharts = () => {
  const tip = byId("tip");
  for (const chart of document.querySelectorAll("svg[data-chart]")) {
    const cursor = chart.querySelector(".cursor");
    const labels = [...chart.parentElement.querySelectorAll(".legend li")].map((item) => item.textContent + " ");
    let data = null;
    const hide = () => { tip.hidden = true; cursor.style.visibility = "hidden"; };
    chart.addEventListener("pointerleave", hide);
    chart.addEventListener("pointercancel", hide);
    chart.addEventListener("pointermove", (event) => {
      data ??= JSON.parse(chart.dataset.chart);
      const frame = chart.getBoundingClientRect();
      const x = (event.clientX - frame.left) * chart.viewBox.baseVal.width / frame.width;
      let near = 0;
      data.x.forEach((at, index) => { if (Math.abs(at - x) < Math.abs(data.x[near] - x)) near = index; });
      cursor.setAttribute("x1", data.x[near]);
      cursor.setAttribute("x2", data.x[near]);
      cursor.style.visibility = "visible";
      tip.textContent = ["step " + data.steps[near], ...data.values.map((line, index) => (labels[index] ?? "") + (line[near] ?? "–"))].join("\n");
      tip.hidden = false;
      const right = event.clientX + 14 + tip.offsetWidth > innerWidth;
      tip.style.left = (right ? event.clientX - 14 - tip.offsetWidth : event.clientX + 14) + "px";
      tip.style.top = event.clientY + 14 + "px";
    });
  }
};
