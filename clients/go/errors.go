package annserve

import (
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Error says why a call, or a row of a batch, has no answer.
type Error struct {
	// Code is the status code.
	Code codes.Code
	// Reason is finer than the code, for example "UNKNOWN_ITEM"; empty for errors of gRPC itself.
	Reason string
	// Message is for people.
	Message string
	// Metadata holds every value that the message mentions.
	Metadata map[string]string
	// Violations are the wrong fields of the request.
	Violations []FieldViolation
	// RequestID is what to look for in the server's log; empty where the server gave none.
	RequestID string
}

// FieldViolation is one wrong field of a request: its path ("options.page_size") and what must hold.
type FieldViolation struct {
	Field, Description string
}

// Error returns reason, or code, and message.
func (e *Error) Error() string {
	if e.Reason == "" {
		return e.Code.String() + ": " + e.Message
	}
	return e.Reason + ": " + e.Message
}

// GRPCStatus lets package status read the error.
func (e *Error) GRPCStatus() *status.Status {
	return status.New(e.Code, e.Message)
}

func errorOfCall(err error, trailer metadata.MD) *Error {
	requestID := ""
	if ids := trailer.Get("x-request-id"); len(ids) > 0 {
		requestID = ids[0]
	}
	return errorOfStatus(status.Convert(err).Proto(), requestID)
}

func errorOfStatus(failed *statuspb.Status, requestID string) *Error {
	found := &Error{Code: codes.Code(failed.GetCode()), Message: failed.GetMessage(), RequestID: requestID}
	// Details that cannot be read come as errors, and say nothing.
	for _, detail := range status.FromProto(failed).Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			found.Reason, found.Metadata = detail.GetReason(), detail.GetMetadata()
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				found.Violations = append(found.Violations, FieldViolation{violation.GetField(), violation.GetDescription()})
			}
		}
	}
	if found.RequestID == "" {
		found.RequestID = found.Metadata["request_id"]
	}
	return found
}
