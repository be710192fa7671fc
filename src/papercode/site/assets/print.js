// Before printing: what is folded is opened, for browsers whose style sheets cannot, and the page knows its address.
(() => {
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll(".md-typeset details:not([open], .source, .cite)")];
    for (const details of opened) details.open = true;
    for (const image of document.querySelectorAll(".md-typeset img[loading=lazy]")) image.loading = "eager";
    const address = location.href.replace(/#.*/, "");
    document.documentElement.style.setProperty("--page-address", JSON.stringify(address));
  });
  addEventListener("afterprint", () => {
    for (const details of opened) details.open = false;
    opened = [];
  });
})();
