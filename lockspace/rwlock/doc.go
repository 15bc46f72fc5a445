// Package rwlock is the read/write locks of Coda's LWP lock package (the lock
// chapter of the Coda RPC2 and LWP manual), for processes instead of threads: each
// lock is a name on a lockfs mount, and whoever uses the name is excluded, with
// flock(1) in a shell too.
//
// Any number of readers hold a lock at a time, or one writer. They are served in the
// order in which they ask: a reader who comes after a waiting writer waits behind
// him, readers next to each other enter together, so nobody starves (the original
// promises no order). Whoever dies gives back what he held, and leaves the queue.
//
//	l, err := rwlock.Init("/run/mylocks/vnode-17")
//	...
//	if err := l.ObtainReadLock(); err != nil { ... }
//	... // many may be here
//	if err := l.ReleaseReadLock(); err != nil { ... }
//
// In a shell it is
//
//	exec 9>>/run/mylocks/vnode-17; flock -s 9    # ObtainReadLock
//	exec 9>>/run/mylocks/vnode-17; flock -x 9    # ObtainWriteLock
//	exec 9>&-                                    # ReleaseReadLock, ReleaseWriteLock
//	cat /run/mylocks/.lockfs/lock/vnode-17/check # CheckLock
//
// # Who holds
//
// "It is illegal for a process to request a particular lock more than once, without
// first releasing it. Failure to obey this restriction may cause deadlock", says the
// original. Here the process is a [Lock]: a value that holds the lock, or waits for
// it, and is asked for it again, by whatever goroutine, refuses with [ErrTwice]. Two
// goroutines that are to exclude each other have a Lock each; those that share one
// are one holder, and the second to ask is refused, not made to wait. A thread that
// has two Locks of one name and asks for both waits for itself; that is not noticed.
//
// # Where
//
// In directories of a lockfs mount with hold=handle, the default, where a lock that
// nobody holds or waits for has no file, or with hold=name, where an empty file
// stays. Programs that the process starts do not inherit locks.
package rwlock
