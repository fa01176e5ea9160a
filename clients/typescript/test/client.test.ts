/** The client against scripted servers: how often it tries, how long it waits, what it sends. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { create, toJson } from "@bufbuild/protobuf";
import { status } from "@grpc/grpc-js";

import type { SearchPath } from "../src/gen/annserve/v1/recommendation_pb.js";
import { SimilarRequestSchema, SimilarResponseSchema } from "../src/gen/annserve/v1/recommendation_service_pb.js";
import { AnnserveError, Client } from "../src/index.js";
import { type Line, serving } from "./scripted_server.js";

const ANSWER = create(SimilarResponseSchema, {
  recommendations: {
    results: [{ itemId: "상품-1", score: 2.5, source: 3, metadata: { tags: { values: [{ kind: { case: "stringValue", value: "x" } }, {}] } } }],
    snapshotId: "s1",
    shortfall: { requestedCount: 10, returnedCount: 1, eligibleCount: 1n, limitingRule: 2 },
    searchPath: 99 as SearchPath,
  },
  servingInfo: { attributionToken: "abc", degradations: [1], cache: { source: 3, age: { nanos: 500_000_000 } } },
});

async function against<Result>(lines: Line[], use: (client: Client) => Promise<Result>, timeoutMs?: number) {
  const server = await serving(...lines);
  const client = new Client(server.target, timeoutMs === undefined ? {} : { timeoutMs });
  try {
    return { result: await use(client), requests: server.requests };
  } finally {
    client.close();
    server.stop();
  }
}

/** Returns the error that `call` ends with. */
async function failing(call: Promise<unknown>): Promise<AnnserveError> {
  const error: unknown = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof AnnserveError, String(error));
  return error;
}

for (const code of [status.UNAVAILABLE, status.CANCELLED]) {
  test(`call that fails twice with ${status[code]} succeeds`, async () => {
    const lines = [code, code, ANSWER];

    const { result, requests } = await against(lines, (client) => client.similar({ itemIds: ["a"] }), 10_000);

    assert.equal(result.snapshotId, "s1");
    assert.equal(requests.length, 3);
  });
}

test("lasting failure is not tried again", async () => {
  const use = (client: Client) => failing(client.similar({ itemIds: ["a"] }));

  const { result, requests } = await against([status.INTERNAL], use, 10_000);

  assert.deepEqual([result.code, result.reason, result.message], ["INTERNAL", "", "INTERNAL: as scripted"]);
  assert.equal(requests.length, 1);
});

test("server that does not answer costs 300 ms", async () => {
  const begun = performance.now();

  const { result } = await against(["silence"], (client) => failing(client.similar({ itemIds: ["a"] })));

  assert.equal(result.code, "DEADLINE_EXCEEDED");
  assert.ok(performance.now() - begun >= 290);
});

test("aborted call ends as cancelled", async () => {
  const signal = AbortSignal.abort();

  const { result } = await against(["silence"], (client) => failing(client.similar({ itemIds: ["a"] }, { signal })), 10_000);

  assert.equal(result.code, "CANCELLED");
});

test("answer comes back as plain values", async () => {
  const { result } = await against([ANSWER], (client) => client.similar({ itemIds: ["a"] }), 10_000);

  assert.deepEqual(result, {
    results: [{ itemId: "상품-1", score: 2.5, source: "fold_in", metadata: { tags: ["x"] }, fallbackStep: 0 }],
    snapshotId: "s1",
    missingIds: [],
    shortfall: { requestedCount: 10, returnedCount: 1, eligibleCount: 1, limitingRule: "candidate_items" },
    searchPath: "unknown",
    attributionToken: "abc",
    stageSeconds: {},
    degradations: ["catalog_stale"],
    cache: { source: "instance", ageSeconds: 0.5 },
  });
});

test("every option is sent", async () => {
  const request = {
    itemIds: ["a"],
    pageSize: 7,
    excludeItemIds: ["x"],
    candidateItemIds: [],
    filter: {
      allOf: [
        { field: "price", minimum: 1, below: 5 },
        { noneOf: [{ field: "name", exists: true }] },
        { anyOf: [{ field: "tags", contains: "t" }, { field: "country", oneOf: ["FR", "ES"] }] },
        { field: "sold", equals: new Date(1_500) },
      ],
    },
    readMask: ["price"],
    maxStalenessSeconds: 0,
    excludeSeen: false,
    popularityWeight: 0,
    efSearch: 64,
    exact: true,
    snapshotId: "s1",
    strict: true,
    explain: true,
    bypassCache: true,
  };

  const { requests } = await against([ANSWER], (client) => client.similar(request), 10_000);

  assert.deepEqual(toJson(SimilarRequestSchema, requests[0]!), {
    itemIds: ["a"],
    options: {
      pageSize: 7,
      excludeItemIds: ["x"],
      candidateItems: {},
      filter: {
        allOf: {
          filters: [
            { condition: { field: "price", range: { minimum: { numberValue: 1 }, below: { numberValue: 5 } } } },
            { noneOf: { filters: [{ condition: { field: "name", exists: true } }] } },
            {
              anyOf: {
                filters: [
                  { condition: { field: "tags", contains: { stringValue: "t" } } },
                  { condition: { field: "country", oneOf: { values: [{ stringValue: "FR" }, { stringValue: "ES" }] } } },
                ],
              },
            },
            { condition: { field: "sold", equals: { timeValue: "1970-01-01T00:00:01.500Z" } } },
          ],
        },
      },
      readMask: "price",
      excludeSeen: false,
      popularityWeight: 0,
      searchParameters: { efSearch: 64, exact: true },
      consistency: { snapshotId: "s1", maxStaleness: "0s", bypassCache: true },
      strict: true,
      explain: true,
    },
  });
});
