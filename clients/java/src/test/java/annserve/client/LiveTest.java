package annserve.client;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import annserve.v1.BatchRecommendRow;
import annserve.v1.PersonalizeRequest;
import annserve.v1.RecommendOptions;
import annserve.v1.RecommendRequest;
import annserve.v1.Recommendation;
import annserve.v1.RelatedRequest;
import annserve.v1.SimilarRequest;
import annserve.v1.Source;
import io.grpc.Status;
import java.time.Duration;
import java.util.List;
import java.util.Objects;
import org.junit.After;
import org.junit.Test;

/** The client against annserve itself, serving its demo at the address in ANNSERVE_ADDRESS. */
public class LiveTest {
  // A machine that compiles at the same time may be slow.
  private final AnnserveClient client =
      AnnserveClient.builder(
              Objects.requireNonNull(
                  System.getenv("ANNSERVE_ADDRESS"), "where annserve serves its demo: make test-clients"))
          .timeout(Duration.ofSeconds(10))
          .build();

  @After
  public void close() {
    client.close();
  }

  @Test
  public void similarAnswersBestFirst() {
    SimilarRequest request =
        SimilarRequest.newBuilder()
            .addItemIds("22423")
            .setOptions(RecommendOptions.newBuilder().setPageSize(5))
            .build();

    List<Recommendation> results = client.similar(request).getRecommendations().getResultsList();

    assertEquals(5, results.size());
    for (int i = 1; i < results.size(); i++) {
      assertTrue(results.get(i).getScore() <= results.get(i - 1).getScore());
    }
  }

  @Test
  public void personalizeAnswersForAUser() {
    PersonalizeRequest request = PersonalizeRequest.newBuilder().setUserId("12347").build();

    Recommendation best = client.personalize(request).getRecommendations().getResults(0);

    assertEquals(Source.SOURCE_USER_VECTOR, best.getSource());
  }

  @Test
  public void relatedBlendsContextAndTaste() {
    RelatedRequest request = RelatedRequest.newBuilder().addItemIds("22423").setUserId("12347").build();

    Recommendation best = client.related(request).getRecommendations().getResults(0);

    assertEquals(Source.SOURCE_BLEND, best.getSource());
  }

  @Test
  public void recommendIsAskedOfAPlacementByItsName() {
    RecommendRequest request = RecommendRequest.newBuilder().setPlacement("No Name").setUserId("12347").build();

    AnnserveException error = assertThrows(AnnserveException.class, () -> client.recommend(request));

    assertEquals(Status.Code.INVALID_ARGUMENT, error.code());
    assertEquals("placement", error.violations().get(0).getField());
    assertTrue(error.requestId().isPresent());
  }

  @Test
  public void strictRequestNamesTheItemThatIsUnknown() {
    SimilarRequest request =
        SimilarRequest.newBuilder()
            .addItemIds("nothing")
            .setOptions(RecommendOptions.newBuilder().setStrict(true))
            .build();

    AnnserveException error = assertThrows(AnnserveException.class, () -> client.similar(request));

    assertEquals("UNKNOWN_ITEM", error.reason());
    assertEquals("nothing", error.metadata().get("item_id"));
  }

  @Test
  public void batchGivesAnAnswerOrAnErrorForEachRow() {
    SimilarRequest good = SimilarRequest.newBuilder().addItemIds("22423").build();
    PersonalizeRequest bad =
        PersonalizeRequest.newBuilder()
            .setUserId("nobody")
            .setOptions(RecommendOptions.newBuilder().setStrict(true))
            .build();

    List<AnnserveClient.Row> rows =
        client.batch(
            List.of(
                BatchRecommendRow.newBuilder().setSimilar(good).build(),
                BatchRecommendRow.newBuilder().setPersonalize(bad).build()));

    assertEquals(10, rows.get(0).answer().getRecommendations().getResultsCount());
    assertEquals("UNKNOWN_USER", rows.get(1).error().orElseThrow().reason());
    assertThrows(AnnserveException.class, () -> rows.get(1).answer());
  }
}
