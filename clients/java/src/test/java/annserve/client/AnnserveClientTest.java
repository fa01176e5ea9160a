package annserve.client;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import annserve.v1.RecommendationServiceGrpc;
import annserve.v1.SimilarRequest;
import annserve.v1.SimilarResponse;
import io.grpc.Server;
import io.grpc.Status;
import io.grpc.netty.NettyServerBuilder;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.After;
import org.junit.Test;

/** The client against scripted servers: how often it tries, how long it waits. */
public class AnnserveClientTest {
  private static final SimilarRequest REQUEST = SimilarRequest.newBuilder().addItemIds("a").build();
  private final AtomicInteger attempts = new AtomicInteger();
  private Server server;

  /** Serves a script of status codes, whose last one holds for the rest; silent where there is none. */
  private String serving(Status.Code... script) throws IOException {
    RecommendationServiceGrpc.RecommendationServiceImplBase service =
        new RecommendationServiceGrpc.RecommendationServiceImplBase() {
          @Override
          public void similar(SimilarRequest request, StreamObserver<SimilarResponse> answer) {
            int attempt = attempts.getAndIncrement();
            if (script.length == 0) {
              return;
            }
            Status status = script[Math.min(attempt, script.length - 1)].toStatus();
            if (status.isOk()) {
              answer.onNext(SimilarResponse.getDefaultInstance());
              answer.onCompleted();
            } else {
              answer.onError(status.withDescription("as scripted").asRuntimeException());
            }
          }
        };
    server = NettyServerBuilder.forAddress(new InetSocketAddress("127.0.0.1", 0)).addService(service).build().start();
    return "127.0.0.1:" + server.getPort();
  }

  @After
  public void stop() {
    server.shutdownNow();
  }

  private static AnnserveClient patient(String target) {
    return AnnserveClient.builder(target).timeout(Duration.ofSeconds(10)).build();
  }

  @Test
  public void callThatFailsTwiceAsUnavailableSucceeds() throws IOException {
    try (AnnserveClient client = patient(serving(Status.Code.UNAVAILABLE, Status.Code.UNAVAILABLE, Status.Code.OK))) {
      client.similar(REQUEST);
    }

    assertEquals(3, attempts.get());
  }

  @Test
  public void callThatFailsTwiceAsCancelledSucceeds() throws IOException {
    try (AnnserveClient client = patient(serving(Status.Code.CANCELLED, Status.Code.CANCELLED, Status.Code.OK))) {
      client.similar(REQUEST);
    }

    assertEquals(3, attempts.get());
  }

  @Test
  public void lastingFailureIsNotTriedAgain() throws IOException {
    try (AnnserveClient client = patient(serving(Status.Code.INTERNAL))) {
      AnnserveException error = assertThrows(AnnserveException.class, () -> client.similar(REQUEST));

      assertEquals("INTERNAL: as scripted", error.getMessage());
      assertEquals("", error.reason());
      assertEquals(1, attempts.get());
    }
  }

  @Test
  public void serverThatDoesNotAnswerCosts300Milliseconds() throws IOException {
    try (AnnserveClient client = AnnserveClient.of(serving())) {
      long begun = System.nanoTime();

      AnnserveException error = assertThrows(AnnserveException.class, () -> client.similar(REQUEST));

      assertEquals(Status.Code.DEADLINE_EXCEEDED, error.code());
      assertTrue(System.nanoTime() - begun >= Duration.ofMillis(290).toNanos());
    }
  }

  @Test
  public void longerLimitOfTheCallCounts() throws IOException {
    try (AnnserveClient client = AnnserveClient.of(serving())) {
      AnnserveClient patient = client.withTimeout(Duration.ofMillis(700));
      long begun = System.nanoTime();

      assertThrows(AnnserveException.class, () -> patient.similar(REQUEST));

      assertTrue(System.nanoTime() - begun >= Duration.ofMillis(690).toNanos());
    }
  }
}
