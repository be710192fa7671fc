// A formula wider than the screen scrolls within its box. The keyboard reaches a box, of a formula, a figure or a table
// that a snippet gave, if and only if it scrolls.
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
    for (const box of document.querySelectorAll("article :is(.arithmatex, figure, .output)")) {
      if (box.scrollWidth > box.clientWidth && box.clientWidth) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  }

  if (window.document$) window.document$.subscribe(fit);
  else fit();
  addEventListener("resize", fit);
})();
