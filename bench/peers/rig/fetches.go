package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

const fetchTimeout = 60 * time.Second

func fetches(arguments []string) error {
	flags := flag.NewFlagSet("fetches", flag.ExitOnError)
	url := flags.String("url", "", "where to")
	path := flags.String("body", "", "file of the body that is sent")
	keys := flags.String("key", "", "the API key")
	load := loadFlags(flags)
	_ = flags.Parse(arguments)

	body, err := os.ReadFile(*path)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{
		MaxIdleConns: load.inflight, MaxIdleConnsPerHost: load.inflight, DisableCompression: true,
	}}
	result := load.run(func(int, int) (time.Time, error) { return fetch(client, *url, *keys, body) })
	return result.print()
}

// Reads a whole answer, and tells when its first byte came.
func fetch(client *http.Client, url, key string, body []byte) (time.Time, error) {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return time.Time{}, err
	}
	request.Header.Set("authorization", "Bearer "+key)
	request.Header.Set("content-type", "application/json")
	answer, err := client.Do(request)
	if err != nil {
		return time.Time{}, err
	}
	defer answer.Body.Close()
	var first [1]byte
	if _, err := io.ReadFull(answer.Body, first[:]); err != nil {
		return time.Time{}, fmt.Errorf("the body of status %d: %w", answer.StatusCode, err)
	}
	came := time.Now()
	size, err := io.Copy(io.Discard, answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d with %d bytes", answer.StatusCode, size+1)
	}
	return came, err
}
