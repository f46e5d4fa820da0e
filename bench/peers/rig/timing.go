package main

import (
	"encoding/json"
	"os"
	"slices"
	"sync"
	"time"
)

// What to do: `count` times, or for `seconds` when that is 0; at `rate` a second, or as fast as `inflight` at once can,
// which begin within `ramp` seconds.
type load struct {
	inflight int
	count    int
	seconds  float64
	rate     float64
	ramp     float64
}

// How it went. `first` are the times until the first byte, where answers have a first and a last one.
type outcome struct {
	Requests   int     `json:"requests"`
	Errors     int     `json:"errors"`
	Error      string  `json:"error"`
	Seconds    float64 `json:"seconds"`
	P50MS      float64 `json:"p50_ms"`
	P99MS      float64 `json:"p99_ms"`
	FirstP50MS float64 `json:"first_p50_ms"`
	FirstP99MS float64 `json:"first_p99_ms"`
}

// One request, the number of which is given; tells the time of the first byte.
type job func(worker, number int) (first time.Time, err error)

type record struct {
	whole, first []time.Duration
	errors       int
	err          error
}

// Times count from when a request was due, not from when a worker came to it: else a stall would hide the requests that
// it kept waiting.
func (l load) run(do job) outcome {
	started := time.Now()
	end := started.Add(time.Duration(l.seconds * float64(time.Second)))
	var lock sync.Mutex
	next := 0
	take := func() (number int, due time.Time, ok bool) {
		lock.Lock()
		defer lock.Unlock()
		now := time.Now()
		number, due = next, now
		if l.rate > 0 {
			due = started.Add(time.Duration(float64(next) / l.rate * float64(time.Second)))
		}
		if l.count > 0 && number >= l.count || l.count == 0 && (now.After(end) || due.After(end)) {
			return 0, due, false
		}
		next++
		return number, due, true
	}

	records := make([]record, l.inflight)
	var workers sync.WaitGroup
	for worker := range l.inflight {
		workers.Go(func() {
			own := &records[worker]
			time.Sleep(time.Duration(l.ramp * float64(worker) / float64(l.inflight) * float64(time.Second)))
			for {
				number, due, ok := take()
				if !ok {
					return
				}
				time.Sleep(time.Until(due))
				first, err := do(worker, number)
				if err != nil {
					own.errors++
					own.err = err
					continue
				}
				own.whole = append(own.whole, time.Since(due))
				own.first = append(own.first, first.Sub(due))
			}
		})
	}
	workers.Wait()
	return summary(records, time.Since(started))
}

func summary(records []record, took time.Duration) outcome {
	var whole, first []time.Duration
	result := outcome{Seconds: took.Seconds()}
	for _, each := range records {
		whole = append(whole, each.whole...)
		first = append(first, each.first...)
		result.Errors += each.errors
		if each.err != nil {
			result.Error = each.err.Error()
		}
	}
	slices.Sort(whole)
	slices.Sort(first)
	result.Requests = len(whole)
	result.P50MS, result.P99MS = quantile(whole, 0.5), quantile(whole, 0.99)
	result.FirstP50MS, result.FirstP99MS = quantile(first, 0.5), quantile(first, 0.99)
	return result
}

func quantile(sorted []time.Duration, share float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(share*float64(len(sorted)-1))].Seconds() * 1000
}

func (o outcome) print() error {
	return json.NewEncoder(os.Stdout).Encode(o)
}
