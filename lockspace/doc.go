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
// that stands in a lock's queue. A lockspace is the directory of a key, with
// its [Policy].
//
// # Conflict
//
// Two holds conflict where their ranges overlap and one of them is exclusive,
// unless they belong to one party ([sameParty] states when). fcntl takes a byte
// range, which splits, merges, upgrades and downgrades as POSIX says for
// fcntl(2); everything else takes the whole lock.
//
// Who makes a name (O_EXCL, link, symlink, mkdir, rename) asks for a lock that
// nobody holds: it fails on any hold, the caller's own too, and never waits.
// That something else may have the name, like an ordinary file that holds
// nothing, the table does not know.
//
// # What ends a hold
//
// An open file or an fcntl owner owns the holds taken through it: its unlocks
// and its end give them back. A hold by name ([Request.ByName]) is owned by the
// existence of the name: no close ends it, [Table.EndHold] does, and [Table.End],
// which ends all there are. [Table.Move] takes it to another name.
//
// In a lockspace with a lease, a hold of any kind ends unless it is renewed in
// time: by [Table.Renew], or by a lock call of its party on the lock that is not
// refused. After an end that is not [Released], if the policy has grace, nobody
// gets the lock for that time: who tries gets [ErrGrace], who waits goes on
// waiting, and those who hold it beside the one whose hold ended keep what they
// have and get no more. The name is not held then, and is not listed.
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
// Plain open(2) can take the lock too ([ViaOpen]): shared or exclusive, the whole
// of it, for as long as the file is open, and it waits like flock(2). The user
// gives the request the number that the open file will have; two opens are
// strangers to each other, of one process too.
//
// A named owner ([ViaOwner]) asks for many locks at once, and gets all of them or
// none ([Table.TryAll]); it never waits, so it has no part in any deadlock.
//
// A wait that is cancelled leaves its place behind for a grace time
// ([ResumeGrace]): the kernel restarts the call of a process that was stopped
// and continued, as a new request. An absent wait keeps nobody waiting.
//
// # Outside
//
// A table may have a [Mirror]: locks outside of it that every hold has too, for
// programs that do not ask the table. Whoever holds one of these is in the way
// like a hold of the table: who tries gets [ErrForeign], who waits keeps the place
// in the queue and goes on when the mirror says that it is worth another try. A
// lock that goes from one holder to the next is never free outside in between.
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
// [Observer], and what must outlive the process the [Journal]; a [Listener] is
// told everything. It has no timers: after each step its user asks
// [Table.NextExpiry] when to call [Table.Expire], which any step may have made
// earlier.
//
// Who wants to see all of it begins a [Snapshot], of the moment, and gathers it a
// few locks at a time between other steps.
//
// # Caveats
//
// The table cannot tell a POSIX lock owner from an open file description that
// asks by fcntl: the kernel names both by a number (design 1.2). Where it
// matters, for deadlock detection, it asks [Processes].
//
// A lease that has run out, or grace that is over, counts until Expire is
// called: a renewal before that is in time. F_GETLK ([Table.Test]) has no way to
// tell of grace; it finds nobody.
//
// Who made a name without an open file is known by the process alone: through
// any of its files, that process locks what it has made itself. Two threads of
// it that use different idioms on one name are not kept apart.
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
