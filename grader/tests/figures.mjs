// Calls what a figure's module exports: cases come as JSON on standard input, results go out as JSON.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const special = { NaN, Infinity, "-Infinity": -Infinity };
const reading = (_, value) => (typeof value === "string" && value in special ? special[value] : value);
const writing = (_, value) => (typeof value === "number" && !Number.isFinite(value) ? String(value) : value);

const { file, cases } = JSON.parse(readFileSync(0, "utf8"), reading);
const module = await import(pathToFileURL(file));
const results = cases.map(([name, args]) => module[name](...args));
const exported = Object.keys(module).filter((name) => typeof module[name] === "function");
process.stdout.write(JSON.stringify({ results, exported, draws: typeof module.default?.render }, writing));
