// Reads an AsyncAPI document from standard input; prints its errors and warnings as JSON, without the advice to use 3.1.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const { document, diagnostics } = await new Parser().parse(readFileSync(0, "utf8"));
const found = diagnostics
  .filter((each) => each.severity < 2)
  .map((each) => `${each.code} at ${each.path.join("/")}: ${each.message}`);
console.log(JSON.stringify({ valid: document !== undefined, found }));
