// Reads [{tex, display}, …] as JSON from standard input and writes for each null, or {message, position} of what KaTeX
// found wrong. The first argument is the path of katex.min.js.
import { readFileSync } from "node:fs";

// not by require(): what a .js file is taken for depends on any package.json above it
const library = { exports: {} };
new Function("module", "exports", readFileSync(process.argv[2], "utf8"))(library, library.exports);
const katex = library.exports;

function fault({ tex, display }) {
  try {
    katex.renderToString(tex, { displayMode: display, throwOnError: true, strict: "error", output: "html" });
    return null;
  } catch (error) {
    if (!(error instanceof katex.ParseError)) throw error;
    return { message: error.rawMessage ?? error.message, position: error.position ?? null };
  }
}

process.stdout.write(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(fault)));
