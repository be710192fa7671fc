// "What the imports bring" unfolds to sources, which come in one file a module: a script, for pages opened from a disk
// may not fetch. Without JavaScript the links to the API pages are there.
(() => {
  const folder = new URL("source/", document.currentScript.src);
  const waiting = new Map(); // module: the promise of its sources
  const given = new Map();

  window.papercodeSource = (module, sources) => given.set(module, sources);

  function load(module) {
    if (!waiting.has(module)) {
      const script = document.createElement("script");
      script.src = new URL(`${module}.js`, folder);
      waiting.set(module, new Promise((resolve, reject) => {
        script.onload = () => resolve(given.get(module));
        script.onerror = () => { waiting.delete(module); reject(new Error(`${script.src} cannot be read`)); };
      }));
      document.head.append(script);
    }
    return waiting.get(module);
  }

  async function fill(symbol) {
    if (symbol.querySelector("pre")) return;
    const { module, name } = symbol.dataset;
    const sources = await load(module).catch(() => ({})); // the link above it still leads to the source
    if (!sources[name] || symbol.querySelector("pre")) return;
    const block = document.createElement("div");
    block.className = "language-python highlight";
    block.innerHTML = "<pre><code></code></pre>";
    const code = block.querySelector("code");
    code.innerHTML = sources[name];
    code.tabIndex = 0; // it scrolls
    code.setAttribute("role", "region");
    code.setAttribute("aria-label", `Source of ${name}`);
    symbol.append(block);
  }

  // the event does not bubble, but it can be caught on its way down
  document.addEventListener("toggle", ({ target }) => {
    if (target.open && target.matches("details.brings")) target.querySelectorAll(".brings-symbol").forEach(fill);
  }, true);
})();
