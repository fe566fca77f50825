/* Write LICENSES: name, version and licence of every package that esbuild put into the bundle. */
import { readFileSync, writeFileSync } from "node:fs";

const inputs = Object.keys(JSON.parse(readFileSync("meta.json", "utf8")).inputs);
const folders = new Set(inputs.flatMap((path) => path.match(/^node_modules\/(?:@[^/]+\/)?[^/]+/) ?? []));
const parts = [...folders].sort().map((folder) => {
  const { name, version, license } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
  return `${name} ${version} (${license})\n\n${readFileSync(`${folder}/LICENSE`, "utf8").trim()}\n`;
});
writeFileSync("LICENSES", parts.join(`\n${"-".repeat(80)}\n\n`));
