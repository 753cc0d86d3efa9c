// Draws the graph of the page's data: dagre lays it out, SVG shows it. Nodes that have a page are links.
"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const LEFT_TO_RIGHT = "LR";
  const WIDTH = 210, HEIGHT = 42, LONGEST = 28;
  const SMALLEST = 1.8; // units of the drawing in a pixel at which its texts can be read
  const source = document.getElementById("page-data");
  const place = document.getElementById("graph");
  if (source === null || place === null) return;
  const { nodes, edges } = JSON.parse(source.textContent);
  const filter = document.getElementById("graph-filter");
  const words = document.getElementById("graph-words");
  const kinds = [...filter.querySelectorAll("input[type=checkbox]")];

  const element = (name, attributes, text) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const short = (text) => (text.length <= LONGEST ? text : `…${text.slice(1 - LONGEST)}`); // names that begin alike end otherwise
  // What a node is, and its name; of a feature or a column, of which view or source is said above.
  const lines = (node) => {
    const place = { feature: ":", column: ".", "derived column": "." }[node.kind];
    const at = place === undefined ? -1 : node.name.indexOf(place);
    return at < 0 ? [node.kind, node.name] : [`${node.kind} of ${node.name.slice(0, at)}`, node.name.slice(at + 1)];
  };
  // A line from the right side of one node to the left side of the other, by the way that the layout leaves for it.
  const curve = (from, to, points) => {
    const through = [{ x: from.x + WIDTH / 2, y: from.y }, ...points.slice(1, -1), { x: to.x - WIDTH / 2 - 1, y: to.y }];
    return through.slice(1).reduce((path, point, number) => {
      const middle = (through[number].x + point.x) / 2;
      return `${path}C${middle} ${through[number].y} ${middle} ${point.y} ${point.x} ${point.y}`;
    }, `M${through[0].x} ${through[0].y}`);
  };

  // What is left of the edges where kinds are hidden: a way through hidden nodes is one edge.
  const joined = (shown) => {
    const after = new Map();
    for (const edge of edges) after.set(edge.start, [...(after.get(edge.start) ?? []), edge.end]);
    const found = new Map();
    for (const start of shown) {
      const seen = new Set(), left = [...(after.get(start) ?? [])];
      while (left.length > 0) {
        const next = left.pop();
        if (seen.has(next)) continue;
        seen.add(next);
        if (shown.has(next)) found.set(`${start}\n${next}`, [start, next]);
        else left.push(...(after.get(next) ?? []));
      }
    }
    return [...found.values()];
  };

  let view = null; // {x, y, width, height} of what is seen
  let whole = null;
  let svg = null;
  const see = () => svg.setAttribute("viewBox", `${view.x} ${view.y} ${view.width} ${view.height}`);
  const fit = () => { view = { ...whole }; see(); };
  const zoom = (factor, x = view.x + view.width / 2, y = view.y + view.height / 2) => {
    view = { x: x - (x - view.x) * factor, y: y - (y - view.y) * factor, width: view.width * factor, height: view.height * factor };
    see();
  };

  const draw = () => {
    const on = new Set(kinds.filter((box) => box.checked).map((box) => box.value));
    const chosen = nodes.filter((node) => node.is_root || on.has(node.kind));
    place.replaceChildren();
    const graph = new dagre.graphlib.Graph();
    graph.setGraph({ rankdir: LEFT_TO_RIGHT, nodesep: 14, ranksep: 60, marginx: 12, marginy: 12 });
    graph.setDefaultEdgeLabel(() => ({}));
    for (const node of chosen) graph.setNode(node.id, { width: WIDTH, height: HEIGHT });
    for (const [start, end] of joined(new Set(chosen.map((node) => node.id)))) graph.setEdge(start, end);
    dagre.layout(graph);
    svg = element("svg", { "aria-hidden": "false" });
    const marker = element("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 8, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" });
    marker.append(element("path", { d: "M0 0 8 4 0 8z" }));
    const defs = element("defs", {});
    defs.append(marker);
    svg.append(defs);
    for (const edge of graph.edges()) {
      const path = curve(graph.node(edge.v), graph.node(edge.w), graph.edge(edge).points);
      svg.append(element("path", { d: path, "marker-end": "url(#arrow)" }));
    }
    for (const node of chosen) {
      const { x, y } = graph.node(node.id);
      const link = typeof node.link === "object" && node.link.href ? node.link.href : null;
      const group = link === null ? element("g", {}) : element("a", { href: link });
      group.setAttribute("transform", `translate(${x - WIDTH / 2} ${y - HEIGHT / 2})`);
      if (node.is_root) group.setAttribute("class", "root");
      group.append(element("title", {}, `${node.kind}: ${node.name}`));
      group.append(element("rect", { width: WIDTH, height: HEIGHT, rx: 5 }));
      const [above, below] = lines(node);
      group.append(element("text", { x: 10, y: 16, class: "kind" }, short(above)));
      group.append(element("text", { x: 10, y: 33 }, short(below)));
      group.dataset.words = `${node.kind} ${node.name}`.toLowerCase();
      svg.append(group);
    }
    const size = graph.graph();
    place.style.height = ""; // as high as it may be, or as the drawing is
    const most = place.getBoundingClientRect();
    const scale = Math.max(size.width / most.width, size.height / most.height, 0.8);
    place.style.height = `${Math.max(160, Math.min(most.height, size.height / scale))}px`;
    const room = place.getBoundingClientRect();
    whole = { width: room.width * scale, height: room.height * scale };
    whole.x = (size.width - whole.width) / 2;
    whole.y = (size.height - whole.height) / 2;
    place.append(svg);
    fit();
    const root = chosen.find((node) => node.is_root);
    if (scale > SMALLEST && root !== undefined) { // too small to be read: begin where it was asked about
      const { x, y } = graph.node(root.id);
      view = { width: room.width * SMALLEST, height: room.height * SMALLEST };
      Object.assign(view, { x: x - view.width / 2, y: y - view.height / 2 });
      see();
    }
    find();
  };

  const find = () => {
    const asked = words.value.trim().toLowerCase();
    for (const group of place.querySelectorAll("[data-words]")) group.classList.toggle("faded", asked !== "" && !group.dataset.words.includes(asked));
  };

  // Where a pointer is, in the drawing's own measure.
  const at = (event) => {
    const room = place.getBoundingClientRect();
    return [view.x + ((event.clientX - room.left) / room.width) * view.width, view.y + ((event.clientY - room.top) / room.height) * view.height];
  };
  const pointers = new Map();
  let moved = 0;
  place.addEventListener("pointerdown", (event) => { pointers.set(event.pointerId, event); moved = 0; });
  addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (before === undefined || svg === null) return;
    const room = place.getBoundingClientRect();
    if (pointers.size === 1) {
      const [right, down] = [event.clientX - before.clientX, event.clientY - before.clientY];
      moved += Math.abs(right) + Math.abs(down);
      view.x -= (right / room.width) * view.width;
      view.y -= (down / room.height) * view.height;
      see();
    } else {
      const other = [...pointers.values()].find((one) => one.pointerId !== event.pointerId);
      const distance = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) || 1;
      zoom(distance(before) / distance(event), ...at(event));
    }
    pointers.set(event.pointerId, event);
  });
  for (const name of ["pointerup", "pointercancel"]) addEventListener(name, (event) => pointers.delete(event.pointerId));
  place.addEventListener("click", (event) => { if (event.detail > 0 && moved > 6) event.preventDefault(); }, true); // it was a drag; a key has no detail
  place.addEventListener("dragstart", (event) => event.preventDefault());
  place.addEventListener("wheel", (event) => {
    if (svg === null || !(event.ctrlKey || event.metaKey || event.shiftKey)) return; // else the page scrolls
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.15 : 1 / 1.15, ...at(event));
  }, { passive: false });
  document.getElementById("graph-fit").addEventListener("click", () => svg !== null && fit());
  document.getElementById("graph-in").addEventListener("click", () => svg !== null && zoom(1 / 1.3));
  document.getElementById("graph-out").addEventListener("click", () => svg !== null && zoom(1.3));
  filter.addEventListener("submit", (event) => event.preventDefault());
  words.addEventListener("input", find);
  for (const box of kinds) box.addEventListener("change", draw);
  filter.hidden = false;
  draw();
})();
