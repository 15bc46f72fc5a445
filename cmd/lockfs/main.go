// Command lockfs mounts a filesystem on which every name is a lock.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// version is the program's; releases set it with -ldflags -X.
var version = "0.1.0-dev"

func main() {
	os.Exit(run(os.Args[1:]))
}

// run is the program; it returns the exit code.
func run(args []string) int {
	c, err := parse(args)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "lockfs:", err)
		return exitUsage
	case c.help != "":
		fmt.Print(c.help)
		return exitOK
	case c.version:
		fmt.Println("lockfs", version)
		return exitOK
	}
	tuneRuntime()
	log, flush := newLog(c.logLevel)
	defer flush()
	if c.worker {
		closeOnExec(c)
		return runWorker(c, log)
	}
	if c.isAgent {
		return runAgent(c, log)
	}
	if c.couldKeep != "" {
		return couldKeep(c.couldKeep)
	}
	// Before mounting, so that no signal finds a mount that nobody takes down.
	hangups, stops := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	signal.Notify(stops, stopSignals...)
	k, err := newKeeper(c, hangups, stops, log, flush)
	if err != nil {
		fmt.Fprintln(os.Stderr, "lockfs:", err)
		return exitCode(err)
	}
	return k.run()
}
