// Package annserve asks an annserve server for recommendations: deadlines, retries and typed errors around the
// messages of package annservev1.
package annserve

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	"example.com/annserve/annservev1"
)

// Client asks one annserve server, or several behind one name. Goroutines may share it; Close it in the end.
type Client struct {
	connection            *grpc.ClientConn
	stub                  annservev1.RecommendationServiceClient
	timeout, batchTimeout time.Duration
	apiKey                string
}

// Option is a way in which a Client differs from others.
type Option func(*settings)

type settings struct {
	timeout     time.Duration
	apiKey      string
	credentials grpc.DialOption
}

// WithTimeout sets how long a call may take, retries included, whose context has no deadline. It is 300 ms, and 1 s for
// a batch, unless set.
func WithTimeout(timeout time.Duration) Option {
	return func(s *settings) { s.timeout = timeout }
}

// WithTLS secures the connection, which is not secured unless set.
func WithTLS(tls credentials.TransportCredentials) Option {
	return func(s *settings) { s.credentials = grpc.WithTransportCredentials(tls) }
}

// WithAPIKey sets what the server asks for, where it does.
func WithAPIKey(key string) Option {
	return func(s *settings) { s.apiKey = key }
}

// New makes a client of the server at target, in gRPC's naming: "127.0.0.1:50051", "dns:///annserve.example:50051". It
// connects with the first call.
func New(target string, options ...Option) (*Client, error) {
	chosen := settings{credentials: grpc.WithInsecure()}
	for _, option := range options {
		option(&chosen)
	}
	connection, err := grpc.Dial(
		target,
		chosen.credentials,
		grpc.WithDefaultServiceConfig(retryConfig),
		// Not more often than the server's minimum of 10 s, which it answers with GOAWAY.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
	)
	if err != nil {
		return nil, err
	}
	client := &Client{
		connection:   connection,
		stub:         annservev1.NewRecommendationServiceClient(connection),
		timeout:      chosen.timeout,
		batchTimeout: chosen.timeout,
		apiKey:       chosen.apiKey,
	}
	if chosen.timeout == 0 {
		client.timeout, client.batchTimeout = shippedTimeouts[""], shippedTimeouts["BatchRecommend"]
	}
	return client, nil
}

// Close closes the connection; calls under way fail.
func (c *Client) Close() error {
	return c.connection.Close()
}

// Similar returns the items most like one or several seed items. The error is an *Error.
func (c *Client) Similar(ctx context.Context, request *annservev1.SimilarRequest) (*annservev1.SimilarResponse, error) {
	return call(ctx, c, c.timeout, request, c.stub.Similar)
}

// Personalize returns the items that suit a user best. The error is an *Error.
func (c *Client) Personalize(ctx context.Context, request *annservev1.PersonalizeRequest) (*annservev1.PersonalizeResponse, error) {
	return call(ctx, c, c.timeout, request, c.stub.Personalize)
}

// Related returns the items that go with what is on screen, for a user. The error is an *Error.
func (c *Client) Related(ctx context.Context, request *annservev1.RelatedRequest) (*annservev1.RelatedResponse, error) {
	return call(ctx, c, c.timeout, request, c.stub.Related)
}

// Recommend returns what a placement shows here and now. The error is an *Error.
func (c *Client) Recommend(ctx context.Context, request *annservev1.RecommendRequest) (*annservev1.RecommendResponse, error) {
	return call(ctx, c, c.timeout, request, c.stub.Recommend)
}

// Row is the answer to one row of a batch, or the error in its place.
type Row struct {
	Recommendations *annservev1.Recommendations
	ServingInfo     *annservev1.ServingInfo
	Err             *Error
}

// Batch returns the answer to each of up to 100 rows, in their order. The error, an *Error, is of the call as a whole.
func (c *Client) Batch(ctx context.Context, rows ...*annservev1.BatchRecommendRow) ([]Row, error) {
	request := &annservev1.BatchRecommendRequest{Rows: rows}
	response, err := call(ctx, c, c.batchTimeout, request, c.stub.BatchRecommend)
	if err != nil {
		return nil, err
	}
	answers := make([]Row, len(response.Results))
	for i, result := range response.Results {
		answers[i] = Row{Recommendations: result.GetRecommendations(), ServingInfo: result.GetServingInfo()}
		if failed := result.GetStatus(); failed != nil {
			answers[i].Err = errorOfStatus(failed, "")
		}
	}
	return answers, nil
}

func call[Request, Response any](
	ctx context.Context, c *Client, timeout time.Duration, request Request,
	method func(context.Context, Request, ...grpc.CallOption) (Response, error),
) (Response, error) {
	if _, limited := ctx.Deadline(); !limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	if c.apiKey != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.apiKey)
	}
	var trailer metadata.MD
	response, err := method(ctx, request, grpc.Trailer(&trailer))
	if err != nil {
		return response, errorOfCall(err, trailer)
	}
	return response, nil
}
