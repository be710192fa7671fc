// What Material leaves undone for the keyboard and for screen readers. Its words come from the page itself.
(() => {
  // what is wider than the screen scrolls; without focus the keyboard could not scroll it
  const SCROLLS = ".output, .arithmatex, .katex-display, .md-typeset__scrollwrap, .md-typeset__table, article figure, article pre";
  const sizes = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const { overflowX, overflowY } = getComputedStyle(target);
      const wider = target.scrollWidth > target.clientWidth && /auto|scroll/.test(overflowX);
      const higher = target.scrollHeight > target.clientHeight && /auto|scroll/.test(overflowY);
      if (wider || higher) target.tabIndex = 0;
      else target.removeAttribute("tabindex");
    }
  });

  // a bar of buttons over each piece of code is no landmark
  const unmark = (bar) => bar.setAttribute("role", "none");
  new MutationObserver((changes) => {
    for (const { addedNodes } of changes)
      for (const node of addedNodes) if (node.matches?.(".md-code__nav")) unmark(node);
  }).observe(document.documentElement, { childList: true, subtree: true });

  function look() {
    sizes.disconnect();
    for (const element of document.querySelectorAll(SCROLLS)) sizes.observe(element);
    document.querySelectorAll(".md-code__nav").forEach(unmark);
    // lists of pages below a title that is a link: Material names them by a label that holds an icon alone
    for (const list of document.querySelectorAll("nav[aria-labelledby]")) {
      if (document.getElementById(list.getAttribute("aria-labelledby"))?.textContent.trim()) continue;
      list.removeAttribute("aria-labelledby");
      list.setAttribute("aria-label", list.querySelector(".md-nav__title").textContent.trim());
    }
    // on a small screen, menu and search open by labels, which the keyboard does not reach
    for (const [toggle, named] of [["__drawer", ".md-nav--primary"], ["__search", ".md-search__input"]]) {
      const label = document.querySelector(`label.md-header__button[for=${toggle}]`);
      if (!label) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.className = label.className;
      button.setAttribute("for", toggle); // Material's styles go by it
      button.setAttribute("aria-label", document.querySelector(named).getAttribute("aria-label"));
      button.append(...label.childNodes);
      button.addEventListener("click", () => {
        document.getElementById(toggle).click();
        document.querySelector(named).focus(); // to where one types; the menu takes no focus
      });
      label.replaceWith(button);
    }
    // so do the ways back in the menu; Material presses labels that have the focus on Enter
    for (const back of document.querySelectorAll(".md-nav--primary .md-nav .md-nav__title")) back.tabIndex = 0;
  }

  if (window.document$) window.document$.subscribe(look);
  else if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", look);
  else look();
})();
