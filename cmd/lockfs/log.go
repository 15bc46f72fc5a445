package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

// newLog returns the log. Nothing that somebody does with the other end of
// standard error, or does not do, may stop or end a lock service: a pipe that
// nobody reads is written to by a goroutine of its own, and what does not fit
// into its queue is counted and left out; one that is closed is no reason to
// die of SIGPIPE. flush waits, for a short time, until what was logged is
// written.
func newLog(level slog.Level) (log *slog.Logger, flush func()) {
	signal.Ignore(syscall.SIGPIPE)
	w := &logWriter{lines: make(chan []byte, 1024), idle: make(chan chan struct{})}
	go w.run(os.Stderr)
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})), w.flush
}

// logWriter is an io.Writer that does not wait.
type logWriter struct {
	lines   chan []byte
	idle    chan chan struct{}
	dropped atomic.Int64
}

func (w *logWriter) Write(b []byte) (int, error) {
	select {
	case w.lines <- append([]byte(nil), b...):
	default:
		w.dropped.Add(1)
	}
	return len(b), nil
}

func (w *logWriter) run(out io.Writer) {
	for {
		select {
		case b := <-w.lines:
			_, _ = out.Write(b)
		case done := <-w.idle:
			for len(w.lines) > 0 {
				_, _ = out.Write(<-w.lines)
			}
			close(done)
		}
		if n := w.dropped.Swap(0); n > 0 {
			fmt.Fprintf(out, "level=WARN msg=\"log lines were left out\" lines=%d\n", n)
		}
	}
}

func (w *logWriter) flush() {
	done := make(chan struct{})
	limit := time.After(time.Second)
	select {
	case w.idle <- done:
	case <-limit:
		return
	}
	select {
	case <-done:
	case <-limit:
	}
}
