// Peer of the gateway bench: grpc-gateway in front of a gRPC service, both in Go, nothing else on.
//
//	peer service ADDRESS
//	peer gateway ADDRESS SERVICE
package main

import (
	"context"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"kehu.example/peer/peerpb"
)

type consents struct {
	peerpb.UnimplementedConsentsServer
	held map[string]*peerpb.ConsentRecord
}

func (c *consents) ListConsents(_ context.Context, asked *peerpb.ListConsentsRequest) (*peerpb.ListConsentsResponse, error) {
	found, ok := c.held[asked.ProfileId]
	if !ok {
		return nil, status.Error(codes.NotFound, "no such profile")
	}
	return &peerpb.ListConsentsResponse{Consents: []*peerpb.ConsentRecord{found}}, nil
}

func record(profile string) *peerpb.ConsentRecord {
	asked := timestamppb.New(time.Date(2026, 11, 1, 8, 30, 15, 250_000_000, time.UTC))
	return &peerpb.ConsentRecord{
		Name:            "profiles/" + profile + "/consents/0192f0c4-0000-7000-8000-000000000001",
		PurposeId:       "offers",
		Channel:         "email",
		State:           peerpb.ConsentState_CONSENT_STATE_GRANTED,
		NoticeId:        "member",
		NoticeVersion:   1,
		Language:        "zh-CN",
		WordingHash:     strings.Repeat("5e", 32),
		ShownTime:       asked,
		AnswerTime:      asked,
		CollectedVia:    peerpb.CollectedVia_COLLECTED_VIA_WEB,
		MaskedAddress:   "203.0.113.*",
		OriginProfileId: profile,
	}
}

func serve(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	peerpb.RegisterConsentsServer(server, &consents{held: map[string]*peerpb.ConsentRecord{"p1": record("p1")}})
	return server.Serve(listener)
}

func gateway(address, service string) error {
	mux := runtime.NewServeMux()
	plain := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if err := peerpb.RegisterConsentsHandlerFromEndpoint(context.Background(), mux, service, plain); err != nil {
		return err
	}
	return http.ListenAndServe(address, mux)
}

func main() {
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == "service":
		err = serve(os.Args[2])
	case len(os.Args) == 4 && os.Args[1] == "gateway":
		err = gateway(os.Args[2], os.Args[3])
	default:
		log.Fatal("usage: peer service ADDRESS | peer gateway ADDRESS SERVICE")
	}
	log.Fatal(err)
}
