// Package numbered is locks that are known by a number and allocated, for programs
// that need a lock for each of the things that they make: libpod's lock manager, for
// any number of processes, over a directory of a lockfs mount.
//
//	m, err := numbered.New("/run/lockfs/containers")
//	l, err := m.AllocateLock()     // write l.ID() down with what it is for
//	l.Lock()
//	defer l.Unlock()
//
// and, in whichever process reads the number:
//
//	l, err := m.RetrieveLock(id)
//
// It uses nothing but the files of the mount, so a shell can do the same: lock N is
// the name N in the directory, which flock(1) locks, and .lockfs/alloc, available and
// ids/ there are what allocates. What is allocated outlives the processes that use
// it, the daemon's crashes, and its clean restarts; what is locked is free at once
// when the process that has locked it ends, however it ends. After a reboot of the
// machine nothing is allocated, nor is it when the directory was removed:
// [Manager.AllocateAndRetrieveLock] is for who has numbers from before.
//
// # Semantics
//
// They are those of libpod's interfaces Manager and Locker, which [Manager] and
// [Locker] follow method by method:
//
//   - The lowest number that is free is allocated. It is not again until it is freed.
//   - [Locker.Free] is about the number only. The lock stays what it was: who has it
//     locked keeps it, and Lockers of it go on working. If the number is allocated
//     again, two things share a lock from then on, and that is all.
//   - [Manager.RetrieveLock] does not ask whether the number is allocated, for the
//     same reason.
//   - A [Locker] is one party: who locks twice through it waits for himself, as with
//     a [sync.Mutex], and only what was locked through it can be unlocked through
//     it. Two Lockers of one number exclude each other in one process, and in two.
//     Any goroutine may unlock.
//   - Locks come to those who wait in the order in which they asked, but that the
//     goroutines of one process that wait at one Locker count as one.
//
// # The directory
//
// [Create] makes one, as libpod creates its shared memory; [New] and [Open] use one
// that is there: any lockspace whose policy has ids and hold=handle, and no lease, as
// nothing here would renew it. Who may write to the directory may do everything, as
// for all locks of lockfs.
//
// # Caveats
//
// A Manager keeps the directory open, and so the mount busy, until [Manager.Close].
// When the mount has ended it does not find the next one of that place.
//
// A goroutine that waits in [Locker.Lock] keeps a thread busy, and one open file; so
// does, without the thread, each lock that is held.
//
// An administrator can break a lock, by removing its name, and a mirror can lose it:
// [Locker.Unlock] panics then, since what it guarded was not alone.
package numbered
