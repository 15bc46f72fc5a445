// Package space is libvirt's lockspaces (virLockSpace): resources with names, each
// a file, and owners who hold them, exclusively or shared. It is for a daemon that
// keeps locks on behalf of others, as virtlockd does for virtual machines: an owner
// is a number, by custom the pid of the process for which a resource is held, and
// means nothing to the package.
//
// # Resources
//
// A [Space] with a directory has its resources there: the name of a resource is the
// name of its file. [github.com/lockfs/lockfs/lockspace/digest] makes names out of
// paths. A space without a directory locks files themselves: the name of a
// resource is an absolute path.
//
// A resource is held by one owner exclusively, or by any number of owners, each any
// number of times, shared ([Shared]). [Space.AcquireResource] never waits: what it
// cannot have is [ErrBusy]. With [AutoCreate] the file is made if it is missing, and
// removed again when the last owner has released it.
//
// # Locks
//
// What is held is an fcntl lock on the first byte of the file, as libvirt takes it:
// so whoever locks the whole file by fcntl or lockf, virtlockd, and on a lockfs
// mount also by flock, is excluded, while QEMU, which locks other bytes of its
// images, is not in the way. It is an open file description lock, of one open file
// for each resource, so that it is not lost when another part of the program closes
// the file; and so that two spaces in one process exclude each other like two in two.
// Programs that the process starts do not inherit it; the process itself may
// become another program by execve(2) and keep all, see [Space.PreExec].
//
// # On a lockfs mount
//
// Everything works on any filesystem of the machine that has fcntl locks. On a lockfs
// mount a directory of resources needs the policy hold=name, under which files exist
// that nobody holds: [New] makes a new directory so, and refuses one that is not.
// There everybody can see who holds what, by whatever he locks himself, and a lock
// that was broken, or is lost, is noticed: [Space.Check].
//
// # Differences from the original
//
// Names are checked ([ErrBadName]). A file is only removed by who has it locked
// exclusively: [Space.DeleteResource] fails if another process holds the resource,
// and what waits to be locked is never an orphan. A file that is not empty is never
// removed for AutoCreate, so that no image is lost through a flag.
// ReleaseResourcesForOwner releases all that an owner holds, of one resource too, and
// not only the first; and a state that is taken over is checked before any of it is.
package space
