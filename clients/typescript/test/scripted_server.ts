/** A server that answers each Similar call with the next line of a script, so that the client can be watched. */

import { fromBinary, type MessageShape, toBinary } from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";

import {
  RecommendationService,
  SimilarRequestSchema,
  type SimilarResponse,
  SimilarResponseSchema,
} from "../src/gen/annserve/v1/recommendation_service_pb.js";

/** A response to give, the status to fail with, or nothing at all. The last line holds for the rest. */
export type Line = SimilarResponse | grpc.status | "silence";

export interface Scripted {
  target: string;
  requests: MessageShape<typeof SimilarRequestSchema>[];
  stop: () => void;
}

export async function serving(...lines: Line[]): Promise<Scripted> {
  const requests: Scripted["requests"] = [];
  const server = new grpc.Server();
  const method = RecommendationService.method.similar;
  const definition = {
    path: `/${RecommendationService.typeName}/${method.name}`,
    requestStream: false,
    responseStream: false,
    requestSerialize: (value: MessageShape<typeof SimilarRequestSchema>) =>
      Buffer.from(toBinary(SimilarRequestSchema, value)),
    requestDeserialize: (bytes: Buffer) => fromBinary(SimilarRequestSchema, bytes),
    responseSerialize: (value: SimilarResponse) => Buffer.from(toBinary(SimilarResponseSchema, value)),
    responseDeserialize: (bytes: Buffer) => fromBinary(SimilarResponseSchema, bytes),
  };
  const similar: grpc.handleUnaryCall<MessageShape<typeof SimilarRequestSchema>, SimilarResponse> = (call, answer) => {
    const line = lines[Math.min(requests.length, lines.length - 1)];
    requests.push(call.request);
    if (typeof line === "number") answer({ code: line, details: "as scripted" });
    else if (typeof line === "object") answer(null, line);
  };
  server.addService({ similar: definition }, { similar });
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  return { target: `127.0.0.1:${port}`, requests, stop: () => server.forceShutdown() };
}
