// Copying a claim gives code that can be pasted: no prompts, no outputs. Works with instant navigation and without.
(() => {
  // the code of a session: prompts, and the lines that continue them; an output may begin with dots, too
  function withoutPrompts(session) {
    const code = [];
    let continued = false;
    for (const line of session.split("\n")) {
      continued = /^>>>( |$)/.test(line) || (continued && /^\.\.\.( |$)/.test(line));
      if (continued) code.push(line.slice(4));
    }
    return code.join("\n");
  }

  // Material copies the text that `data-copy` gives, also where there is no clipboard interface, as on file://
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-clipboard-target]");
    const code = button?.closest(".language-pycon")?.querySelector("code");
    if (code) code.dataset.copy = withoutPrompts(code.textContent);
  }, true);

  // then it says so in a box at the edge: aloud, too
  const announce = () => document.querySelector(".md-dialog__inner")?.setAttribute("role", "status");
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", announce);
  else announce();
})();
