// A citation opens in place: a card with its reference, beside it or as a sheet at the foot of a phone. So does a
// footnote. The link still leads to the bibliography with a modifier key, a middle click, or without this script.
(() => {
  if (!HTMLElement.prototype.showPopover) return; // an old browser follows the link
  const REFERENCES = "a.citation", FOOTNOTES = "a.footnote-ref";
  const script = document.currentScript.src;
  const root = new URL("../", script);
  let loading, card, opener, pressed;

  // a script, for pages opened from a disk may not fetch
  function load() {
    loading ??= new Promise((resolve, reject) => {
      const element = Object.assign(document.createElement("script"), { src: new URL("references.js", script) });
      element.onload = () => resolve(window.papercodeReferences);
      element.onerror = () => { loading = undefined; reject(new Error(`${element.src} cannot be read`)); };
      document.head.append(element);
    });
    return loading;
  }

  function make(tag, content, more = {}) {
    const element = Object.assign(document.createElement(tag), more);
    element.append(...[content].flat());
    return element;
  }

  // a title is text, but for TeX between dollars
  function typeset(text) {
    return text.split(/(\$[^$]+\$)/).map((part) => {
      if (!/^\$.+\$$/.test(part) || !window.katex) return part;
      const span = document.createElement("span");
      katex.render(part.slice(1, -1), span, { throwOnError: false });
      return span;
    });
  }

  function reference(link, { words, entries }) {
    const entry = entries[decodeURIComponent(link.hash.slice(1))];
    if (!entry) return null;
    const links = (entry.links ?? []).map(([name, href]) => make("a", name, { href }));
    const copy = make("button", words.copy, { type: "button" });
    copy.addEventListener("click", async () => {
      if (!(await toClipboard(entry.bibtex, copy))) return;
      copy.textContent = words.copied;
      setTimeout(() => { copy.textContent = words.copy; }, 1500);
    });
    const ours = [copy, make("a", words.bibliography, { href: link.href })];
    if (entry.note) ours.unshift(make("a", words.note.replace("{}", entry.note[0]), { href: new URL(entry.note[1], root) }));
    return {
      label: words.reference,
      parts: [
        make("p", typeset(entry.title), { className: "citation-title" }),
        make("p", entry.authors),
        make("p", entry.source ?? ""),
        entry.contribution ? make("p", typeset(entry.contribution), { className: "citation-contribution" }) : "",
        links.length ? make("p", links, { className: "citation-links" }) : "",
        make("p", ours, { className: "citation-links" }),
      ],
    };
  }

  function footnote(link, { words }) {
    const item = document.getElementById(decodeURIComponent(link.hash.slice(1)))?.cloneNode(true);
    if (!item) return null;
    item.querySelectorAll(".footnote-backref").forEach((back) => back.remove());
    item.querySelectorAll("[id]").forEach((element) => element.removeAttribute("id"));
    const below = make("a", words.below, { href: link.href });
    return {
      label: words.footnote.replace("{}", link.textContent),
      parts: [...item.childNodes, make("p", below, { className: "citation-links" })],
    };
  }

  // pages opened from a disk or over plain http may have no clipboard API
  async function toClipboard(text, beside) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const area = make("textarea", text, { className: "citation-copy" });
      beside.after(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      beside.focus();
      return done;
    }
  }

  // below the link, or above it if there is more room; on a phone the style sheet makes it a sheet
  function place(rectangle) {
    const column = card.closest("article").getBoundingClientRect().right;
    const left = Math.max(16, Math.min(rectangle.left, column - card.offsetWidth));
    const above = rectangle.bottom + card.offsetHeight + 16 > innerHeight && rectangle.top > innerHeight / 2;
    const top = above ? rectangle.top - card.offsetHeight - 6 : rectangle.bottom + 6;
    card.style.setProperty("--left", `${left + scrollX}px`);
    card.style.setProperty("--top", `${top + scrollY}px`);
  }

  function open(link, shown, rectangle) {
    card ??= make("div", "", { className: "citation-card", popover: "auto", tabIndex: -1, role: "dialog" });
    if (card.matches(":popover-open")) card.hidePopover();
    const close = make("button", "×", { type: "button", className: "citation-close", ariaLabel: window.papercodeReferences.words.close });
    close.addEventListener("click", () => card.hidePopover());
    card.replaceChildren(...shown.parts.filter((part) => part !== ""), close); // the first thing to tab to is what one wants
    card.ariaLabel = shown.label;
    link.after(card); // so that Tab goes on from the link
    link.focus({ preventScroll: true }); // where the browser returns to on Escape
    opener = link;
    card.showPopover();
    place(rectangle);
    card.focus({ preventScroll: true });
  }

  document.addEventListener("pointerdown", () => {
    pressed = card?.matches(":popover-open") ? opener : null; // before the browser closes it
  }, true);

  // before Material follows the link
  document.addEventListener("click", async (event) => {
    const link = event.target.closest?.(`${REFERENCES}, ${FOOTNOTES}`);
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    if (link.closest(".citation-card")) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (event.detail && pressed === link) return; // a second click has closed it
    const lines = [...link.getClientRects()]; // a link may be broken over two lines
    const near = lines.find((line) => line.bottom >= event.clientY && line.top <= event.clientY) ?? lines[0];
    const data = await load().catch(() => null);
    const shown = data && (link.matches(REFERENCES) ? reference : footnote)(link, data);
    if (shown) open(link, shown, near);
    else location.assign(link.href);
  }, true);

  function mark() {
    if (card?.matches(":popover-open")) card.hidePopover();
    for (const link of document.querySelectorAll(`${REFERENCES}, ${FOOTNOTES}`)) link.ariaHasPopup = "dialog";
  }
  if (window.document$) window.document$.subscribe(mark);
  else if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", mark);
  else mark();
})();
