// Goes, once, to the part of the page that the address names, where that comes after the page.
"use strict";
(() => {
  const named = () => document.getElementById(decodeURIComponent(location.hash.slice(1)));
  let isThere = location.hash === "" || named() !== null;
  document.addEventListener("htmx:afterSettle", () => {
    if (isThere || named() === null) return;
    isThere = true;
    named().scrollIntoView();
  });
})();
