package annserve.client;

import annserve.v1.BatchRecommendRequest;
import annserve.v1.BatchRecommendResult;
import annserve.v1.BatchRecommendRow;
import annserve.v1.PersonalizeRequest;
import annserve.v1.PersonalizeResponse;
import annserve.v1.RecommendRequest;
import annserve.v1.RecommendResponse;
import annserve.v1.RecommendationServiceGrpc;
import annserve.v1.RecommendationServiceGrpc.RecommendationServiceBlockingStub;
import annserve.v1.RelatedRequest;
import annserve.v1.RelatedResponse;
import annserve.v1.SimilarRequest;
import annserve.v1.SimilarResponse;
import io.grpc.ChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.MetadataUtils;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.function.BiFunction;
import java.util.stream.Collectors;

/**
 * Asks one annserve server, or several behind one name: deadlines, retries and typed errors around the generated messages.
 *
 * <p>Threads may share it; close it in the end. Every call throws {@link AnnserveException} when there is no answer.
 */
public final class AnnserveClient implements AutoCloseable {
  private final ManagedChannel channel;
  private final RecommendationServiceBlockingStub stub;
  private final Duration timeout;
  private final Duration batchTimeout;

  private AnnserveClient(Builder builder) {
    channel =
        Grpc.newChannelBuilder(builder.target, builder.credentials)
            .defaultServiceConfig(ServiceConfig.RETRIES)
            .enableRetry()
            // Not more often than the server's minimum of 10 s, which it answers with GOAWAY.
            .keepAliveTime(30, TimeUnit.SECONDS)
            .keepAliveTimeout(10, TimeUnit.SECONDS)
            .build();
    Metadata metadata = new Metadata();
    if (builder.apiKey != null) {
      Metadata.Key<String> name = Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);
      metadata.put(name, "Bearer " + builder.apiKey);
    }
    stub =
        RecommendationServiceGrpc.newBlockingStub(channel)
            .withInterceptors(MetadataUtils.newAttachHeadersInterceptor(metadata));
    timeout = Optional.ofNullable(builder.timeout).orElse(ServiceConfig.timeoutOf(""));
    batchTimeout = Optional.ofNullable(builder.timeout).orElse(ServiceConfig.timeoutOf("BatchRecommend"));
  }

  private AnnserveClient(AnnserveClient other, Duration timeout) {
    channel = other.channel;
    stub = other.stub;
    this.timeout = timeout;
    batchTimeout = timeout;
  }

  /** Makes a client of the server at {@code target}, as {@link #builder} does with nothing set. */
  public static AnnserveClient of(String target) {
    return builder(target).build();
  }

  /**
   * Prepares a client.
   *
   * @param target where the server is, in gRPC's naming: {@code 127.0.0.1:50051}, {@code dns:///annserve.example:50051}
   */
  public static Builder builder(String target) {
    return new Builder(target);
  }

  /** Returns a client of the same connection whose calls may take {@code timeout}, retries included. */
  public AnnserveClient withTimeout(Duration timeout) {
    return new AnnserveClient(this, timeout);
  }

  /** Returns the items most like one or several seed items. */
  public SimilarResponse similar(SimilarRequest request) {
    return call(timeout, RecommendationServiceBlockingStub::similar, request);
  }

  /** Returns the items that suit a user best. */
  public PersonalizeResponse personalize(PersonalizeRequest request) {
    return call(timeout, RecommendationServiceBlockingStub::personalize, request);
  }

  /** Returns the items that go with what is on screen, for a user. */
  public RelatedResponse related(RelatedRequest request) {
    return call(timeout, RecommendationServiceBlockingStub::related, request);
  }

  /** Returns what a placement shows here and now. */
  public RecommendResponse recommend(RecommendRequest request) {
    return call(timeout, RecommendationServiceBlockingStub::recommend, request);
  }

  /** Returns the answer to each of up to 100 {@code rows}, in their order, or why there is none. */
  public List<Row> batch(List<BatchRecommendRow> rows) {
    BatchRecommendRequest request = BatchRecommendRequest.newBuilder().addAllRows(rows).build();
    return call(batchTimeout, RecommendationServiceBlockingStub::batchRecommend, request).getResultsList().stream()
        .map(Row::new)
        .collect(Collectors.toList());
  }

  /** Closes the connection; calls under way fail. Clients made by {@link #withTimeout} end with it. */
  @Override
  public void close() {
    channel.shutdownNow();
  }

  private <RequestT, ResponseT> ResponseT call(
      Duration timeout, BiFunction<RecommendationServiceBlockingStub, RequestT, ResponseT> method, RequestT request) {
    try {
      return method.apply(stub.withDeadlineAfter(timeout.toNanos(), TimeUnit.NANOSECONDS), request);
    } catch (StatusRuntimeException error) {
      throw AnnserveException.of(error);
    }
  }

  /** The answer to one row of a batch, or the error in its place. */
  public static final class Row {
    private final BatchRecommendResult result;

    private Row(BatchRecommendResult result) {
      this.result = result;
    }

    /** Returns the error of this row, empty when it has an answer. */
    public Optional<AnnserveException> error() {
      return result.hasStatus() ? Optional.of(AnnserveException.of(result.getStatus())) : Optional.empty();
    }

    /**
     * Returns the answer of this row with how it was served.
     *
     * @throws AnnserveException it has none
     */
    public BatchRecommendResult answer() {
      error().ifPresent(
          error -> {
            throw error;
          });
      return result;
    }
  }

  /** What a client is made with. */
  public static final class Builder {
    private final String target;
    private ChannelCredentials credentials = InsecureChannelCredentials.create();
    private Duration timeout;
    private String apiKey;

    private Builder(String target) {
      this.target = target;
    }

    /** Sets how long a call may take, retries included; 300 ms, and 1 s for a batch, unless set. */
    public Builder timeout(Duration timeout) {
      this.timeout = timeout;
      return this;
    }

    /** Secures the connection, which is not secured unless set: {@code TlsChannelCredentials.create()}. */
    public Builder credentials(ChannelCredentials credentials) {
      this.credentials = credentials;
      return this;
    }

    /** Sets what the server asks for, where it does. */
    public Builder apiKey(String apiKey) {
      this.apiKey = apiKey;
      return this;
    }

    /** Returns the client; it connects with the first call. */
    public AnnserveClient build() {
      return new AnnserveClient(this);
    }
  }
}
