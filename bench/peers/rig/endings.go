package main

import (
	"context"
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	data "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	service "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// How long Envoy keeps entries back; see extauthz/envoy/bootstrap.py.
const flushEvery = 100 * time.Millisecond

const closeTimeout = 30 * time.Second

// Tells the server of finished answers over one stream, several together, as one thread of Envoy's does.
type accessLog struct {
	stream  service.AccessLogService_StreamAccessLogsClient
	usage   *structpb.Struct
	lock    sync.Mutex
	entries []*data.HTTPAccessLogEntry
	err     error
	stop    chan struct{}
	done    chan struct{}
	cancel  context.CancelFunc
}

func newAccessLog(connection *grpc.ClientConn) (*accessLog, error) {
	usage, err := structpb.NewStruct(map[string]any{"input_tokens": 12, "output_tokens": 8, "finished": true})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := service.NewAccessLogServiceClient(connection).StreamAccessLogs(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	log := &accessLog{stream: stream, usage: usage, stop: make(chan struct{}), done: make(chan struct{}), cancel: cancel}
	go log.flushAlways()
	return log, nil
}

func (l *accessLog) end(answer []byte) error {
	var response auth.CheckResponse
	if err := proto.Unmarshal(answer, &response); err != nil {
		return err
	}
	entry := &data.HTTPAccessLogEntry{
		CommonProperties: &data.AccessLogCommon{
			AccessLogType:             data.AccessLogType_DownstreamEnd,
			TimeToFirstUpstreamTxByte: &durationpb.Duration{Nanos: 1},
			Metadata: &core.Metadata{FilterMetadata: map[string]*structpb.Struct{
				"envoy.filters.http.ext_authz": response.DynamicMetadata,
				"extauthz.usage":               l.usage,
			}},
		},
		Response: &data.HTTPResponseProperties{ResponseCode: wrapperspb.UInt32(200)},
	}
	l.lock.Lock()
	defer l.lock.Unlock()
	l.entries = append(l.entries, entry)
	return l.err
}

func (l *accessLog) flushAlways() {
	defer close(l.done)
	ticker := time.NewTicker(flushEvery)
	defer ticker.Stop()
	for {
		select {
		case <-l.stop:
			l.flush()
			return
		case <-ticker.C:
			l.flush()
		}
	}
}

func (l *accessLog) flush() {
	l.lock.Lock()
	entries := l.entries
	l.entries = nil
	l.lock.Unlock()
	if len(entries) == 0 {
		return
	}
	logs := &service.StreamAccessLogsMessage_HTTPAccessLogEntries{LogEntry: entries}
	message := &service.StreamAccessLogsMessage{LogEntries: &service.StreamAccessLogsMessage_HttpLogs{HttpLogs: logs}}
	if err := l.stream.Send(message); err != nil {
		l.lock.Lock()
		l.err = err
		l.lock.Unlock()
	}
}

// Sends what is left, and waits until the server has read it.
func (l *accessLog) close() error {
	close(l.stop)
	<-l.done
	timer := time.AfterFunc(closeTimeout, l.cancel)
	defer timer.Stop()
	defer l.cancel()
	_, err := l.stream.CloseAndRecv()
	return err
}
