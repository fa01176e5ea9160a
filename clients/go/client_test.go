package annserve

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"example.com/annserve/annservev1"
)

// scripted answers each Similar call with the next status of a script; the last one holds for the rest.
type scripted struct {
	annservev1.UnimplementedRecommendationServiceServer
	script   []codes.Code
	silent   bool
	attempts int32
	brought  metadata.MD
}

func (s *scripted) Similar(ctx context.Context, _ *annservev1.SimilarRequest) (*annservev1.SimilarResponse, error) {
	attempt := int(atomic.AddInt32(&s.attempts, 1)) - 1
	s.brought, _ = metadata.FromIncomingContext(ctx)
	if s.silent {
		<-ctx.Done()
	}
	if attempt >= len(s.script) {
		attempt = len(s.script) - 1
	}
	return &annservev1.SimilarResponse{}, status.Error(s.script[attempt], "as scripted")
}

func clientOf(t *testing.T, service *scripted, options ...Option) *Client {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	annservev1.RegisterRecommendationServiceServer(server, service)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return clientAt(t, listener.Addr().String(), options...)
}

func clientAt(t *testing.T, address string, options ...Option) *Client {
	t.Helper()
	client, err := New(address, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func failure(t *testing.T, err error) *Error {
	t.Helper()
	var found *Error
	if !errors.As(err, &found) {
		t.Fatalf("got %v, want an *Error", err)
	}
	return found
}

func TestCallThatFailsTwiceForTheMomentSucceeds(t *testing.T) {
	for _, code := range []codes.Code{codes.Unavailable, codes.Canceled} {
		service := &scripted{script: []codes.Code{code, code, codes.OK}}
		client := clientOf(t, service, WithTimeout(10*time.Second))

		if _, err := client.Similar(context.Background(), &annservev1.SimilarRequest{}); err != nil {
			t.Errorf("%v: %v", code, err)
		}
		if service.attempts != 3 {
			t.Errorf("%v: %d attempts, want 3", code, service.attempts)
		}
	}
}

func TestLastingFailureIsNotTriedAgain(t *testing.T) {
	service := &scripted{script: []codes.Code{codes.Internal}}
	client := clientOf(t, service, WithTimeout(10*time.Second))

	_, err := client.Similar(context.Background(), &annservev1.SimilarRequest{})

	if found := failure(t, err); found.Code != codes.Internal || found.Error() != "Internal: as scripted" {
		t.Errorf("got %v", found)
	}
	if service.attempts != 1 {
		t.Errorf("%d attempts, want 1", service.attempts)
	}
}

func TestServerThatDoesNotAnswerCosts300Milliseconds(t *testing.T) {
	client := clientOf(t, &scripted{script: []codes.Code{codes.OK}, silent: true})
	begun := time.Now()

	_, err := client.Similar(context.Background(), &annservev1.SimilarRequest{})

	if code := status.Code(failure(t, err)); code != codes.DeadlineExceeded {
		t.Errorf("got %v", code)
	}
	if took := time.Since(begun); took < 290*time.Millisecond {
		t.Errorf("took %v", took)
	}
}

func TestLaterDeadlineOfTheContextCounts(t *testing.T) {
	client := clientOf(t, &scripted{script: []codes.Code{codes.OK}, silent: true})
	ctx, cancel := context.WithTimeout(context.Background(), 700*time.Millisecond)
	defer cancel()
	begun := time.Now()

	_, err := client.Similar(ctx, &annservev1.SimilarRequest{})

	if took := time.Since(begun); err == nil || took < 690*time.Millisecond {
		t.Errorf("%v after %v", err, took)
	}
}

func TestAPIKeyIsSent(t *testing.T) {
	service := &scripted{script: []codes.Code{codes.OK}}
	client := clientOf(t, service, WithTimeout(10*time.Second), WithAPIKey("secret"))

	if _, err := client.Similar(context.Background(), &annservev1.SimilarRequest{}); err != nil {
		t.Fatal(err)
	}

	if got := service.brought.Get("authorization"); len(got) != 1 || got[0] != "Bearer secret" {
		t.Errorf("got %v", got)
	}
}
