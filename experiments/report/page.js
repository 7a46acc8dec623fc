"use strict";
const filter = document.querySelector(".filter"), claims = document.querySelector(".claims");
const buttons = [...filter.querySelectorAll("button")];
const show = (what) => {
  claims.dataset.shows = what;
  for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.shows === what));
  const all = claims.querySelectorAll("details").length;
  const shown = what === "all" ? all : claims.querySelectorAll(`details.${what}`).length;
  document.querySelector(".heard").textContent = `${shown} of ${all} claims are shown.`;
};
for (const button of buttons) button.addEventListener("click", () => show(button.dataset.shows));
filter.hidden = false;

// A link to a claim unfolds it, and shows all where it would be hidden.
const reveal = () => {
  const claim = document.getElementById(location.hash.slice(1));
  if (!claim?.matches(".claims > details")) return;
  if (!claim.matches(`.${claims.dataset.shows}`) && claims.dataset.shows !== "all") show("all");
  claim.open = true;
  claim.querySelector("summary").focus({ preventScroll: true });
  claim.scrollIntoView();
};
addEventListener("hashchange", reveal);
document.addEventListener("click", (event) => {
  if (event.target.closest(`a[href="${location.hash || "#"}"]`)) reveal();
});

// The contents are beside the page, or folded above it.
const menu = document.querySelector("nav details"), narrow = matchMedia("(max-width: 62rem)");
const fold = () => { menu.open = !narrow.matches; };
narrow.addEventListener("change", fold);
menu.addEventListener("click", (event) => {
  if (narrow.matches && event.target.closest("a")) menu.open = false;
});
fold();
const links = new Map([...menu.querySelectorAll("a")].map((link) => [link.hash.slice(1), link]));
const headings = [...document.querySelectorAll("h2[id], h3[id]")];
let asked = false;
const mark = () => {
  asked = false;
  const above = headings.filter((heading) => heading.getBoundingClientRect().top < innerHeight / 4);
  for (const link of links.values()) link.removeAttribute("aria-current");
  links.get((above.at(-1) ?? headings[0]).id)?.setAttribute("aria-current", "true");
};
addEventListener("scroll", () => {
  if (!asked) requestAnimationFrame(mark);
  asked = true;
}, { passive: true });
mark();

// In print nothing is folded.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("main details:not([open])")];
  for (const each of folded) each.open = true;
});
addEventListener("afterprint", () => {
  for (const each of folded) each.open = false;
});
reveal();
