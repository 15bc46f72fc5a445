// Package state is memory that outlives the process that uses it: a memory
// file, held open by another process, with records, transactions and the
// requests in flight. Killing its user with SIGKILL at any instruction loses
// nothing that was committed and leaves nothing half done. It knows nothing of
// what the records mean.
//
// # Records
//
// A record is some bytes, at most [MaxRecord], under a kind and a number. It is
// put, replaced and dropped; [Memory.Records] returns them all after the memory
// was taken over. What the bytes say is its user's business; that they are
// whole and were put by a committed transaction is this package's.
//
// # Transactions
//
// There is one [Tx] at a time. It writes what is to change into the redo area,
// together with the answers that go with it. [Tx.Commit] makes it count with one
// store to memory, and then carries it out. A successor that finds a committed
// transaction carries it out again, which changes nothing if it had been, and
// repeats its answers; one that was begun and not committed is as if it had
// never been. tx.go has the argument.
//
// # Requests in flight
//
// A [Slot] is a buffer that requests are read into directly, so that a request
// that the kernel has handed over is not lost with the process that asked for
// it. See slot.go.
//
// # Trust
//
// [Open] believes no byte: a file that is not of this format, or is of another
// version, or contradicts itself, is an error, never a panic and never a
// silent loss. Memory that a user of this package has open writable can still
// be scribbled on; it is not a boundary against one's own processes.
//
// # Caveats
//
// Not safe for concurrent use, except as slot.go says. The memory survives its
// processes, not the machine. It has a fixed largest size, [MaxSize]; memory is
// taken as it is used, and room that is freed is used again, but is not given
// back.
package state
