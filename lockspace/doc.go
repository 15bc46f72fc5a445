// Package lockspace is the lock table of lockfs: who holds what, who waits for
// whom, in which order, and with which fencing token. It is pure Go, knows
// neither FUSE nor files, and is usable alone.
//
// # Words
//
// A lock is a (directory, name) pair, a [Key]. It is free, shared by some
// holds, or exclusive. A [Hold] is one grant: a mode, a byte range, the way it
// was taken, a token, and its [Party]. A party is whoever asks: an open file,
// an fcntl lock owner, and the processes behind them. A [Wait] is a request
// that stands in a lock's queue.
//
// # Conflict
//
// Two holds conflict where their ranges overlap and one of them is exclusive,
// unless they belong to one party ([sameParty] states when). O_EXCL and flock
// take the whole lock; fcntl takes a byte range, which splits, merges,
// upgrades and downgrades as POSIX says for fcntl(2).
//
// # Order
//
// Waits are served first come, first served. A request has to wait if it
// conflicts with a hold, or with a wait that came before it: readers that
// arrive after a waiting writer stand behind it, readers next to each other
// enter together. A non-blocking request that would have to wait fails.
//
// There is one exception, without which a queue would make deadlocks that
// plain locks do not have: nobody stands behind a wait that is itself, directly
// or through others, waiting for him. A process that holds part of a lock and
// asks for more is let past the waiters it keeps waiting. Across locks, who is
// whom is known by fcntl owners and by open files only.
//
// A wait that is cancelled leaves its place behind for a grace time
// ([ResumeGrace]): the kernel restarts the call of a process that was stopped
// and continued, as a new request. An absent wait keeps nobody waiting.
//
// # Deadlock
//
// A cycle of POSIX fcntl waits fails with [ErrDeadlock]; see deadlock.go for
// what is searched and why it suffices. Cycles through anything else may be
// false and are only shown, by [Table.Edges].
//
// # Use
//
// A [Table] is not safe for concurrent use: like a map, it is changed by one
// goroutine at a time, and its user brings the mutex. Every method is one
// step: it returns without waiting for anything. What a step did beyond its
// return value (waits that were granted, holds that ended) it tells the
// [Observer]; what must outlive the process it tells the [Journal].
//
// # Caveats
//
// The table cannot tell a POSIX lock owner from an open file description that
// asks by fcntl: the kernel names both by a number (design 1.2). Where it
// matters, for deadlock detection, it asks [Processes].
//
// That a process has died is noticed by the next step on a lock that it has to
// do with. What is found out about a process after its request has begun to
// wait ([ErrLookup] makes that rare) is not used: then a program may have to
// wait for its own hold by another idiom, as it would for a stranger's, and a
// deadlock that a grant brings about ([Table.Edges] shows it) may stay.
//
// flock(2) allows a conversion to lose the lock it converts. Here a blocking
// conversion gives the old lock back when it has to wait, as the kernel does; a
// non-blocking one that fails keeps it, which no careful program can notice
// but which never leaves two inside.
package lockspace
