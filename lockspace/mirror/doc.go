// Package mirror is the locks that a lock table has in the world outside: real
// fcntl locks on the files of a directory, taken before a hold is granted and
// given back after it has ended, so that programs that lock those files and never
// heard of the table exclude its users, and are excluded by them (design 1.6).
//
// # What is locked
//
// A [Mirror] is a [lockspace.Mirror]. The lock of a name is mirrored on the file
// of that name in the [Backing] directory, byte range for byte range and mode for
// mode, as open file description locks: of one open file for each lock, however
// many hold it. The table knows who of its users excludes whom; the mirror has the
// union of what they hold. A byte that the table gives from one to another in one
// step stays locked in between, and costs no call. No file is removed, and none that
// was there is written to. Into those that it has made the mirror may write who holds
// the lock, for other mirrors on the same directory: see publication.go.
//
// What is held by being there, a file, a directory or a link, is made, written and
// removed by [Names], which a Mirror does not do by itself: it takes as long as the
// filesystem does, and what was done has to be recorded in between. A name that is held
// by being a directory has no file to lock: others are in it.
//
// # Use
//
// In a step the table calls Cover, Await and Settled; after each step, when it has
// been recorded and before it is answered, its user calls [Mirror.Recorded]. Who
// gets [lockspace.ErrLookup] and finds that [Mirror.Needs] a file makes a
// [Preparation] in that step, runs it outside of steps, adopts it in another step
// and asks again in the same. That can happen more than once if somebody keeps
// replacing the file; the user gives up after some times. For requests in the
// table's queue the mirror does all of it by itself.
//
// # Files that change
//
// A name is opened when it is first asked for, and stays open for a while when
// nobody holds it any more. Whether the name still leads to the file that was
// opened is looked at after it was locked and before the hold is granted, and
// every second or so for those that are held. If it leads to another, or a call
// on it fails, and nobody holds anything, it is opened anew. If somebody does, his
// lock excludes nobody any more: it is lost, and the user is told to end the hold.
//
// # Two names of one file
//
// Locks belong to files, not to names. Two names that somebody has hard-linked
// in the backing directory are two locks for the table and one file for everybody
// else; then they exclude each other here too, since whoever locks the one from
// outside expects to have the other: the second finds [lockspace.ErrForeign],
// though it is a user of the table who is in its way, and no cycle of waits through
// such a pair is found. The several names of one file of the table are as many files.
//
// # Outliving the process
//
// The locks of an open file last until the last descriptor of it is closed. Each is
// handed to a [Keeper], another process, before it is locked for the first time.
// The next process takes them in with [Mirror.Inherit], tells what the table
// holds with [Mirror.Settled], and from the next [Mirror.Recorded] on exactly that is
// locked: what was locked too much, by a process that died between locking and
// recording, is given back; what is locked too little, because the descriptors are
// lost, is locked again, or lost if somebody has it by then.
//
// # Waiting
//
// Who waits for somebody outside has a thread that waits in fcntl(2) for him, so
// he gets the lock as soon as anybody could. The kernel gives a lock to no one of
// its waiters in particular. There are so many threads and no more; beyond
// that it is tried every 20 ms. A thread cannot be called back: if nobody wants
// any more what it waits for, it may come to have it for a moment.
//
// On a filesystem that several hosts share nobody waits in fcntl(2). There, not even
// SIGKILL may end such a call (GlusterFS forgets interrupts); then the process would
// not be gone before it has the lock, and if what it waits for is locked through its
// own other files, which the keeper has too, never. So it is tried, after 2.5 ms at
// first, and every 20 ms after a while.
//
// # Caveats
//
// Steps make fcntl and stat calls. On a filesystem that answers slowly they are as
// slow, and on one that does not answer, like a server on the network that is gone,
// they hang. Such a directory is for another process, see package agent.
//
// Two tables with mirrors on one directory exclude each other, but have no queue in
// common: a lock that always has somebody waiting for it in one of them goes from
// hand to hand there, and the other does not get it.
//
// A lock that a server has forgotten is noticed within a second or so; until then
// somebody else may have it.
//
// A file that may be read and not written can be locked shared and no more: an
// exclusive hold of it fails with EACCES.
package mirror
