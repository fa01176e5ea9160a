/** What a user of the package sees. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

test("no generated type is in the public declarations", () => {
  const seen = new Set<string>();
  const waiting = ["index.d.ts"];
  for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
    if (seen.has(name)) continue;
    seen.add(name);
    const text = readFileSync(new URL(`../../dist/${name}`, import.meta.url), "utf8");
    waiting.push(...[...text.matchAll(/from "\.\/(.+?)\.js"/g)].map(([, found]) => `${found}.d.ts`));
    assert.doesNotMatch(text, /gen\/|@bufbuild|@grpc/, name);
  }

  assert.deepEqual([...seen].sort(), ["client.d.ts", "errors.d.ts", "index.d.ts", "requests.d.ts", "results.d.ts"]);
});
