// Copying a claim gives code that can be pasted: no prompts, no outputs. Works with instant navigation and without.
(() => {
  const PROMPT = /^(>>>|\.\.\.)( |$)/;

  // Material copies the text of the code element through the clipboard library; we answer before it does.
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.(".md-clipboard, [data-clipboard-target]");
    const block = button?.closest(".language-pycon")?.querySelector("code");
    if (!block) return;
    const code = block.innerText.split("\n").filter((line) => PROMPT.test(line)).map((line) => line.slice(4)).join("\n");
    if (!code) return;
    event.stopImmediatePropagation();
    event.preventDefault();
    navigator.clipboard.writeText(code + "\n").then(() => {
      const label = button.title;
      button.title = "Copied";
      button.classList.add("md-clipboard--copied");
      setTimeout(() => { button.title = label; button.classList.remove("md-clipboard--copied"); }, 1500);
    });
  }, true);
})();
