// The map: ancestors and descendants of a paper light up, and a card says what it brought. Without this file the papers are
// plain links. Lines know their two papers by number; what the card says stands in the table below. Words are in the HTML.
(() => {
  const NAMES = 12; // how many papers the card names at most

  function start(map) {
    if (map.dataset.ready !== undefined) return;
    map.dataset.ready = "";
    const box = map.querySelector(".lineage-box");
    const card = map.querySelector(".lineage-card");
    const papers = [...map.querySelectorAll(".lineage-year a")];
    const rows = [...document.querySelectorAll(".lineage-table tbody tr")];
    const families = [...map.querySelectorAll(".lineage-lanes button")];
    const edges = [...map.querySelectorAll("[data-edge]")].map((path) => {
      const [older, newer] = path.dataset.edge.split(" ").map(Number);
      return { path, older, newer };
    });
    const number = new Map(papers.map((paper, position) => [paper, position]));
    let shown = null; // the paper in the light
    let timer = 0;

    // the papers reached from `from`, itself among them
    function reach(from, near, far) {
      const found = new Set([from]);
      for (const one of found) for (const edge of edges) if (edge[near] === one) found.add(edge[far]);
      return found;
    }

    function show(paper) {
      clearTimeout(timer);
      if (paper === shown) return;
      shown = paper;
      const self = number.get(paper);
      const up = reach(self, "newer", "older");
      const down = reach(self, "older", "newer");
      papers.forEach((other, n) => {
        other.classList.toggle("on", n === self);
        other.classList.toggle("up", n !== self && up.has(n));
        other.classList.toggle("down", n !== self && down.has(n));
      });
      for (const { path, older, newer } of edges) {
        path.classList.toggle("up", up.has(newer));
        path.classList.toggle("down", down.has(older));
      }
      families.forEach((button) => button.setAttribute("aria-pressed", "false"));
      map.classList.add("lit");
      fill(self);
      place();
    }

    function clear() {
      clearTimeout(timer);
      shown = null;
      card.hidden = true;
      map.classList.remove("lit");
      [...papers, ...edges.map(({ path }) => path)].forEach((element) => element.classList.remove("on", "up", "down"));
      families.forEach((button) => button.setAttribute("aria-pressed", "false"));
    }

    const name = (n) => papers[n].firstChild.textContent;

    function fill(self) {
      const [year, head, family, what] = rows[self].children;
      const link = card.querySelector("a");
      link.textContent = name(self);
      link.href = papers[self].href;
      const who = head.querySelector("small")?.textContent;
      card.querySelector(".who").textContent = [who, year.textContent, family.textContent].filter(Boolean).join(", ");
      card.querySelector(".what").textContent = what.textContent;
      list(card.querySelector(".up"), edges.filter(({ newer }) => newer === self).map(({ older }) => older));
      list(card.querySelector(".down"), edges.filter(({ older }) => older === self).map(({ newer }) => newer));
    }

    function list(line, found) {
      const text = line.querySelector("span");
      const more = card.querySelector("[data-more]").dataset.more.replace("{n}", found.length - NAMES);
      const names = found.sort((a, b) => a - b).slice(0, NAMES).map(name);
      line.hidden = !found.length;
      text.textContent = [...names, ...(found.length > NAMES ? [more] : [])].join(" · ");
    }

    // under the paper and to its left, as what came of it is to its right; over it where the window ends; on a phone the
    // style sheet says where
    function place() {
      card.hidden = false;
      const [at, around] = [shown.getBoundingClientRect(), map.getBoundingClientRect()];
      const below = at.bottom + card.offsetHeight + 12 < innerHeight || at.top < card.offsetHeight + 100;
      const left = Math.min(at.right - around.left, around.width) - card.offsetWidth;
      card.style.left = `${Math.max(left, 0)}px`;
      card.style.top = `${(below ? at.bottom + 3 : at.top - card.offsetHeight - 3) - around.top}px`;
    }

    function only(button) {
      const family = button.getAttribute("aria-pressed") === "true" ? null : button.dataset.family;
      clear();
      if (!family) return;
      button.setAttribute("aria-pressed", "true");
      map.classList.add("lit");
      papers.forEach((paper) => paper.classList.toggle("on", paper.dataset.family === family));
    }

    // Left and right walk along a lane, up and down go to the paper of the next lane that is nearest in time
    function next(paper, key) {
      const lane = (family) => papers.filter((other) => other.dataset.family === family);
      const own = lane(paper.dataset.family);
      const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[key];
      if (key === "Home") return own[0];
      if (key === "End") return own.at(-1);
      if (key === "ArrowLeft" || key === "ArrowRight") return own[own.indexOf(paper) + step];
      const position = families.findIndex((button) => button.dataset.family === paper.dataset.family);
      const other = families[position + step];
      const distance = (one) => Math.abs(number.get(one) - number.get(paper));
      return other && lane(other.dataset.family).reduce((best, one) => (distance(one) < distance(best) ? one : best));
    }

    const enter = (paper) => papers.forEach((other) => (other.tabIndex = other === paper ? 0 : -1));
    const paperOf = (event) => event.target.closest?.(".lineage-year a");
    const leave = () => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        const focused = document.activeElement;
        if (number.has(focused)) show(focused);
        else if (!card.contains(focused)) clear();
      }, 200);
    };

    let touched = false; // by a finger that had not shown this paper yet: it is shown, the next touch opens it
    map.addEventListener("pointerdown", (event) => {
      const paper = paperOf(event);
      touched = event.pointerType !== "mouse" && paper && paper !== shown;
    });
    map.addEventListener("pointercancel", () => (touched = false)); // the finger scrolled
    map.addEventListener("click", (event) => {
      const paper = paperOf(event);
      const button = event.target.closest("button");
      if (button) only(button);
      if (!paper || !touched) return;
      event.preventDefault();
      event.stopPropagation(); // from Material's instant navigation
      touched = false;
      enter(paper);
      show(paper);
    });
    map.addEventListener("pointerover", (event) => {
      if (event.pointerType !== "mouse") return;
      const paper = paperOf(event);
      if (paper) show(paper);
      else if (card.contains(event.target)) clearTimeout(timer);
      else if (shown) leave();
    });
    map.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && shown && leave());
    map.addEventListener("focusin", (event) => {
      const paper = paperOf(event);
      if (!paper) return;
      enter(paper);
      show(paper);
    });
    map.addEventListener("focusout", (event) => shown && !map.contains(event.relatedTarget) && leave());
    map.addEventListener("keydown", (event) => {
      const paper = paperOf(event);
      if (event.key === "Escape") clear();
      const to = paper && !event.altKey && !event.ctrlKey && !event.metaKey && next(paper, event.key);
      if (!to) return;
      event.preventDefault();
      to.focus();
    });
    document.addEventListener("click", (event) => map.isConnected && shown && !map.contains(event.target) && clear());
    box.addEventListener("scroll", () => shown && place(), { passive: true });

    families.forEach((button) => (button.disabled = false));
    enter(papers[0]);
    const wanted = papers.find((paper) => paper.id === decodeURIComponent(location.hash.slice(1)));
    if (wanted) {
      wanted.focus({ preventScroll: true });
      wanted.scrollIntoView({ block: "center", inline: "center" });
      place();
    }
  }

  const look = () => document.querySelectorAll(".lineage").forEach(start);
  if (window.document$) window.document$.subscribe(look);
  else if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", look);
  else look();
})();
