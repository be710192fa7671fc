// A formula in a line that is wider than the screen scrolls within its own box.
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
  }

  if (window.document$) window.document$.subscribe(fit);
  else fit();
  addEventListener("resize", fit);
})();
