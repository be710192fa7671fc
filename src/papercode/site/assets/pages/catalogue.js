// The catalogue: filtering, searching and ordering, with the state in the address. Without it the page is a plain list.
(() => {
  const LETTERS = { ł: "l", ø: "o", đ: "d", ð: "d", ı: "i", ß: "ss", æ: "ae", œ: "oe" }; // no accents, but strokes
  const plain = (text) =>
    text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase().replace(/[łøđðıßæœ]/g, (letter) => LETTERS[letter]);
  let shown = null; // the catalogue of the page that one sees, with instant navigation
  let kept = ""; // its state, for when the address names another place of the page

  function start(root) {
    if (shown?.root === root) return;
    const form = root.querySelector(".cat-controls");
    const facets = root.querySelector(".cat-facets");
    const boxes = [...form.querySelectorAll("input[type=checkbox]")];
    const names = [...new Set(boxes.map((box) => box.name))];
    const counts = boxes.map((box) => box.parentElement.querySelector(".cat-n"));
    const fold = form.querySelector(".cat-fold");
    const status = form.querySelector("[role=status]");
    const list = root.querySelector(".cat-list");
    const flat = Object.assign(document.createElement("ul"), { className: "cat-papers", hidden: true });
    list.append(flat);
    const groups = [...root.querySelectorAll(".cat-group")].map((element) => ({
      element,
      list: element.querySelector("ul"),
      count: element.querySelector(".cat-of"),
    }));
    const papers = [...root.querySelectorAll(".cat-paper")].map((element) => ({
      element,
      group: groups.find((group) => group.element.contains(element)),
      data: element.dataset,
      words: plain(
        [...element.querySelectorAll(".cat-name > a, .cat-title, .cat-line")].map((part) => part.textContent).join(" ") +
          ` ${element.dataset.words}`,
      ),
    }));
    const byDate = [...papers].sort((a, b) => (a.data.published < b.data.published ? -1 : 1)); // stable: ISO dates

    const some = (m, n) => (m === n ? status.dataset.all : status.dataset.some).replace("{m}", m).replace("{n}", n);

    // which papers there are, and beside each option how many there would be with it and without the rest of its kind
    function filter() {
      const wanted = plain(form.elements.q.value).split(/\s+/).filter(Boolean);
      const chosen = Object.fromEntries(names.map((name) => [name, new Set()]));
      for (const box of boxes) if (box.checked) chosen[box.name].add(box.value);
      const number = new Map(boxes.map((box) => [`${box.name}=${box.value}`, 0]));
      for (const paper of papers) {
        const found = wanted.every((word) => paper.words.includes(word));
        const against = names.filter((name) => chosen[name].size && !chosen[name].has(paper.data[name]));
        paper.shown = found && !against.length;
        paper.element.hidden = !paper.shown;
        for (const name of names) {
          const option = `${name}=${paper.data[name]}`;
          if (found && number.has(option) && against.every((other) => other === name))
            number.set(option, number.get(option) + 1);
        }
      }
      boxes.forEach((box, place) => {
        const n = number.get(`${box.name}=${box.value}`);
        counts[place].textContent = n;
        box.parentElement.classList.toggle("cat-empty", !n && !box.checked);
      });
      const total = papers.filter((paper) => paper.shown).length;
      status.textContent = some(total, papers.length);
      for (const group of groups) {
        const own = papers.filter((paper) => paper.group === group);
        const n = own.filter((paper) => paper.shown).length;
        group.element.hidden = !n || form.elements.order.value !== "";
        group.count.textContent = n === own.length ? n : `${n} / ${own.length}`;
      }
      const ticked = boxes.filter((box) => box.checked).length;
      fold.querySelector(".cat-chosen").textContent = ticked ? ` (${ticked})` : "";
      form.querySelector(".cat-clear").disabled = !ticked && !form.elements.q.value;
      root.querySelector(".cat-none").hidden = total > 0;
    }

    function arrange() {
      const order = form.elements.order.value;
      flat.hidden = !order;
      if (order) flat.append(...(order === "newest" ? [...byDate].reverse() : byDate).map((paper) => paper.element));
      else for (const paper of papers) if (paper.element.parentElement === flat) paper.group.list.append(paper.element);
    }

    const state = () => new URLSearchParams([...new FormData(form)].filter(([, value]) => value)).toString();

    // another anchor of the page is no state; no anchor is the whole list
    function read() {
      const named = location.hash.slice(1);
      const hash = !named || named.includes("=") ? named : kept;
      if (hash === state()) return;
      kept = hash;
      const values = new URLSearchParams(hash);
      for (const box of boxes) box.checked = values.getAll(box.name).includes(box.value);
      form.elements.q.value = values.get("q") ?? "";
      form.elements.order.value = [...form.elements.order].find((o) => o.value === values.get("order"))?.value ?? "";
      arrange();
      filter();
    }

    // each choice is a step back; the letters of a word are one
    function write(step) {
      const { pathname, search } = location;
      const hash = (kept = state());
      history[step ? "pushState" : "replaceState"](history.state, "", pathname + search + (hash ? `#${hash}` : ""));
    }

    function clear() {
      for (const box of boxes) box.checked = false;
      form.elements.q.value = "";
      filter();
      write(true);
      form.elements.q.focus();
    }

    let typing = false;
    form.addEventListener("input", (event) => {
      const text = event.target === form.elements.q;
      if (event.target === form.elements.order) arrange();
      filter();
      write(!text || !typing);
      typing = text;
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    for (const button of root.querySelectorAll(".cat-clear")) button.addEventListener("click", clear);
    fold.addEventListener("click", () => {
      const open = facets.toggleAttribute("data-open");
      fold.setAttribute("aria-expanded", String(open));
    });
    shown = { root, read };
    read();
    // from here on the address is a state and no place: an option that it names is nowhere to be scrolled to
    const target = root.querySelector(":target");
    for (const place of root.querySelectorAll("[id*='=']")) place.removeAttribute("id");
    if (target) scrollTo(0, 0);
    root.removeAttribute("data-waiting");
  }

  const look = () => {
    const root = document.querySelector(".cat");
    if (root) start(root);
    else shown = null;
  };
  addEventListener("popstate", () => shown?.root.isConnected && shown.read());
  // from a file, document$ never says anything
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", look);
  else look();
  window.document$?.subscribe(look);
})();
