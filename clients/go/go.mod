module example.com/annserve

go 1.19

require (
	// Retries are on by themselves since 1.40.
	google.golang.org/grpc v1.56.3
	google.golang.org/protobuf v1.30.0
)
