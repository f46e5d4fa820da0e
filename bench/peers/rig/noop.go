package main

import (
	"context"
	"flag"
	"net"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
)

// The same as our own server receives at most.
const messageBytesMax = 4 << 20

type allowEverything struct {
	auth.UnimplementedAuthorizationServer
}

func (allowEverything) Check(context.Context, *auth.CheckRequest) (*auth.CheckResponse, error) {
	return &auth.CheckResponse{
		Status:       &status.Status{},
		HttpResponse: &auth.CheckResponse_OkResponse{OkResponse: &auth.OkHttpResponse{}},
	}, nil
}

func noop(arguments []string) error {
	flags := flag.NewFlagSet("noop", flag.ExitOnError)
	listen := flags.String("listen", "127.0.0.1:0", "where to listen")
	_ = flags.Parse(arguments)

	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(messageBytesMax))
	auth.RegisterAuthorizationServer(server, allowEverything{})
	return server.Serve(listener)
}
