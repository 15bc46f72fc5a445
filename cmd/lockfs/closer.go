package main

import (
	"sync"

	"golang.org/x/sys/unix"
)

// closersMax is how many closes may hang before others wait for them.
const closersMax = 32

// closer closes files for somebody who must not wait: close(2) asks the
// filesystem, and one on a network may not answer. A zero closer is ready.
type closer struct {
	mu      sync.Mutex
	queue   []int
	running int
}

// close closes a descriptor soon.
func (c *closer) close(fd int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(c.queue, fd)
	if c.running < closersMax {
		c.running++
		go c.run()
	}
}

// open returns how many are still to be closed.
func (c *closer) open() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.queue) + c.running
}

func (c *closer) run() {
	for {
		c.mu.Lock()
		if len(c.queue) == 0 {
			c.running--
			c.mu.Unlock()
			return
		}
		fd := c.queue[0]
		c.queue = c.queue[1:]
		c.mu.Unlock()
		_ = unix.Close(fd)
	}
}
