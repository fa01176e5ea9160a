package annserve

import (
	"context"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"example.com/annserve/annservev1"
)

// live is a client of annserve itself, serving its demo at the address in ANNSERVE_ADDRESS.
func live(t *testing.T) *Client {
	t.Helper()
	address := os.Getenv("ANNSERVE_ADDRESS")
	if address == "" {
		t.Fatal("ANNSERVE_ADDRESS says where annserve serves its demo: make test-clients")
	}
	// A machine that compiles at the same time may be slow.
	return clientAt(t, address, WithTimeout(10*time.Second))
}

func TestSimilarAnswersBestFirst(t *testing.T) {
	answer, err := live(t).Similar(context.Background(), &annservev1.SimilarRequest{
		ItemIds: []string{"22423"}, Options: &annservev1.RecommendOptions{PageSize: 5},
	})
	if err != nil {
		t.Fatal(err)
	}

	results := answer.Recommendations.Results
	if len(results) != 5 {
		t.Fatalf("%d results, want 5", len(results))
	}
	for i := 1; i < len(results); i++ {
		if results[i].Score > results[i-1].Score {
			t.Errorf("%v before %v", results[i-1], results[i])
		}
	}
}

func TestPersonalizeAnswersForAUser(t *testing.T) {
	answer, err := live(t).Personalize(context.Background(), &annservev1.PersonalizeRequest{UserId: "12347"})
	if err != nil {
		t.Fatal(err)
	}

	if source := answer.Recommendations.Results[0].Source; source != annservev1.Source_SOURCE_USER_VECTOR {
		t.Errorf("got %v", source)
	}
}

func TestRelatedBlendsContextAndTaste(t *testing.T) {
	answer, err := live(t).Related(context.Background(), &annservev1.RelatedRequest{ItemIds: []string{"22423"}, UserId: "12347"})
	if err != nil {
		t.Fatal(err)
	}

	if source := answer.Recommendations.Results[0].Source; source != annservev1.Source_SOURCE_BLEND {
		t.Errorf("got %v", source)
	}
}

func TestRecommendIsAskedOfAPlacementByItsName(t *testing.T) {
	_, err := live(t).Recommend(context.Background(), &annservev1.RecommendRequest{Placement: "No Name", UserId: "12347"})

	found := failure(t, err)
	if found.Code != codes.InvalidArgument || len(found.Violations) != 1 || found.Violations[0].Field != "placement" {
		t.Errorf("got %+v", found)
	}
	if found.RequestID == "" {
		t.Error("no request id")
	}
}

func TestStrictRequestNamesTheItemThatIsUnknown(t *testing.T) {
	_, err := live(t).Similar(context.Background(), &annservev1.SimilarRequest{
		ItemIds: []string{"nothing"}, Options: &annservev1.RecommendOptions{Strict: true},
	})

	found := failure(t, err)
	if found.Code != codes.NotFound || found.Reason != "UNKNOWN_ITEM" || found.Metadata["item_id"] != "nothing" {
		t.Errorf("got %+v", found)
	}
}

func TestBatchGivesAnAnswerOrAnErrorForEachRow(t *testing.T) {
	rows, err := live(t).Batch(
		context.Background(),
		&annservev1.BatchRecommendRow{Request: &annservev1.BatchRecommendRow_Similar{
			Similar: &annservev1.SimilarRequest{ItemIds: []string{"22423"}},
		}},
		&annservev1.BatchRecommendRow{Request: &annservev1.BatchRecommendRow_Personalize{
			Personalize: &annservev1.PersonalizeRequest{UserId: "nobody", Options: &annservev1.RecommendOptions{Strict: true}},
		}},
	)
	if err != nil {
		t.Fatal(err)
	}

	if len(rows) != 2 || len(rows[0].Recommendations.Results) != 10 || rows[0].Err != nil {
		t.Errorf("got %+v", rows)
	}
	if failed := rows[1].Err; failed == nil || failed.Reason != "UNKNOWN_USER" {
		t.Errorf("got %+v", failed)
	}
}
