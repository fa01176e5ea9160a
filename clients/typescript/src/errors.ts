/** One error for all: what the status code says, and the reason the server gave. */

import { fromBinary } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { status as codes, type ServiceError } from "@grpc/grpc-js";

import { BadRequestSchema, ErrorInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import { type Status, StatusSchema } from "./gen/google/rpc/status_pb.js";

/** One wrong field of a request: its path (`options.page_size`) and what must hold. */
export interface FieldViolation {
  field: string;
  description: string;
}

/** A call, or a row of a batch, that has no answer. */
export class AnnserveError extends Error {
  override name = "AnnserveError";
  /** The name of the gRPC status code: `NOT_FOUND`. */
  readonly code: string;
  /** Finer than the code, for example `UNKNOWN_ITEM`; empty for errors of gRPC itself. */
  readonly reason: string;
  /** Every value that the message mentions. */
  readonly metadata: Readonly<Record<string, string>>;
  readonly violations: readonly FieldViolation[];
  /** What to look for in the server's log. */
  readonly requestId: string | undefined;

  /** @internal */
  constructor(code: number, message: string, details: Details, requestId?: string) {
    const name = codes[code] ?? "UNKNOWN";
    super(`${details.reason || name}: ${message}`);
    this.code = name;
    this.reason = details.reason;
    this.metadata = details.metadata;
    this.violations = details.violations;
    this.requestId = requestId ?? details.metadata["request_id"];
  }
}

interface Details {
  reason: string;
  metadata: Record<string, string>;
  violations: FieldViolation[];
}

/** Returns the error that `status`, of a row of a batch, describes. @internal */
export function errorOfStatus(status: Status): AnnserveError {
  return new AnnserveError(status.code, status.message, detailsOf(status));
}

/** Returns what `error`, as grpc-js gives it, stands for. @internal */
export function errorOfCall(error: ServiceError): AnnserveError {
  const [bytes] = error.metadata.get("grpc-status-details-bin");
  const [requestId] = error.metadata.get("x-request-id");
  return new AnnserveError(error.code, error.details, detailsOf(decoded(bytes)), requestId?.toString());
}

/** Anything on the way may have damaged the details; the code is worth having without them. */
function decoded(bytes: string | Buffer | undefined): Status | undefined {
  try {
    return bytes instanceof Buffer ? fromBinary(StatusSchema, bytes) : undefined;
  } catch {
    return undefined;
  }
}

function detailsOf(status: Status | undefined): Details {
  const details: Details = { reason: "", metadata: {}, violations: [] };
  for (const detail of status?.details ?? []) {
    try {
      const info = anyUnpack(detail, ErrorInfoSchema);
      if (info) {
        details.reason = info.reason;
        details.metadata = info.metadata;
      }
      for (const { field, description } of anyUnpack(detail, BadRequestSchema)?.fieldViolations ?? []) {
        details.violations.push({ field, description });
      }
    } catch {
      // A detail that cannot be read says nothing.
    }
  }
  return details;
}
