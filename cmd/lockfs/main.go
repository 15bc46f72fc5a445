// Command lockfs mounts a filesystem on which every name is a lock.
package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/lockfs/lockfs/fs"
	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
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
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: c.logLevel}))
	// Before mounting, so that no signal finds a mount that nobody takes down.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	mount, err := device.Mount(c.mountPoint, device.Options{AllowOther: c.allowOther})
	if err != nil {
		fmt.Fprintln(os.Stderr, "lockfs:", err)
		return exitCode(err)
	}
	return serve(mount, signals, log)
}

// serve serves a mount until it is unmounted, from outside or by a signal.
func serve(mount *device.MountPoint, signals <-chan os.Signal, log *slog.Logger) int {
	conn := device.New(mount.FD, log)
	filesystem := fs.New(fs.Options{
		Device:    conn,
		Processes: fs.Proc{},
		Clock:     new(fs.SystemClock),
		Tokens:    new(lockspace.Counter),
		Journal:   fs.Discard{},
		Log:       log,
		UID:       uint32(os.Geteuid()),
		GID:       uint32(os.Getegid()),
	})
	conn.Attach(filesystem)
	served := make(chan error, 1)
	go func() { served <- conn.Serve() }()
	log.Info("ready", "mountpoint", mount.Dir, "version", version)
	for {
		select {
		case err := <-served:
			if err != nil {
				log.Error("serving ended", "err", err)
				return exitInternal
			}
			log.Info("unmounted", "mountpoint", mount.Dir)
			return exitOK
		case s := <-signals:
			log.Info("unmounting", "signal", s.String())
			if done, code := stop(mount, conn, filesystem, log); done {
				return code
			}
		}
	}
}

// stop takes the mount down. done is false if the reader will see the end of
// it and finish in order; else files are open on it still, and the process has
// to end for them to fail.
func stop(mount *device.MountPoint, conn *device.Conn, filesystem *fs.FS, log *slog.Logger) (done bool, code int) {
	var holds int
	conn.Do(func() { holds = filesystem.Shutdown() })
	busy, err := mount.Unmount()
	switch {
	case err != nil:
		log.Error("cannot unmount", "mountpoint", mount.Dir, "err", err)
		return true, exitInternal
	case busy:
		log.Warn("unmounted while in use: open files fail from now on, and what they hold is free",
			"mountpoint", mount.Dir, "holds", holds)
		return true, exitOK
	}
	return false, 0
}
