package annserve.v1;

import static io.grpc.MethodDescriptor.generateFullMethodName;

/**
 * <pre>
 * Answers "what next?" for a catalogue: what is like this item, what suits this user, what goes with what is on screen.
 * Every method answers from one snapshot, named in the answer. A server starts only once it has loaded one; UNAVAILABLE
 * with reason `NO_SNAPSHOT` is reserved for servers that start before, and clients must treat it as retryable. All
 * methods are read-only: UNAVAILABLE and CANCELLED may be retried, as `service_config.json` does. Results are ordered
 * best first. Fewer than asked for is an answer (see `shortfall`), not an error.
 * A request is at most 640 KiB, an answer at most 2 MiB (RESOURCE_EXHAUSTED, from gRPC itself). The server ends a call
 * after its own cap, 1 s unless configured, where the caller's deadline is later or missing. Errors carry an
 * `x-request-id` in their trailing metadata: the caller's own, when the call's metadata has one of 1 to 64 characters
 * out of `A-Z a-z 0-9 . _ : -`, or a new one.
 * Ids are 1 to 128 bytes of UTF-8 without control characters; anything else is INVALID_ARGUMENT. An id that is well
 * formed but has no vector is listed in `missing_ids`, and what remains of the request answers: see each method.
 * Unknown fields are ignored.
 * </pre>
 */
@javax.annotation.Generated(
    value = "by gRPC proto compiler",
    comments = "Source: annserve/v1/recommendation_service.proto")
@io.grpc.stub.annotations.GrpcGenerated
public final class RecommendationServiceGrpc {

  private RecommendationServiceGrpc() {}

  public static final String SERVICE_NAME = "annserve.v1.RecommendationService";

