// Package fs is the FUSE face of the lock table: it turns what programs do to
// files into calls of lockspace, and what the table knows into what files
// show.
//
// # What is served
//
// Directories in which every name is a lock. A name is there, is listed, and can
// be opened without O_CREAT, while it is held, and as long as it has an entry:
// what link, symlink, mkdir and rename make has one, and in a lockspace whose
// names hold (hold=name), or opening takes the lock (hold=open), so has every
// file. A node stands for a name; programs
// that open one name, listed or not, meet on one node as long as any of them has
// it open. What the names of a file have in common is its file: the node's own,
// if it has no entry.
//
// # Where lockfs is not like other filesystems
//
// Where names hold it passes as a small POSIX directory, but:
//
//   - A file has at most 4096 bytes: EFBIG, ENOSPC. No room is reserved:
//     fallocate(2) is EOPNOTSUPP.
//   - A read of a held file that is empty returns the holder's pid.
//   - Nobody else writes to what is held: EBUSY; truncation by others is made up
//     for when they may write, see truncateLater.
//   - A plain rename onto a held name is EBUSY, and there is no exchange. To the
//     kernel a renamed file is another one: /proc/PID/fd says "(deleted)" of what
//     is open.
//   - There is no sticky bit, and files have no set-ID bits.
//   - There are files, directories and symbolic links: mknod(2) is EPERM,
//     O_TMPFILE EOPNOTSUPP. There are no extended attributes, and no shared
//     mmap(2) (ENODEV). epoll(7) takes the files.
//   - To lock a file that has lost its name takes write permission on the
//     directory: the lock is the name's.
//   - Times are between 1678 and 2262; those of access are set by utimes only.
//
// Where opening takes the lock it is like ocfs2's dlmfs: openhold.go has the list.
// Elsewhere:
//
//   - A free lock has no file. touch(1) succeeds and leaves nothing.
//   - open(2) of a name that was held when it was looked up succeeds though the
//     lock was given back meanwhile: an open file is not a hold.
//   - write(2) is EBUSY while somebody else holds the lock; truncation then
//     succeeds and does nothing before the first write that may be, as tools
//     open with O_TRUNC before they lock.
//   - A body belongs to the hold of its writer and goes with it. What is
//     written while nobody holds the lock stays if the same open file takes
//     the lock next.
//   - A read of a held lock without a body returns the holder's record, though
//     st_size is 0.
//   - Locks have no permission bits of their own: they show 0666, chmod, chown
//     and utimes change nothing and succeed, but for chmod and chown of another
//     user's held lock; the directory's bits decide: write to take, read to
//     look. (A file that is renamed to here from where it had a mode keeps it
//     beside.)
//   - Directories ignore the sticky bit; restricted deletion is always in
//     force, and so is what fs.protected_hardlinks says elsewhere. unlink(2)
//     gives back or breaks, see unlink.go.
//   - flock(2) on the directory itself is the kernel's and does not meet the
//     locks in it: FUSE does not hand it on.
//   - Every directory has a control directory, .lockfs, which is not listed; its
//     files are made for each reader and show no size, but for events, which is a
//     stream and shows one for tail(1). What can be set there is for the
//     directory's owner and root; nothing can be made, removed (EACCES, for root
//     too), but for named owners, or locked (EOPNOTSUPP). See control.go and
//     owner.go. Only in its ids, the numbers of numbered locks are made with O_EXCL,
//     and removed: see numbered.go.
//   - A non-blocking flock conversion that fails keeps the old lock.
//   - At the end of a mount that is in use, waits end with ENOLCK.
//   - Where locks are mirrored in a directory that does not answer, lock calls wait
//     until it does, O_NONBLOCK or not, or a signal ends them (EINTR). What makes a
//     name is ETIMEDOUT after some seconds: the kernel has locked the directory on the
//     mount for it. What only looks is shown what is known.
//
// # Steps
//
// All methods run in steps of fs/device, one at a time; there is no other
// mutex. What needs a look at /proc takes a detour, see process.go.
package fs
