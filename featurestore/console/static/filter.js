// The search of a static catalog, which has no server to ask: rows without one of the words are hidden.
"use strict";
(() => {
  const field = document.getElementById("filter");
  const found = document.getElementById("found");
  if (field === null || found === null) return;
  const rows = [...found.querySelectorAll("tbody tr")].map((row) => [row, row.textContent.toLowerCase()]);
  const said = found.querySelector("p");
  const filter = () => {
    const words = field.value.toLowerCase().split(/\s+/);
    let count = 0;
    for (const [row, text] of rows) {
      row.hidden = !words.every((word) => text.includes(word));
      count += row.hidden ? 0 : 1;
    }
    said.textContent = `${count} of ${rows.length}`;
  };
  field.closest("form").addEventListener("submit", (event) => event.preventDefault());
  field.closest("form").hidden = false;
  field.addEventListener("input", filter);
})();
