// Before printing, the page learns its address, for its foot, and fetches the figures that nobody has scrolled to yet.
addEventListener("beforeprint", () => {
  const address = location.href.replace(/#.*/, "");
  document.documentElement.style.setProperty("--page-address", JSON.stringify(address));
  for (const image of document.querySelectorAll(".md-typeset img[loading=lazy]")) image.loading = "eager";
});
