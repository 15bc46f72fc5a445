package main

import (
	"os"
	"runtime"
)

// tuneRuntime sees to it that the Go scheduler has two processors at least,
// unless the environment says otherwise.
//
// The reader is in a read(2) of /dev/fuse most of the time. With a single
// processor the runtime's monitor takes it away from a blocked reader every 20
// microseconds, in case somebody else could run, and the reader has to get it
// back after each request: a third of the time of a lock call. With a second
// one idle, the monitor leaves the reader alone. That it is never used does not
// matter, so this is right on one CPU too.
func tuneRuntime() {
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) < 2 {
		runtime.GOMAXPROCS(2)
	}
}
