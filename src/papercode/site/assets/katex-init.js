// Sets the formulas that pymdownx.arithmatex (generic) left as \(…\) and \[…\]. Works with Material's instant navigation
// and without; where a formula cannot be set, and where there is no JavaScript, the TeX stays readable.
(() => {
  function set() {
    for (const element of document.querySelectorAll(".arithmatex")) {
      const source = element.textContent.trim();
      const display = source.startsWith("\\[");
      if (!display && !source.startsWith("\\(")) continue; // set already
      try {
        katex.render(source.slice(2, -2), element, { displayMode: display, throwOnError: false, strict: "ignore" });
      } catch (error) {
        element.textContent = source;
        console.warn(`KaTeX could not set ${source}:`, error);
      }
    }
  }

  if (window.document$) window.document$.subscribe(set);
  else if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", set);
  else set();
})();
