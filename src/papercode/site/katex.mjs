// Reads lines from standard input, each a list [{tex, display}, …] as JSON, and answers each with a line: a list of
// {html}, or of {message, position} of what KaTeX objects to. The first argument is the path of katex.min.js, the second
// "set", or "check", which objects to what works but is no LaTeX.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

// not by require(): what a .js file is taken for depends on any package.json above it
const library = { exports: {} };
new Function("module", "exports", readFileSync(process.argv[2], "utf8"))(library, library.exports);
const katex = library.exports;
const strict = process.argv[3] === "check" ? "error" : "ignore";

function answer({ tex, display }) {
  try {
    return { html: katex.renderToString(tex, { displayMode: display, throwOnError: true, strict }) };
  } catch (error) {
    if (!(error instanceof katex.ParseError)) throw error;
    return { message: error.rawMessage ?? error.message, position: error.position ?? null };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(JSON.parse(line).map(answer))}\n`);
}
