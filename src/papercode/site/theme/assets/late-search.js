// Material starts its search worker and fetches the index of the whole site with every page, which is more than the page
// itself. Here both wait until somebody turns to the search field, or comes by a link that marks what was searched for.
(() => {
  if (location.protocol === "file:" || /[?&][hq]=/.test(location.search)) return;
  const waiting = [];
  let wanted = false;
  const turn = ({ target }) => {
    if (wanted || !target.closest?.(".md-search, [for=__search]")) return;
    wanted = true;
    for (const start of waiting) start();
  };
  for (const kind of ["focusin", "pointerover"]) document.addEventListener(kind, turn);

  const { open, send } = XMLHttpRequest.prototype;
  XMLHttpRequest.prototype.open = function (method, url, ...rest) {
    this.isIndex = String(url).endsWith("search_index.json");
    return open.call(this, method, url, ...rest);
  };
  XMLHttpRequest.prototype.send = function (...body) {
    if (this.isIndex && !wanted) waiting.push(() => send.apply(this, body));
    else send.apply(this, body);
  };

  const Immediate = Worker;
  window.Worker = class extends EventTarget {
    constructor(...how) {
      super();
      this.start = () => {
        const worker = new Immediate(...how);
        worker.onmessage = ({ data }) => this.dispatchEvent(new MessageEvent("message", { data }));
        return worker;
      };
    }
    postMessage(data) {
      this.worker ??= this.start();
      this.worker.postMessage(data);
    }
    terminate() {
      this.worker?.terminate();
    }
  };
})();
