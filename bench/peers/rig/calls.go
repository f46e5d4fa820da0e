package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

const callTimeout = 10 * time.Second

// Messages are sent as they were written, and not made anew for each call: what is measured is the server.
type asItIs struct{}

func (asItIs) Name() string { return "proto" }

func (asItIs) Marshal(message any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*message.(*[]byte))}, nil
}

func (asItIs) Unmarshal(data mem.BufferSlice, message any) error {
	*message.(*[]byte) = data.Materialize()
	return nil
}

var _ encoding.CodecV2 = asItIs{}

// Reads messages, each after its length in four bytes.
func messagesIn(path string) ([][]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var messages [][]byte
	for len(data) >= 4 {
		length := int(binary.BigEndian.Uint32(data))
		if len(data) < 4+length {
			return nil, fmt.Errorf("%s ends in the middle of a message", path)
		}
		messages = append(messages, data[4:4+length])
		data = data[4+length:]
	}
	if len(messages) == 0 {
		return nil, fmt.Errorf("%s holds no message", path)
	}
	return messages, nil
}

var errRefused, errAllowed = errors.New("refused"), errors.New("allowed")

// Tells whether an answer allows: the first field of a CheckResponse is a Status, the code of which is 0, and that of a
// RateLimitResponse is 1.
func allowed(answer []byte) error {
	number, kind, n := protowire.ConsumeTag(answer)
	if n < 0 || number != 1 {
		return nil // a Status of 0 may be left out
	}
	if kind == protowire.VarintType {
		if code, _ := protowire.ConsumeVarint(answer[n:]); code != 1 {
			return errRefused
		}
		return nil
	}
	status, _ := protowire.ConsumeBytes(answer[n:])
	if number, _, n := protowire.ConsumeTag(status); n > 0 && number == 1 {
		if code, _ := protowire.ConsumeVarint(status[n:]); code != 0 {
			return errRefused
		}
	}
	return nil
}

func inverted(err error) error {
	if err == nil {
		return errAllowed
	}
	return nil
}

func calls(arguments []string) error {
	flags := flag.NewFlagSet("calls", flag.ExitOnError)
	target := flags.String("target", "", "host:port of the server")
	method := flags.String("method", "/envoy.service.auth.v3.Authorization/Check", "what to call")
	path := flags.String("messages", "", "file of the messages that are sent in turn, each after its length (uint32)")
	end := flags.Bool("end", false, "end the reservation of each Check by an access log, as Envoy does")
	refusals := flags.Bool("refusals", false, "count refusals, and nothing else, as what is wanted")
	load := loadFlags(flags)
	_ = flags.Parse(arguments)

	messages, err := messagesIn(*path)
	if err != nil {
		return err
	}
	connection, err := grpc.NewClient(*target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	var log *accessLog
	if *end {
		if log, err = newAccessLog(connection); err != nil {
			return err
		}
	}

	result := load.run(func(_, number int) (time.Time, error) {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		defer cancel()
		var answer []byte
		err := connection.Invoke(ctx, *method, &messages[number%len(messages)], &answer, grpc.ForceCodecV2(asItIs{}))
		answered := time.Now()
		if err == nil {
			err = allowed(answer)
			if *refusals {
				err = inverted(err)
			}
		}
		if err == nil && log != nil {
			err = log.end(answer)
		}
		return answered, err
	})
	if log != nil {
		if err := log.close(); err != nil {
			return err
		}
	}
	return result.print()
}

func loadFlags(flags *flag.FlagSet) *load {
	given := &load{}
	flags.IntVar(&given.inflight, "inflight", 1, "how many at once")
	flags.IntVar(&given.count, "count", 0, "how many in all; 0 for as many as there is time for")
	flags.Float64Var(&given.seconds, "seconds", 3, "for how long, without a count")
	flags.Float64Var(&given.rate, "rate", 0, "how many a second; 0 for as many as go")
	flags.Float64Var(&given.ramp, "ramp", 0, "within how many seconds they begin")
	return given
}
