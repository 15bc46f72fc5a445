// Package device is lockfs's end of /dev/fuse: it mounts, reads requests with
// one ordered reader, has go-fuse decode them and call the filesystem, and
// writes the answers.
//
// # Order
//
// One goroutine reads. Each request is carried out, up to its effects on the
// filesystem's state, before the next one is read: a RELEASE has taken effect
// before the LOOKUP that its process sends next is looked at. go-fuse's own
// server reads with several goroutines and reorders them, which makes a
// process that closes a lock and takes it again find it held.
//
// Everything that happens to the filesystem's state happens in a step, one
// step at a time: a request, an INTERRUPT, a timer ([Conn.Do]). What a step
// changed and the answers it decided are committed together ([Ledger]), and then
// the answers are written, those of waits that it ended first, before the next
// step begins.
//
// # Waiting
//
// A request that must wait is parked: the filesystem's method returns
// [Parked], and some later step answers it by [Conn.Answer] or
// [Conn.AnswerOpen]. No goroutine waits with it.
//
// A request that needs to know something that may be slow to find out, such as
// what /proc says of a process, takes a detour ([Conn.Detour]): the look-up
// runs beside the reader, and then the request is carried out anew. This
// cannot reorder what one client sees: a client that waits for its answer sends
// nothing that could be overtaken, and what it need not wait for (RELEASE,
// FORGET) never takes a detour.
//
// # What never reaches go-fuse
//
// INTERRUPT: go-fuse answers one for a request it does not know with EAGAIN,
// which the kernel repeats for ever. Here an unknown request is one that is
// answered already, and there is nothing to say.
//
// POLL: go-fuse answers ENOSYS, which the kernel remembers for the life of the
// mount. Who sleeps in poll(2) is woken by a notification ([Conn.NotifyPoll]), which
// is one of the answers of a step: should the process die, it is repeated with
// them, and wakes somebody once too often at worst.
//
// The root's node number: go-fuse treats one file name in node 1 specially.
// The filesystem's root is [Root] instead, so that every name is just a name.
package device
