/** The client against annserve itself, serving its demo at the address in ANNSERVE_ADDRESS. */

import assert from "node:assert/strict";
import { after, test } from "node:test";

import { AnnserveError, Client } from "../src/index.js";

const address = process.env["ANNSERVE_ADDRESS"];
assert.ok(address, "ANNSERVE_ADDRESS says where annserve serves its demo: make test-clients");
// A machine that compiles at the same time may be slow.
const client = new Client(address, { timeoutMs: 10_000 });
after(() => client.close());

test("similar answers best first", async () => {
  const answer = await client.similar({ itemIds: ["22423"], pageSize: 5 });

  const scores = answer.results.map(({ score }) => score);
  assert.equal(scores.length, 5);
  assert.deepEqual(scores, scores.toSorted((left, right) => right - left));
  assert.ok(answer.results.every(({ source, itemId }) => source === "item_vector" && itemId !== "22423"));
});

test("personalize answers for a user and for recent items", async () => {
  const known = await client.personalize({ userId: "12347" });
  const folded = await client.personalize({ recentItems: [{ itemId: "22423" }, { itemId: "22697", weight: 2 }] });

  assert.equal(known.results[0]?.source, "user_vector");
  assert.equal(folded.results[0]?.source, "fold_in");
});

test("related blends context and taste", async () => {
  const answer = await client.related({ itemIds: ["22423"], userId: "12347", userImpact: 0.25, explain: true });

  assert.equal(answer.results[0]?.source, "blend");
  assert.equal(answer.userImpact, 0.25);
  assert.ok(answer.results[0].explanation?.affinity !== undefined);
});

test("recommend is asked of a placement by its name", async () => {
  const call = client.recommend({ placement: "No Name", userId: "12347" });

  const error: unknown = await call.catch((reason: unknown) => reason);

  assert.ok(error instanceof AnnserveError);
  assert.deepEqual([error.code, error.reason, error.metadata], ["INVALID_ARGUMENT", "INVALID_ARGUMENT", { fields: "placement" }]);
});

test("batch gives an answer or an error for each row", async () => {
  const [answer, error] = await client.batch([
    { similar: { itemIds: ["22423"], pageSize: 3 } },
    { personalize: { userId: "nobody", strict: true } },
  ]);

  assert.ok(answer && !(answer instanceof AnnserveError));
  assert.equal(answer.results.length, 3);
  assert.ok(error instanceof AnnserveError);
  assert.deepEqual([error.code, error.reason, error.metadata["user_id"]], ["NOT_FOUND", "UNKNOWN_USER", "nobody"]);
});

test("error says which field is wrong and what to look for in the log", async () => {
  const error: unknown = await client.similar({ itemIds: ["22423"], pageSize: 501 }).catch((reason: unknown) => reason);

  assert.ok(error instanceof AnnserveError);
  assert.equal(error.reason, "INVALID_ARGUMENT");
  assert.equal(error.violations[0]?.field, "options.page_size");
  assert.ok(error.requestId);
});
