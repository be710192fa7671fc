// The bibliography page: finding, sorting, copying BibTeX. Without it the page is a plain list. Its words are in the HTML.
(() => {
  const LETTERS = { ł: "l", ø: "o", đ: "d", ð: "d", ı: "i", ß: "ss", æ: "ae", œ: "oe" }; // no accents, but strokes
  const plain = (text) =>
    text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase().replace(/[łøđðıßæœ]/g, (letter) => LETTERS[letter]);
  const compare = new Intl.Collator("en", { sensitivity: "base", numeric: true, ignorePunctuation: true }).compare;

  function start(list) {
    const controls = document.querySelector(".bib-controls");
    if (!controls || list.dataset.ready !== undefined) return;
    list.dataset.ready = "";
    const input = controls.querySelector("input");
    const status = controls.querySelector(".bib-count");
    const buttons = [...controls.querySelectorAll("button")];
    const text = (entry, part) => entry.querySelector(part)?.textContent ?? "";
    const entries = [...list.children].map((element, position) => ({
      element,
      position,
      author: element.dataset.author,
      year: element.dataset.year,
      cited: element.dataset.cited,
      title: text(element, ".bib-title"),
      words: plain(
        ["title", "authors", "source", "links"].map((part) => text(element, `.bib-${part}`)).join(" ") +
          ` ${element.dataset.words}`,
      ),
    }));

    function find() {
      const wanted = plain(input.value).split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const { element, words } of entries) {
        element.hidden = !wanted.every((word) => words.includes(word));
        if (!element.hidden) shown += 1;
      }
      const pattern = shown === entries.length ? status.dataset.all : status.dataset.some;
      status.textContent = pattern.replace("{m}", shown).replace("{n}", entries.length);
    }

    function sort(button) {
      const again = button.getAttribute("aria-pressed") === "true" && button.dataset.order;
      const first = button.dataset.descending === undefined ? "ascending" : "descending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = again === first ? other : first;
      for (const each of buttons) {
        each.setAttribute("aria-pressed", String(each === button));
        delete each.dataset.order;
      }
      button.dataset.order = order;
      const sign = order === "ascending" ? 1 : -1;
      const by = button.dataset.by;
      entries.sort((a, b) => sign * compare(a[by], b[by]) || a.position - b.position);
      list.append(...entries.map(({ element }) => element));
    }

    // a link to an entry that the search hides shows it again
    function reveal() {
      const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
      const entry = target?.closest(".bib-entry");
      if (!entry?.hidden || !list.isConnected) return;
      input.value = "";
      find();
      target.scrollIntoView();
    }

    input.addEventListener("input", find);
    input.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      input.value = "";
      find();
    });
    for (const button of buttons) button.addEventListener("click", () => sort(button));
    buttons.find((button) => button.getAttribute("aria-pressed") === "true").dataset.order = "ascending";
    window.addEventListener("hashchange", reveal);
    list.addEventListener("click", copy);
    for (const button of list.querySelectorAll(".bib-copy")) button.hidden = false;
    controls.hidden = false;
    find();
  }

  async function copy(event) {
    const button = event.target.closest(".bib-copy");
    if (!button) return;
    const code = button.parentElement.querySelector("code");
    if (!(await toClipboard(code))) return;
    const label = button.textContent;
    button.textContent = button.dataset.done;
    button.disabled = true;
    setTimeout(() => Object.assign(button, { textContent: label, disabled: false }), 1500);
  }

  // pages opened from a file or over plain http have no clipboard API
  async function toClipboard(code) {
    try {
      await navigator.clipboard.writeText(code.textContent);
      return true;
    } catch {
      const selection = getSelection();
      selection.selectAllChildren(code);
      const done = document.execCommand("copy");
      if (done) selection.removeAllRanges();
      return done;
    }
  }

  const look = () => document.querySelectorAll(".bib-list").forEach(start);
  if (window.document$) window.document$.subscribe(look);
  else if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", look);
  else look();
})();
