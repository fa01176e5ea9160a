/** The TypeScript client of annserve: recommendations over gRPC, with deadlines, retries and types. */

export { Client, type CallOptions, type ClientOptions } from "./client.js";
export { AnnserveError, type FieldViolation } from "./errors.js";
export type * from "./requests.js";
export type * from "./results.js";
