// The rig of the benchmarks: what stands around the servers that are measured, in one program.
//
//	rig noop       an Authorization server that allows everything, which is the least that a Check can cost
//	rig upstream   a model API that always answers the same, as JSON or as a stream
//	rig calls      asks a gRPC server again and again, and prints how it went as JSON
//	rig fetches    does the same over HTTP
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("use: rig noop|upstream|calls|fetches [FLAGS]"))
	}
	commands := map[string]func([]string) error{
		"noop": noop, "upstream": upstream, "calls": calls, "fetches": fetches,
	}
	command, known := commands[os.Args[1]]
	if !known {
		fail(fmt.Errorf("no such command: %s", os.Args[1]))
	}
	if err := command(os.Args[2:]); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "rig:", err)
	os.Exit(1)
}
