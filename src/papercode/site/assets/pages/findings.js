// The gathered pages: filtering by words and family, opening all. Without it they are plain lists of folded items.
(() => {
  const plain = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();

  // the items with their words, and the headings with what stands below each
  function read(controls) {
    const items = [], headings = [];
    let family, paper, rank = 0;
    const families = [...controls.querySelectorAll("option[value]")].slice(1);
    for (let element = controls.nextElementSibling; element; element = element.nextElementSibling) {
      if (element.matches("h2")) {
        family = { element, below: [], name: families.find((o) => element.textContent.startsWith(o.text))?.value };
        paper = null;
        headings.push(family);
      } else if (element.matches("h3")) {
        paper = { element, below: [] };
        headings.push(paper);
      } else if (element.matches("details")) {
        const words = plain(`${paper.element.textContent} ${family.element.textContent} ${element.textContent}`);
        const item = { element, words, family: family.name, folded: true };
        items.push(item);
        family.below.push(item);
        paper.below.push(item);
      } else if (element.matches(".marked-numbers")) {
        for (const row of element.tBodies[0].rows) {
          const item = { element: row, words: plain(row.textContent), family: row.dataset.family };
          items.push(item);
          family.below.push(item);
        }
        family.below.frame = element;
      }
    }
    return { items, headings };
  }

  function start(controls) {
    if (controls.dataset.ready !== undefined) return;
    controls.dataset.ready = "";
    const { items, headings } = read(controls);
    const [input, select, button] = ["input", "select", "button"].map((name) => controls.querySelector(name));
    const status = controls.querySelector(".marked-count");
    const folded = items.filter((item) => item.folded);

    function filter() {
      const wanted = plain(input.value).split(/\s+/).filter(Boolean);
      for (const item of items) {
        item.shown = (!select.value || select.value === item.family) && wanted.every((word) => item.words.includes(word));
        item.element.classList.toggle("marked-hidden", !item.shown);
      }
      for (const { element, below } of headings) {
        const empty = !below.some((item) => item.shown);
        element.classList.toggle("marked-hidden", empty);
        below.frame?.classList.toggle("marked-hidden", empty);
      }
      const shown = folded.filter((item) => item.shown).length;
      const pattern = shown === folded.length ? status.dataset.all : status.dataset.some;
      status.textContent = pattern.replace("{m}", shown).replace("{n}", folded.length);
    }

    input.addEventListener("input", filter);
    input.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      input.value = "";
      filter();
    });
    select.addEventListener("change", filter);
    button.addEventListener("click", () => {
      const open = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(open));
      button.textContent = open ? button.dataset.close : button.dataset.open;
      for (const item of folded) item.element.open = open;
    });
    if (input.value || select.value) filter(); // what the browser kept when one came back
  }

  const look = () => document.querySelectorAll(".marked-controls").forEach(start);
  if (window.document$) window.document$.subscribe(look);
  else if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", look);
  else look();
})();