  // Static method descriptors that strictly reflect the proto.
  private static volatile io.grpc.MethodDescriptor<annserve.v1.SimilarRequest,
      annserve.v1.SimilarResponse> getSimilarMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "Similar",
      requestType = annserve.v1.SimilarRequest.class,
      responseType = annserve.v1.SimilarResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<annserve.v1.SimilarRequest,
      annserve.v1.SimilarResponse> getSimilarMethod() {
    io.grpc.MethodDescriptor<annserve.v1.SimilarRequest, annserve.v1.SimilarResponse> getSimilarMethod;
    if ((getSimilarMethod = RecommendationServiceGrpc.getSimilarMethod) == null) {
      synchronized (RecommendationServiceGrpc.class) {
        if ((getSimilarMethod = RecommendationServiceGrpc.getSimilarMethod) == null) {
          RecommendationServiceGrpc.getSimilarMethod = getSimilarMethod =
              io.grpc.MethodDescriptor.<annserve.v1.SimilarRequest, annserve.v1.SimilarResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "Similar"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  annserve.v1.SimilarRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  annserve.v1.SimilarResponse.getDefaultInstance()))
              .setSchemaDescriptor(new RecommendationServiceMethodDescriptorSupplier("Similar"))
              .build();
        }
      }
    }
    return getSimilarMethod;
  }

  private static volatile io.grpc.MethodDescriptor<annserve.v1.PersonalizeRequest,
      annserve.v1.PersonalizeResponse> getPersonalizeMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "Personalize",
      requestType = annserve.v1.PersonalizeRequest.class,
      responseType = annserve.v1.PersonalizeResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<annserve.v1.PersonalizeRequest,
      annserve.v1.PersonalizeResponse> getPersonalizeMethod() {
    io.grpc.MethodDescriptor<annserve.v1.PersonalizeRequest, annserve.v1.PersonalizeResponse> getPersonalizeMethod;
    if ((getPersonalizeMethod = RecommendationServiceGrpc.getPersonalizeMethod) == null) {
      synchronized (RecommendationServiceGrpc.class) {
        if ((getPersonalizeMethod = RecommendationServiceGrpc.getPersonalizeMethod) == null) {
          RecommendationServiceGrpc.getPersonalizeMethod = getPersonalizeMethod =
              io.grpc.MethodDescriptor.<annserve.v1.PersonalizeRequest, annserve.v1.PersonalizeResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "Personalize"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  annserve.v1.PersonalizeRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  annserve.v1.PersonalizeResponse.getDefaultInstance()))
              .setSchemaDescriptor(new RecommendationServiceMethodDescriptorSupplier("Personalize"))
              .build();
        }
      }
    }
    return getPersonalizeMethod;
  }

  private static volatile io.grpc.MethodDescriptor<annserve.v1.RelatedRequest,
      annserve.v1.RelatedResponse> getRelatedMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "Related",
      requestType = annserve.v1.RelatedRequest.class,
      responseType = annserve.v1.RelatedResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<annserve.v1.RelatedRequest,
      annserve.v1.RelatedResponse> getRelatedMethod() {
    io.grpc.MethodDescriptor<annserve.v1.RelatedRequest, annserve.v1.RelatedResponse> getRelatedMethod;
    if ((getRelatedMethod = RecommendationServiceGrpc.getRelatedMethod) == null) {
      synchronized (RecommendationServiceGrpc.class) {
        if ((getRelatedMethod = RecommendationServiceGrpc.getRelatedMethod) == null) {
          RecommendationServiceGrpc.getRelatedMethod = getRelatedMethod =
              io.grpc.MethodDescriptor.<annserve.v1.RelatedRequest, annserve.v1.RelatedResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "Related"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  annserve.v1.RelatedRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  annserve.v1.RelatedResponse.getDefaultInstance()))
              .setSchemaDescriptor(new RecommendationServiceMethodDescriptorSupplier("Related"))
              .build();
        }
      }
    }
    return getRelatedMethod;
  }

  private static volatile io.grpc.MethodDescriptor<annserve.v1.RecommendRequest,
      annserve.v1.RecommendResponse> getRecommendMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "Recommend",
      requestType = annserve.v1.RecommendRequest.class,
      responseType = annserve.v1.RecommendResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<annserve.v1.RecommendRequest,
      annserve.v1.RecommendResponse> getRecommendMethod() {
    io.grpc.MethodDescriptor<annserve.v1.RecommendRequest, annserve.v1.RecommendResponse> getRecommendMethod;
    if ((getRecommendMethod = RecommendationServiceGrpc.getRecommendMethod) == null) {
      synchronized (RecommendationServiceGrpc.class) {
        if ((getRecommendMethod = RecommendationServiceGrpc.getRecommendMethod) == null) {
          RecommendationServiceGrpc.getRecommendMethod = getRecommendMethod =
              io.grpc.MethodDescriptor.<annserve.v1.RecommendRequest, annserve.v1.RecommendResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "Recommend"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  annserve.v1.RecommendRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  annserve.v1.RecommendResponse.getDefaultInstance()))
              .setSchemaDescriptor(new RecommendationServiceMethodDescriptorSupplier("Recommend"))
              .build();
        }
      }
    }
    return getRecommendMethod;
  }

  private static volatile io.grpc.MethodDescriptor<annserve.v1.BatchRecommendRequest,
      annserve.v1.BatchRecommendResponse> getBatchRecommendMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "BatchRecommend",
      requestType = annserve.v1.BatchRecommendRequest.class,
      responseType = annserve.v1.BatchRecommendResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<annserve.v1.BatchRecommendRequest,
      annserve.v1.BatchRecommendResponse> getBatchRecommendMethod() {
    io.grpc.MethodDescriptor<annserve.v1.BatchRecommendRequest, annserve.v1.BatchRecommendResponse> getBatchRecommendMethod;
    if ((getBatchRecommendMethod = RecommendationServiceGrpc.getBatchRecommendMethod) == null) {
      synchronized (RecommendationServiceGrpc.class) {
        if ((getBatchRecommendMethod = RecommendationServiceGrpc.getBatchRecommendMethod) == null) {
          RecommendationServiceGrpc.getBatchRecommendMethod = getBatchRecommendMethod =
              io.grpc.MethodDescriptor.<annserve.v1.BatchRecommendRequest, annserve.v1.BatchRecommendResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "BatchRecommend"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  annserve.v1.BatchRecommendRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  annserve.v1.BatchRecommendResponse.getDefaultInstance()))
              .setSchemaDescriptor(new RecommendationServiceMethodDescriptorSupplier("BatchRecommend"))
              .build();
        }
      }
    }
    return getBatchRecommendMethod;
  }

  /**
   * Creates a new async stub that supports all call types for the service
   */
  public static RecommendationServiceStub newStub(io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<RecommendationServiceStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<RecommendationServiceStub>() {
        @java.lang.Override
        public RecommendationServiceStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new RecommendationServiceStub(channel, callOptions);
        }
      };
    return RecommendationServiceStub.newStub(factory, channel);
  }

  /**
   * Creates a new blocking-style stub that supports unary and streaming output calls on the service
   */
  public static RecommendationServiceBlockingStub newBlockingStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<RecommendationServiceBlockingStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<RecommendationServiceBlockingStub>() {
        @java.lang.Override
        public RecommendationServiceBlockingStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new RecommendationServiceBlockingStub(channel, callOptions);
        }
      };
    return RecommendationServiceBlockingStub.newStub(factory, channel);
  }

  /**
   * Creates a new ListenableFuture-style stub that supports unary calls on the service
   */
  public static RecommendationServiceFutureStub newFutureStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<RecommendationServiceFutureStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<RecommendationServiceFutureStub>() {
        @java.lang.Override
        public RecommendationServiceFutureStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new RecommendationServiceFutureStub(channel, callOptions);
        }
      };
    return RecommendationServiceFutureStub.newStub(factory, channel);
  }

  /**
   * <pre>
   * Answers "what next?" for a catalogue: what is like this item, what suits this user, what goes with what is on screen.
   * Every method answers from one snapshot, named in the answer. A server starts only once it has loaded one; UNAVAILABLE
   * with reason `NO_SNAPSHOT` is reserved for servers that start before, and clients must treat it as retryable. All
   * methods are read-only: UNAVAILABLE and CANCELLED may be retried, as `service_config.json` does. Results are ordered
   * best first. Fewer than asked for is an answer (see `shortfall`), not an error.
   * A request is at most 640 KiB, an answer at most 2 MiB (RESOURCE_EXHAUSTED, from gRPC itself). The server ends a call
   * after its own cap, 1 s unless configured, where the caller's deadline is later or missing. Errors carry an
   * `x-request-id` in their trailing metadata: the caller's own, when the call's metadata has one of 1 to 64 characters
   * out of `A-Z a-z 0-9 . _ : -`, or a new one.
   * Ids are 1 to 128 bytes of UTF-8 without control characters; anything else is INVALID_ARGUMENT. An id that is well
   * formed but has no vector is listed in `missing_ids`, and what remains of the request answers: see each method.
   * Unknown fields are ignored.
   * </pre>
   */
  public static abstract class RecommendationServiceImplBase implements io.grpc.BindableService {

    /**
     * <pre>
     * Returns the items most like one or several seed items, the seeds themselves excluded.
     * Several seeds are averaged as unit vectors. Seeds without a vector are listed in `missing_ids`; when none has one,
     * popular items answer (source `SOURCE_POPULAR`), unless the request is strict: then NOT_FOUND (`UNKNOWN_ITEM`).
     * </pre>
     */
    public void similar(annserve.v1.SimilarRequest request,
        io.grpc.stub.StreamObserver<annserve.v1.SimilarResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getSimilarMethod(), responseObserver);
    }

    /**
     * <pre>
     * Returns the items that suit a user best.
     * The user is, in this order: the exact fold-in of `recent_items`, when any of them has a vector; the vector stored
     * for `user_id`; otherwise popular items answer (source `SOURCE_POPULAR`), unless the request is strict: then
     * NOT_FOUND (`UNKNOWN_USER`). The results say which it was.
     * </pre>
     */
    public void personalize(annserve.v1.PersonalizeRequest request,
        io.grpc.stub.StreamObserver<annserve.v1.PersonalizeResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getPersonalizeMethod(), responseObserver);
    }

    /**
     * <pre>
     * Returns the items that go with what is on screen, for this user; the context items themselves are excluded.
     * Candidates are the union of the best by likeness to the context items and the best by affinity to the user. Both
     * scores are standardised over that union (zero mean, unit deviation) and blended:
     * `(1 - user_impact) * z(likeness) + user_impact * z(affinity)`. With `user_impact` 0 the order is Similar's, with 1
     * Personalize's. When the context items, or the user, have no vector, the other half answers alone and `user_impact`
     * in the answer says so; when neither has one, popular items answer. A strict request fails instead (NOT_FOUND).
     * </pre>
     */
    public void related(annserve.v1.RelatedRequest request,
        io.grpc.stub.StreamObserver<annserve.v1.RelatedResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getRelatedMethod(), responseObserver);
    }

    /**
     * <pre>
     * Returns what a placement shows here and now: which question is asked, and under which rules, is in its file.
     * NOT_FOUND (`UNKNOWN_PLACEMENT`) for a name that has none. An answer that the placement suppresses has no results, and
     * says so in `recommendations.placement`. Options that are set win over the file; `filter`, `exclude_item_ids` and
     * `candidate_items` narrow down what it allows.
     * </pre>
     */
    public void recommend(annserve.v1.RecommendRequest request,
        io.grpc.stub.StreamObserver<annserve.v1.RecommendResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getRecommendMethod(), responseObserver);
    }

    /**
     * <pre>
     * Answers up to 100 requests of any kind, each with a status of its own: one bad row does not spoil the rest.
     * Rows are answered in order, under the one deadline of the call; rows that it overtakes have DEADLINE_EXCEEDED.
     * Up to 20 ms of the deadline are kept back to bring home those that were done in time.
     * </pre>
     */
    public void batchRecommend(annserve.v1.BatchRecommendRequest request,
        io.grpc.stub.StreamObserver<annserve.v1.BatchRecommendResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getBatchRecommendMethod(), responseObserver);
    }

    @java.lang.Override public final io.grpc.ServerServiceDefinition bindService() {
      return io.grpc.ServerServiceDefinition.builder(getServiceDescriptor())
          .addMethod(
            getSimilarMethod(),
            io.grpc.stub.ServerCalls.asyncUnaryCall(
              new MethodHandlers<
                annserve.v1.SimilarRequest,
                annserve.v1.SimilarResponse>(
                  this, METHODID_SIMILAR)))
          .addMethod(
            getPersonalizeMethod(),
            io.grpc.stub.ServerCalls.asyncUnaryCall(
              new MethodHandlers<
                annserve.v1.PersonalizeRequest,
                annserve.v1.PersonalizeResponse>(
                  this, METHODID_PERSONALIZE)))
          .addMethod(
            getRelatedMethod(),
            io.grpc.stub.ServerCalls.asyncUnaryCall(
              new MethodHandlers<
                annserve.v1.RelatedRequest,
                annserve.v1.RelatedResponse>(
                  this, METHODID_RELATED)))
          .addMethod(
            getRecommendMethod(),
            io.grpc.stub.ServerCalls.asyncUnaryCall(
              new MethodHandlers<
                annserve.v1.RecommendRequest,
                annserve.v1.RecommendResponse>(
                  this, METHODID_RECOMMEND)))
          .addMethod(
            getBatchRecommendMethod(),
            io.grpc.stub.ServerCalls.asyncUnaryCall(
              new MethodHandlers<
                annserve.v1.BatchRecommendRequest,
                annserve.v1.BatchRecommendResponse>(
                  this, METHODID_BATCH_RECOMMEND)))
          .build();
    }
  }

  /**
   * <pre>
   * Answers "what next?" for a catalogue: what is like this item, what suits this user, what goes with what is on screen.
   * Every method answers from one snapshot, named in the answer. A server starts only once it has loaded one; UNAVAILABLE
   * with reason `NO_SNAPSHOT` is reserved for servers that start before, and clients must treat it as retryable. All
   * methods are read-only: UNAVAILABLE and CANCELLED may be retried, as `service_config.json` does. Results are ordered
   * best first. Fewer than asked for is an answer (see `shortfall`), not an error.
   * A request is at most 640 KiB, an answer at most 2 MiB (RESOURCE_EXHAUSTED, from gRPC itself). The server ends a call
   * after its own cap, 1 s unless configured, where the caller's deadline is later or missing. Errors carry an
   * `x-request-id` in their trailing metadata: the caller's own, when the call's metadata has one of 1 to 64 characters
   * out of `A-Z a-z 0-9 . _ : -`, or a new one.
   * Ids are 1 to 128 bytes of UTF-8 without control characters; anything else is INVALID_ARGUMENT. An id that is well
   * formed but has no vector is listed in `missing_ids`, and what remains of the request answers: see each method.
   * Unknown fields are ignored.
   * </pre>
   */
  public static final class RecommendationServiceStub extends io.grpc.stub.AbstractAsyncStub<RecommendationServiceStub> {
    private RecommendationServiceStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected RecommendationServiceStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new RecommendationServiceStub(channel, callOptions);
    }

    /**
     * <pre>
     * Returns the items most like one or several seed items, the seeds themselves excluded.
     * Several seeds are averaged as unit vectors. Seeds without a vector are listed in `missing_ids`; when none has one,
     * popular items answer (source `SOURCE_POPULAR`), unless the request is strict: then NOT_FOUND (`UNKNOWN_ITEM`).
     * </pre>
     */
    public void similar(annserve.v1.SimilarRequest request,
        io.grpc.stub.StreamObserver<annserve.v1.SimilarResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getSimilarMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Returns the items that suit a user best.
     * The user is, in this order: the exact fold-in of `recent_items`, when any of them has a vector; the vector stored
     * for `user_id`; otherwise popular items answer (source `SOURCE_POPULAR`), unless the request is strict: then
     * NOT_FOUND (`UNKNOWN_USER`). The results say which it was.
     * </pre>
     */
    public void personalize(annserve.v1.PersonalizeRequest request,
        io.grpc.stub.StreamObserver<annserve.v1.PersonalizeResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getPersonalizeMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Returns the items that go with what is on screen, for this user; the context items themselves are excluded.
     * Candidates are the union of the best by likeness to the context items and the best by affinity to the user. Both
     * scores are standardised over that union (zero mean, unit deviation) and blended:
     * `(1 - user_impact) * z(likeness) + user_impact * z(affinity)`. With `user_impact` 0 the order is Similar's, with 1
     * Personalize's. When the context items, or the user, have no vector, the other half answers alone and `user_impact`
     * in the answer says so; when neither has one, popular items answer. A strict request fails instead (NOT_FOUND).
     * </pre>
     */
    public void related(annserve.v1.RelatedRequest request,
        io.grpc.stub.StreamObserver<annserve.v1.RelatedResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getRelatedMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Returns what a placement shows here and now: which question is asked, and under which rules, is in its file.
     * NOT_FOUND (`UNKNOWN_PLACEMENT`) for a name that has none. An answer that the placement suppresses has no results, and
     * says so in `recommendations.placement`. Options that are set win over the file; `filter`, `exclude_item_ids` and
     * `candidate_items` narrow down what it allows.
     * </pre>
     */
    public void recommend(annserve.v1.RecommendRequest request,
        io.grpc.stub.StreamObserver<annserve.v1.RecommendResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getRecommendMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Answers up to 100 requests of any kind, each with a status of its own: one bad row does not spoil the rest.
     * Rows are answered in order, under the one deadline of the call; rows that it overtakes have DEADLINE_EXCEEDED.
     * Up to 20 ms of the deadline are kept back to bring home those that were done in time.
     * </pre>
     */
    public void batchRecommend(annserve.v1.BatchRecommendRequest request,
        io.grpc.stub.StreamObserver<annserve.v1.BatchRecommendResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getBatchRecommendMethod(), getCallOptions()), request, responseObserver);
    }
  }

  /**
   * <pre>
   * Answers "what next?" for a catalogue: what is like this item, what suits this user, what goes with what is on screen.
   * Every method answers from one snapshot, named in the answer. A server starts only once it has loaded one; UNAVAILABLE
   * with reason `NO_SNAPSHOT` is reserved for servers that start before, and clients must treat it as retryable. All
   * methods are read-only: UNAVAILABLE and CANCELLED may be retried, as `service_config.json` does. Results are ordered
   * best first. Fewer than asked for is an answer (see `shortfall`), not an error.
   * A request is at most 640 KiB, an answer at most 2 MiB (RESOURCE_EXHAUSTED, from gRPC itself). The server ends a call
   * after its own cap, 1 s unless configured, where the caller's deadline is later or missing. Errors carry an
   * `x-request-id` in their trailing metadata: the caller's own, when the call's metadata has one of 1 to 64 characters
   * out of `A-Z a-z 0-9 . _ : -`, or a new one.
   * Ids are 1 to 128 bytes of UTF-8 without control characters; anything else is INVALID_ARGUMENT. An id that is well
   * formed but has no vector is listed in `missing_ids`, and what remains of the request answers: see each method.
   * Unknown fields are ignored.
   * </pre>
   */
  public static final class RecommendationServiceBlockingStub extends io.grpc.stub.AbstractBlockingStub<RecommendationServiceBlockingStub> {
    private RecommendationServiceBlockingStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected RecommendationServiceBlockingStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new RecommendationServiceBlockingStub(channel, callOptions);
    }

    /**
     * <pre>
     * Returns the items most like one or several seed items, the seeds themselves excluded.
     * Several seeds are averaged as unit vectors. Seeds without a vector are listed in `missing_ids`; when none has one,
     * popular items answer (source `SOURCE_POPULAR`), unless the request is strict: then NOT_FOUND (`UNKNOWN_ITEM`).
     * </pre>
     */
    public annserve.v1.SimilarResponse similar(annserve.v1.SimilarRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getSimilarMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Returns the items that suit a user best.
     * The user is, in this order: the exact fold-in of `recent_items`, when any of them has a vector; the vector stored
     * for `user_id`; otherwise popular items answer (source `SOURCE_POPULAR`), unless the request is strict: then
     * NOT_FOUND (`UNKNOWN_USER`). The results say which it was.
     * </pre>
     */
    public annserve.v1.PersonalizeResponse personalize(annserve.v1.PersonalizeRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getPersonalizeMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Returns the items that go with what is on screen, for this user; the context items themselves are excluded.
     * Candidates are the union of the best by likeness to the context items and the best by affinity to the user. Both
     * scores are standardised over that union (zero mean, unit deviation) and blended:
     * `(1 - user_impact) * z(likeness) + user_impact * z(affinity)`. With `user_impact` 0 the order is Similar's, with 1
     * Personalize's. When the context items, or the user, have no vector, the other half answers alone and `user_impact`
     * in the answer says so; when neither has one, popular items answer. A strict request fails instead (NOT_FOUND).
     * </pre>
     */
    public annserve.v1.RelatedResponse related(annserve.v1.RelatedRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getRelatedMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Returns what a placement shows here and now: which question is asked, and under which rules, is in its file.
     * NOT_FOUND (`UNKNOWN_PLACEMENT`) for a name that has none. An answer that the placement suppresses has no results, and
     * says so in `recommendations.placement`. Options that are set win over the file; `filter`, `exclude_item_ids` and
     * `candidate_items` narrow down what it allows.
     * </pre>
     */
    public annserve.v1.RecommendResponse recommend(annserve.v1.RecommendRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getRecommendMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Answers up to 100 requests of any kind, each with a status of its own: one bad row does not spoil the rest.
     * Rows are answered in order, under the one deadline of the call; rows that it overtakes have DEADLINE_EXCEEDED.
     * Up to 20 ms of the deadline are kept back to bring home those that were done in time.
     * </pre>
     */
    public annserve.v1.BatchRecommendResponse batchRecommend(annserve.v1.BatchRecommendRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getBatchRecommendMethod(), getCallOptions(), request);
    }
  }

  /**
   * <pre>
   * Answers "what next?" for a catalogue: what is like this item, what suits this user, what goes with what is on screen.
   * Every method answers from one snapshot, named in the answer. A server starts only once it has loaded one; UNAVAILABLE
   * with reason `NO_SNAPSHOT` is reserved for servers that start before, and clients must treat it as retryable. All
   * methods are read-only: UNAVAILABLE and CANCELLED may be retried, as `service_config.json` does. Results are ordered
   * best first. Fewer than asked for is an answer (see `shortfall`), not an error.
   * A request is at most 640 KiB, an answer at most 2 MiB (RESOURCE_EXHAUSTED, from gRPC itself). The server ends a call
   * after its own cap, 1 s unless configured, where the caller's deadline is later or missing. Errors carry an
   * `x-request-id` in their trailing metadata: the caller's own, when the call's metadata has one of 1 to 64 characters
   * out of `A-Z a-z 0-9 . _ : -`, or a new one.
   * Ids are 1 to 128 bytes of UTF-8 without control characters; anything else is INVALID_ARGUMENT. An id that is well
   * formed but has no vector is listed in `missing_ids`, and what remains of the request answers: see each method.
   * Unknown fields are ignored.
   * </pre>
   */
  public static final class RecommendationServiceFutureStub extends io.grpc.stub.AbstractFutureStub<RecommendationServiceFutureStub> {
    private RecommendationServiceFutureStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected RecommendationServiceFutureStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new RecommendationServiceFutureStub(channel, callOptions);
    }

    /**
     * <pre>
     * Returns the items most like one or several seed items, the seeds themselves excluded.
     * Several seeds are averaged as unit vectors. Seeds without a vector are listed in `missing_ids`; when none has one,
     * popular items answer (source `SOURCE_POPULAR`), unless the request is strict: then NOT_FOUND (`UNKNOWN_ITEM`).
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<annserve.v1.SimilarResponse> similar(
        annserve.v1.SimilarRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getSimilarMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Returns the items that suit a user best.
     * The user is, in this order: the exact fold-in of `recent_items`, when any of them has a vector; the vector stored
     * for `user_id`; otherwise popular items answer (source `SOURCE_POPULAR`), unless the request is strict: then
     * NOT_FOUND (`UNKNOWN_USER`). The results say which it was.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<annserve.v1.PersonalizeResponse> personalize(
        annserve.v1.PersonalizeRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getPersonalizeMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Returns the items that go with what is on screen, for this user; the context items themselves are excluded.
     * Candidates are the union of the best by likeness to the context items and the best by affinity to the user. Both
     * scores are standardised over that union (zero mean, unit deviation) and blended:
     * `(1 - user_impact) * z(likeness) + user_impact * z(affinity)`. With `user_impact` 0 the order is Similar's, with 1
     * Personalize's. When the context items, or the user, have no vector, the other half answers alone and `user_impact`
     * in the answer says so; when neither has one, popular items answer. A strict request fails instead (NOT_FOUND).
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<annserve.v1.RelatedResponse> related(
        annserve.v1.RelatedRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getRelatedMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Returns what a placement shows here and now: which question is asked, and under which rules, is in its file.
     * NOT_FOUND (`UNKNOWN_PLACEMENT`) for a name that has none. An answer that the placement suppresses has no results, and
     * says so in `recommendations.placement`. Options that are set win over the file; `filter`, `exclude_item_ids` and
     * `candidate_items` narrow down what it allows.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<annserve.v1.RecommendResponse> recommend(
        annserve.v1.RecommendRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getRecommendMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Answers up to 100 requests of any kind, each with a status of its own: one bad row does not spoil the rest.
     * Rows are answered in order, under the one deadline of the call; rows that it overtakes have DEADLINE_EXCEEDED.
     * Up to 20 ms of the deadline are kept back to bring home those that were done in time.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<annserve.v1.BatchRecommendResponse> batchRecommend(
        annserve.v1.BatchRecommendRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getBatchRecommendMethod(), getCallOptions()), request);
    }
  }

  private static final int METHODID_SIMILAR = 0;
  private static final int METHODID_PERSONALIZE = 1;
  private static final int METHODID_RELATED = 2;
  private static final int METHODID_RECOMMEND = 3;
  private static final int METHODID_BATCH_RECOMMEND = 4;

  private static final class MethodHandlers<Req, Resp> implements
      io.grpc.stub.ServerCalls.UnaryMethod<Req, Resp>,
      io.grpc.stub.ServerCalls.ServerStreamingMethod<Req, Resp>,
      io.grpc.stub.ServerCalls.ClientStreamingMethod<Req, Resp>,
      io.grpc.stub.ServerCalls.BidiStreamingMethod<Req, Resp> {
    private final RecommendationServiceImplBase serviceImpl;
    private final int methodId;

    MethodHandlers(RecommendationServiceImplBase serviceImpl, int methodId) {
      this.serviceImpl = serviceImpl;
      this.methodId = methodId;
    }

    @java.lang.Override
    @java.lang.SuppressWarnings("unchecked")
    public void invoke(Req request, io.grpc.stub.StreamObserver<Resp> responseObserver) {
      switch (methodId) {
        case METHODID_SIMILAR:
          serviceImpl.similar((annserve.v1.SimilarRequest) request,
              (io.grpc.stub.StreamObserver<annserve.v1.SimilarResponse>) responseObserver);
          break;
        case METHODID_PERSONALIZE:
          serviceImpl.personalize((annserve.v1.PersonalizeRequest) request,
              (io.grpc.stub.StreamObserver<annserve.v1.PersonalizeResponse>) responseObserver);
          break;
        case METHODID_RELATED:
          serviceImpl.related((annserve.v1.RelatedRequest) request,
              (io.grpc.stub.StreamObserver<annserve.v1.RelatedResponse>) responseObserver);
          break;
        case METHODID_RECOMMEND:
          serviceImpl.recommend((annserve.v1.RecommendRequest) request,
              (io.grpc.stub.StreamObserver<annserve.v1.RecommendResponse>) responseObserver);
          break;
        case METHODID_BATCH_RECOMMEND:
          serviceImpl.batchRecommend((annserve.v1.BatchRecommendRequest) request,
              (io.grpc.stub.StreamObserver<annserve.v1.BatchRecommendResponse>) responseObserver);
          break;
        default:
          throw new AssertionError();
      }
    }

    @java.lang.Override
    @java.lang.SuppressWarnings("unchecked")
    public io.grpc.stub.StreamObserver<Req> invoke(
        io.grpc.stub.StreamObserver<Resp> responseObserver) {
      switch (methodId) {
        default:
          throw new AssertionError();
      }
    }
  }

  private static abstract class RecommendationServiceBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoFileDescriptorSupplier, io.grpc.protobuf.ProtoServiceDescriptorSupplier {
    RecommendationServiceBaseDescriptorSupplier() {}

    @java.lang.Override
    public com.google.protobuf.Descriptors.FileDescriptor getFileDescriptor() {
      return annserve.v1.RecommendationServiceProto.getDescriptor();
    }

    @java.lang.Override
    public com.google.protobuf.Descriptors.ServiceDescriptor getServiceDescriptor() {
      return getFileDescriptor().findServiceByName("RecommendationService");
    }
  }

  private static final class RecommendationServiceFileDescriptorSupplier
      extends RecommendationServiceBaseDescriptorSupplier {
    RecommendationServiceFileDescriptorSupplier() {}
  }

  private static final class RecommendationServiceMethodDescriptorSupplier
      extends RecommendationServiceBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoMethodDescriptorSupplier {
    private final String methodName;

    RecommendationServiceMethodDescriptorSupplier(String methodName) {
      this.methodName = methodName;
    }

    @java.lang.Override
    public com.google.protobuf.Descriptors.MethodDescriptor getMethodDescriptor() {
      return getServiceDescriptor().findMethodByName(methodName);
    }
  }

  private static volatile io.grpc.ServiceDescriptor serviceDescriptor;

  public static io.grpc.ServiceDescriptor getServiceDescriptor() {
    io.grpc.ServiceDescriptor result = serviceDescriptor;
    if (result == null) {
      synchronized (RecommendationServiceGrpc.class) {
        result = serviceDescriptor;
        if (result == null) {
          serviceDescriptor = result = io.grpc.ServiceDescriptor.newBuilder(SERVICE_NAME)
              .setSchemaDescriptor(new RecommendationServiceFileDescriptorSupplier())
              .addMethod(getSimilarMethod())
              .addMethod(getPersonalizeMethod())
              .addMethod(getRelatedMethod())
              .addMethod(getRecommendMethod())
              .addMethod(getBatchRecommendMethod())
              .build();
        }
      }
    }
    return result;
  }
}
