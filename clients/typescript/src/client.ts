/** The client. */

import { create, type DescMessage, fromBinary, type MessageShape, toBinary } from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";

import {
  answerOf,
  batchAnswersOf,
  personalizeMessage,
  recommendMessage,
  relatedMessage,
  rowMessage,
  similarMessage,
} from "./convert.js";
import { AnnserveError, errorOfCall } from "./errors.js";
import { BatchRecommendRequestSchema, RecommendationService } from "./gen/annserve/v1/recommendation_service_pb.js";
import type { BatchRow, PersonalizeRequest, RecommendRequest, RelatedRequest, SimilarRequest } from "./requests.js";
import type { Recommendations } from "./results.js";
import { retryConfig, shippedTimeoutMs } from "./service_config.js";

const methods = RecommendationService.method;

export interface ClientOptions {
  /** How long a call may take, retries included; 300, and 1,000 for a batch, unless set. */
  timeoutMs?: number;
  /** How to secure the connection, by the bytes of PEM files; it is not secured unless set. `{}` trusts the machine's roots. */
  tls?: { rootCertificates?: Buffer; privateKey?: Buffer; certificateChain?: Buffer };
  /** What the server asks for, where it does. */
  apiKey?: string;
}

export interface CallOptions {
  /** How long this call may take, retries included; the client's default unless set. */
  timeoutMs?: number;
  /** Ends the call when it is aborted, as `CANCELLED`. */
  signal?: AbortSignal;
}

/** Asks one annserve server, or several behind one name. Make one and keep it; `close` it in the end. */
export class Client {
  readonly #connection: grpc.Client;
  readonly #metadata = new grpc.Metadata();
  readonly #timeoutMs: number | undefined;

  /**
   * Makes a client; it connects with the first call.
   *
   * @param target Where the server is, in gRPC's naming: `127.0.0.1:50051`, `dns:///annserve.example:50051`.
   */
  constructor(target: string, { timeoutMs, tls, apiKey }: ClientOptions = {}) {
    const credentials = tls
      ? grpc.credentials.createSsl(tls.rootCertificates, tls.privateKey, tls.certificateChain)
      : grpc.credentials.createInsecure();
    this.#connection = new grpc.Client(target, credentials, {
      "grpc.service_config": retryConfig,
      // Clients of one target otherwise share one connection, and so one worker of the server.
      "grpc.use_local_subchannel_pool": 1,
      // Not more often than the server's minimum of 10 s, which it answers with GOAWAY.
      "grpc.keepalive_time_ms": 30_000,
      "grpc.keepalive_timeout_ms": 10_000,
      "grpc.initial_reconnect_backoff_ms": 50,
      "grpc.max_reconnect_backoff_ms": 2_000,
    });
    this.#timeoutMs = timeoutMs;
    if (apiKey !== undefined) this.#metadata.set("authorization", `Bearer ${apiKey}`);
  }

  /** Returns the items most like one or several seed items. @throws {AnnserveError} there is no answer. */
  async similar(request: SimilarRequest, call?: CallOptions): Promise<Recommendations> {
    return answerOf(await this.#call(methods.similar, similarMessage(request), call));
  }

  /** Returns the items that suit a user best. @throws {AnnserveError} there is no answer. */
  async personalize(request: PersonalizeRequest, call?: CallOptions): Promise<Recommendations> {
    return answerOf(await this.#call(methods.personalize, personalizeMessage(request), call));
  }

  /** Returns the items that go with what is on screen, for a user. @throws {AnnserveError} there is no answer. */
  async related(request: RelatedRequest, call?: CallOptions): Promise<Recommendations> {
    return answerOf(await this.#call(methods.related, relatedMessage(request), call));
  }

  /** Returns what a placement shows here and now. @throws {AnnserveError} there is no answer. */
  async recommend(request: RecommendRequest, call?: CallOptions): Promise<Recommendations> {
    return answerOf(await this.#call(methods.recommend, recommendMessage(request), call));
  }

  /**
   * Returns the answer to each of up to 100 rows, in their order, or why there is none.
   *
   * @throws {AnnserveError} the call as a whole failed.
   */
  async batch(rows: readonly BatchRow[], call?: CallOptions): Promise<(Recommendations | AnnserveError)[]> {
    const message = create(BatchRecommendRequestSchema, { rows: rows.map(rowMessage) });
    return batchAnswersOf(await this.#call(methods.batchRecommend, message, call));
  }

  /** Closes the connection; calls under way end first. */
  close(): void {
    this.#connection.close();
  }

  #call<Input extends DescMessage, Output extends DescMessage>(
    method: Method<Input, Output>,
    message: MessageShape<Input>,
    { timeoutMs, signal }: CallOptions = {},
  ): Promise<MessageShape<Output>> {
    const deadline = Date.now() + (timeoutMs ?? this.#timeoutMs ?? shippedTimeoutMs(method.name));
    return new Promise((resolve, reject) => {
      const call = this.#connection.makeUnaryRequest(
        `/${RecommendationService.typeName}/${method.name}`,
        (value: MessageShape<Input>) => Buffer.from(toBinary(method.input, value)),
        (bytes: Buffer) => fromBinary(method.output, bytes),
        message,
        this.#metadata,
        { deadline },
        (error, value) => {
          signal?.removeEventListener("abort", cancel);
          if (error) reject(errorOfCall(error));
          else resolve(value as MessageShape<Output>);
        },
      );
      const cancel = (): void => call.cancel();
      signal?.addEventListener("abort", cancel);
      if (signal?.aborted) cancel();
    });
  }
}

interface Method<Input extends DescMessage, Output extends DescMessage> {
  name: string;
  input: Input;
  output: Output;
}
