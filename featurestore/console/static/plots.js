// Draws each [data-plot] of the page's data with uPlot.
// {"key": {"x": [...], "is_time": true, "x_label": "", "y_label": "", "series": [{"label": "", "values": [...], "kind": "line" | "bars" | "steps"}]}}
"use strict";
(() => {
  const source = document.getElementById("page-data");
  if (source === null) return;
  const data = JSON.parse(source.textContent);
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const strokes = ["--link", "--focus", "--good", "--bad"];
  for (const place of document.querySelectorAll("[data-plot]")) {
    const plot = data[place.dataset.plot];
    if (plot === undefined) continue;
    const axis = { stroke: color("--quiet"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line") } };
    const paths = { bars: uPlot.paths.bars({ size: [0.9, 60] }), steps: uPlot.paths.stepped({ align: 1 }) };
    const series = plot.series.map((one, number) => {
      const stroke = color(strokes[number % strokes.length]);
      const fill = one.kind === "bars" ? `${stroke}55` : undefined;
      return { label: one.label, stroke, fill, width: 1.5, paths: paths[one.kind], points: { show: plot.x.length < 60 } };
    });
    const options = (width) => ({
      width, height: 240, scales: { x: { time: plot.is_time === true } },
      axes: [{ ...axis, label: plot.x_label }, { ...axis, label: plot.y_label }],
      series: [{ label: plot.x_label || "x" }, ...series],
    });
    const drawn = new uPlot(options(Math.max(280, place.clientWidth)), [plot.x, ...plot.series.map((one) => one.values)], place);
    new ResizeObserver(() => drawn.setSize({ width: Math.max(280, place.clientWidth), height: 240 })).observe(place);
  }
})();
