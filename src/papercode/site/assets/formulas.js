// A formula wider than the screen scrolls within its box; the keyboard reaches a box if, and only if, it scrolls.
(() => {
  function fit() {
    const edge = document.querySelector("article")?.getBoundingClientRect().right;
    const inline = document.querySelectorAll("article span.arithmatex");
    for (const formula of inline) formula.classList.remove("wide");
    const wide = [...inline].filter(
      (formula) =>
        !formula.closest("table") &&
        [...formula.querySelectorAll(".katex-base")].some((part) => part.getBoundingClientRect().right > edge),
    );
    for (const formula of wide) formula.classList.add("wide");
    for (const box of document.querySelectorAll("article .arithmatex")) {
      if (box.scrollWidth > box.clientWidth && box.clientWidth) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  }

  if (window.document$) window.document$.subscribe(fit);
  else fit();
  addEventListener("resize", fit);
})();
