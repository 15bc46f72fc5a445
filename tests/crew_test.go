package tests

import (
	"bytes"
	"sync"
	"syscall"
	"testing"
	"time"
)

// crew is programs that run side by side for a time, some of them over and over.
// What they did is looked at one after the other, while the rest goes on.
type crew struct {
	end  time.Time
	stop chan struct{} // closed at the end of the test
	wait sync.WaitGroup
	// done has what was not looked at yet. It is as long as it must be for
	// nobody to wait until he is looked at.
	done chan crewRun
}

// crewRun is what a program of a crew did.
type crewRun struct {
	argv           []string
	stdout, stderr string
	err            error
}

// startCrew returns a crew of nobody yet. Its programs die with the test.
func startCrew(t testing.TB, limit time.Duration) *crew {
	t.Helper()
	c := &crew{end: time.Now().Add(limit), stop: make(chan struct{}), done: make(chan crewRun, 1<<16)}
	t.Cleanup(func() {
		close(c.stop)
		c.wait.Wait()
	})
	return c
}

// once adds a program that ends by itself.
func (c *crew) once(argv ...string) {
	c.wait.Go(func() { c.done <- c.run(argv) })
}

// again adds a program that is run over and over until the time is over, or
// it fails, with the arguments for its n-th run.
func (c *crew) again(program string, args func(n int) []string) {
	c.wait.Go(func() {
		for n := 0; time.Now().Before(c.end); n++ {
			r := c.run(append([]string{program}, args(n)...))
			c.done <- r
			if r.err != nil {
				return
			}
		}
	})
}

// Runs returns what the programs did, as it comes. It is closed when all have
// ended.
func (c *crew) Runs() <-chan crewRun {
	go func() {
		c.wait.Wait()
		close(c.done)
	}()
	return c.done
}

func (c *crew) run(argv []string) crewRun {
	var stdout, stderr bytes.Buffer
	cmd := command(nil, argv...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Start()
	if err == nil {
		ended := make(chan struct{})
		go func() {
			err = cmd.Wait()
			close(ended)
		}()
		select {
		case <-ended:
		case <-c.stop:
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-ended
		}
	}
	return crewRun{argv, stdout.String(), stderr.String(), err}
}
