package agent

import (
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/mirror"
)

// Names that an agent makes. Who makes one, or looks for one, asks on a detour, and waits
// as long as he likes; what he has asked for is done all the same, some time, and is to be
// removed then. What has ended is removed, and written, by the agent without anybody
// waiting for it. The agent does what is about one thing in the order in which it was
// asked for it, and so what is about a directory and what is in that.
//
// A file stays locked until it is removed: another mount would take one that is not
// locked for left behind, and could have made its own by then.

// names implements [mirror.Names].
type names struct {
	c     *Client
	limit time.Duration
}

// Names returns what makes names by the agent. Its methods are for detours, and wait for
// as long as limit says: then they fail with [ErrNoAnswer]. What Make opens stays in the
// agent.
func (c *Client) Names(limit time.Duration) mirror.Names { return names{c, limit} }

func (n names) Know(m mirror.MadeName) {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	if m.Temporary != "" {
		n.c.known[m.Temporary] = m.Path
		return
	}
	n.c.foreign[m.Path] = true
	n.c.put(item{text: &message{kind: kindKnow, names: []string{knownName("", m.Path)}}})
}

func (n names) Forget(path string) {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	if n.c.foreign[path] {
		delete(n.c.foreign, path)
		n.c.put(item{text: &message{kind: kindForget, path: path}})
	}
}

func (n names) Make(x mirror.NewName) (mirror.Opened, mirror.MadeName, error) {
	m := mirror.MadeName{Path: x.Path, Temporary: x.Temporary}
	n.Know(m)
	call, err := n.c.ask(message{kind: kindMake, name: &nameMessage{made: m, target: x.Target, state: x.NameState}}, n.limit)
	if err == nil && call.reply.name != nil {
		m = call.reply.name.made
	}
	return mirror.Opened{FD: -1}, m, err
}

func (n names) Reveal(m mirror.MadeName) error {
	_, err := n.c.ask(message{kind: kindReveal, name: madeMessage(m)}, n.limit)
	return err
}

func (n names) Remove(m mirror.MadeName) error {
	_, err := n.c.ask(message{kind: kindRemove, name: madeMessage(m)}, n.limit)
	if err == nil {
		n.c.forget(m)
	}
	return err
}

func (n names) Write(m mirror.MadeName, to mirror.NameState) error {
	_, err := n.c.ask(writeMessage(m, to), n.limit)
	return err
}

func (n names) Mark(m mirror.MadeName, use mirror.Use) error {
	_, err := n.c.ask(markMessage(m, use), n.limit)
	return err
}

func (n names) IsThere(m mirror.MadeName) (bool, error) {
	call, err := n.c.ask(message{kind: kindIsThere, name: madeMessage(m)}, n.limit)
	return err == nil && call.reply.found, err
}

func (n names) Look(path string, known mirror.MadeName) (*mirror.Outside, error) {
	call, err := n.c.ask(message{kind: kindLook, path: path, name: madeMessage(known)}, n.limit)
	if err != nil {
		return nil, err
	}
	var o *mirror.Outside
	if call.reply.found && call.reply.name != nil {
		o = call.reply.name.outside()
	}
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	if o != nil && o.Mode&unix.S_IFMT == unix.S_IFDIR {
		n.c.foreign[path] = true
	} else {
		delete(n.c.foreign, path)
	}
	return o, nil
}

func (n names) List(dir string, directories bool) ([]mirror.Listed, error) {
	call, err := n.c.ask(message{kind: kindList, path: dir, name: &nameMessage{directories: directories}}, n.limit)
	if err != nil {
		return nil, err
	}
	all := make([]mirror.Listed, len(call.names))
	for i, name := range call.names {
		all[i] = listed(name)
	}
	return all, nil
}

func (n names) Vacant(m mirror.MadeName) error {
	_, err := n.c.ask(message{kind: kindVacant, name: madeMessage(m)}, n.limit)
	return err
}

func writeMessage(m mirror.MadeName, to mirror.NameState) message {
	return message{kind: kindWrite, name: &nameMessage{made: m, state: to}}
}

func markMessage(m mirror.MadeName, use mirror.Use) message {
	return message{kind: kindMark, name: &nameMessage{made: m, use: use}}
}

// RemoveLater has what was made be removed, which has held the name of k; locked says that
// it is a file. It does not wait, and is called within a step, before the Recorded of that.
// Some time then is called, outside of steps.
func (c *Client) RemoveLater(k lockspace.Key, m mirror.MadeName, locked bool, then func(error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if locked {
		n := c.name(k)
		n.removing = append(n.removing, &m)
		n.changed = true
		if n.path == "" {
			n.path = m.Path
		}
		c.touch(n)
	}
	c.later(message{kind: kindRemove, name: madeMessage(m)}, func(err error) {
		if err == nil {
			c.forget(m)
		}
		if locked {
			c.removed(k, &m)
		}
		then(err)
	})
}

// removed says that a file of k that was to be removed need not stay locked any more.
func (c *Client) removed(k lockspace.Key, m *mirror.MadeName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.names[k]
	n.removing = slices.DeleteFunc(n.removing, func(other *mirror.MadeName) bool { return other == m })
	n.changed = true
	c.tell(n)
}

// WriteLater is Write that does not wait. Some time then is called, outside of steps.
func (c *Client) WriteLater(m mirror.MadeName, to mirror.NameState, then func(error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.later(writeMessage(m, to), then)
}

// MarkLater is Mark that does not wait. Some time then is called, outside of steps.
func (c *Client) MarkLater(m mirror.MadeName, use mirror.Use, then func(error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if use == mirror.ToLock {
		delete(c.known, m.Temporary)
	}
	c.later(markMessage(m, use), then)
}

// later asks without waiting. With mu held.
func (c *Client) later(m message, then func(error)) {
	call := c.newCall(m)
	c.send(call)
	go func() {
		<-call.done
		if call.reply.outcome == outcomeFailed {
			then(call.reply.failure.err())
			return
		}
		then(nil)
	}()
}

// forget says that something that was made is gone.
func (c *Client) forget(m mirror.MadeName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, m.Temporary)
}

// putKnown has the agent be told of what was made, by the mount and by others: before
// all else. With mu held.
func (c *Client) putKnown() {
	all := make([]string, 0, len(c.known)+len(c.foreign))
	for temporary, path := range c.known {
		all = append(all, knownName(temporary, path))
	}
	for path := range c.foreign {
		all = append(all, knownName("", path))
	}
	for batch := range slices.Chunk(all, mostKnown) {
		c.put(item{text: &message{kind: kindKnow, names: batch}})
	}
}

// mostKnown is how many of those are in a packet, whose paths may be long.
const mostKnown = 16

// knownName is what a KNOW says of something that was made; without a temporary name,
// by others. parseKnown reads it.
func knownName(temporary, path string) string { return temporary + "/" + path }

func parseKnown(s string) mirror.MadeName {
	temporary, path, _ := strings.Cut(s, "/")
	return mirror.MadeName{Temporary: temporary, Path: path}
}

// openingMessage is the part of a COVER or a STATE that says how a file is opened.
func openingMessage(o mirror.Opening) *nameMessage {
	if o == (mirror.Opening{}) {
		return nil
	}
	return &nameMessage{opening: o}
}

// opening is how the file that a message is about is opened.
func (m *message) opening() mirror.Opening {
	if m.name == nil {
		return mirror.Opening{}
	}
	return m.name.opening
}
