package annserve.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/** Says why a call, or a row of a batch, has no answer. */
public final class AnnserveException extends RuntimeException {
  private static final long serialVersionUID = 1L;
  private static final Metadata.Key<String> REQUEST_ID =
      Metadata.Key.of("x-request-id", Metadata.ASCII_STRING_MARSHALLER);

  private final Status.Code code;
  private final String reason;
  private final transient ErrorInfo info;
  private final transient List<BadRequest.FieldViolation> violations;
  private final String requestId;

  private AnnserveException(com.google.rpc.Status status, ErrorInfo info, String requestId, Throwable cause) {
    super(nameOf(status, info) + ": " + status.getMessage(), cause);
    code = Status.fromCodeValue(status.getCode()).getCode();
    reason = info.getReason();
    this.info = info;
    violations = detail(status, BadRequest.class, BadRequest.getDefaultInstance()).getFieldViolationsList();
    this.requestId = requestId != null ? requestId : info.getMetadataMap().get("request_id");
  }

  static AnnserveException of(com.google.rpc.Status status) {
    return of(status, null, null);
  }

  static AnnserveException of(StatusRuntimeException error) {
    Metadata trailers = Optional.ofNullable(error.getTrailers()).orElseGet(Metadata::new);
    return of(StatusProto.fromThrowable(error), trailers.get(REQUEST_ID), error);
  }

  private static AnnserveException of(com.google.rpc.Status status, String requestId, Throwable cause) {
    ErrorInfo info = detail(status, ErrorInfo.class, ErrorInfo.getDefaultInstance());
    return new AnnserveException(status, info, requestId, cause);
  }

  /** Returns the status code. */
  public Status.Code code() {
    return code;
  }

  /** Returns what is finer than the code, for example {@code UNKNOWN_ITEM}; empty for errors of gRPC itself. */
  public String reason() {
    return reason;
  }

  /** Returns every value that the message mentions. */
  public Map<String, String> metadata() {
    return info == null ? Map.of() : info.getMetadataMap();
  }

  /** Returns the wrong fields of the request: paths, and what must hold. */
  public List<BadRequest.FieldViolation> violations() {
    return violations == null ? List.of() : new ArrayList<>(violations);
  }

  /** Returns what to look for in the server's log; empty where the server gave none. */
  public Optional<String> requestId() {
    return Optional.ofNullable(requestId);
  }

  private static String nameOf(com.google.rpc.Status status, ErrorInfo info) {
    return info.getReason().isEmpty() ? Status.fromCodeValue(status.getCode()).getCode().name() : info.getReason();
  }

  private static <T extends com.google.protobuf.Message> T detail(
      com.google.rpc.Status status, Class<T> kind, T otherwise) {
    for (Any detail : status.getDetailsList()) {
      try {
        if (detail.is(kind)) {
          return detail.unpack(kind);
        }
      } catch (InvalidProtocolBufferException damaged) {
        // The code is worth having without it.
      }
    }
    return otherwise;
  }
}
