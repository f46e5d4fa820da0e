package main

import (
	"bytes"
	"flag"
	"io"
	"net/http"
	"time"
)

const jsonAnswer = `{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"gpt-4o","choices":[` +
	`{"index":0,"message":{"role":"assistant","content":"Hello there, whoever you are."},"finish_reason":"stop"}],` +
	`"usage":{"prompt_tokens":12,"completion_tokens":8,"total_tokens":20}}`

const chunk = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4o",`

const (
	event = chunk + `"choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}` + "\n\n"
	last  = chunk + `"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n" +
		chunk + `"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":100,"total_tokens":112}}` + "\n\n" +
		"data: [DONE]\n\n"
)

var asksForStream = []byte(`"stream":true`)

type model struct {
	events int
	gap    time.Duration
}

func (m model) ServeHTTP(writer http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return
	}
	if bytes.Contains(bytes.ReplaceAll(body, []byte(" "), nil), asksForStream) {
		m.stream(writer, request)
		return
	}
	writer.Header().Set("content-type", "application/json")
	_, _ = io.WriteString(writer, jsonAnswer)
}

// Events are due at fixed times, so that a slow reader does not make the answer any longer.
func (m model) stream(writer http.ResponseWriter, request *http.Request) {
	writer.Header().Set("content-type", "text/event-stream")
	flusher := http.NewResponseController(writer)
	due := time.Now()
	for range m.events {
		if _, err := io.WriteString(writer, event); err != nil {
			return
		}
		if err := flusher.Flush(); err != nil {
			return
		}
		due = due.Add(m.gap)
		select {
		case <-request.Context().Done():
			return
		case <-time.After(time.Until(due)):
		}
	}
	_, _ = io.WriteString(writer, last)
}

func upstream(arguments []string) error {
	flags := flag.NewFlagSet("upstream", flag.ExitOnError)
	listen := flags.String("listen", "127.0.0.1:0", "where to listen")
	events := flags.Int("events", 100, "how many events a stream has")
	gap := flags.Duration("gap", 5*time.Millisecond, "the time between two events")
	_ = flags.Parse(arguments)
	return http.ListenAndServe(*listen, model{*events, *gap})
}
