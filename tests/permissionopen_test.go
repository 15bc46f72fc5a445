package tests

import "testing"

// The table of permissionrows_test.go for lockspaces in which open(2) takes the
// lock. Locks have no bits of their own there either: the directory decides, write
// to take, read to look; to take a lock by opening it for reading is both. Nobody
// removes what an open file holds. No call here waits, so that what is in the way
// is ETXTBSY.
const openPermissions = `
#                                                                                      owner   rwx     r-x     --x     ---     root
free                             | open(O_CREAT|O_EXCL); try(O_CREAT|O_RDWR)         | ok      ok      EACCES  EACCES  EACCES  ok
free                             | try(O_RDONLY); stat(it); access(F_OK)             | ENOENT  ENOENT  ENOENT  ENOENT  EACCES  ENOENT
free                             | unlink(it); rmdir(it); rename(it, away)           | ENOENT  ENOENT  ENOENT  ENOENT  EACCES  ENOENT
mine,his,root's lock free,held   | open(O_CREAT|O_EXCL); symlink(it); mkdir(it)      | EEXIST  EEXIST  EEXIST  EEXIST  EACCES  EEXIST
mine,his,root's lock free,held   | link(own, it); rename(own, it, RENAME_NOREPLACE)  | EEXIST  EEXIST  EEXIST  EEXIST  EACCES  EEXIST
mine,his,root's lock free        | try(O_RDONLY); try(O_WRONLY); try(O_RDWR)         | ok      ok      EACCES  EACCES  EACCES  ok
mine,his,root's lock free        | try(O_CREAT|O_RDWR); try(O_WRONLY|O_TRUNC)        | ok      ok      EACCES  EACCES  EACCES  ok
self,mine,his,root's lock held   | try(O_RDONLY); try(O_WRONLY); try(O_RDWR)         | ETXTBSY ETXTBSY EACCES  EACCES  EACCES  ETXTBSY
self,mine,his,root's lock held   | try(O_CREAT|O_RDWR); try(O_WRONLY|O_TRUNC)        | ETXTBSY ETXTBSY EACCES  EACCES  EACCES  ETXTBSY
self lock held                   | fd: flock(LOCK_SH); fd: flock(LOCK_EX)            | ok      ok      EACCES  EACCES  EACCES  ok
self lock held                   | fd: fcntl(F_RDLCK); fd: fcntl(F_WRLCK)            | ok      ok      EACCES  EACCES  EACCES  ok
self lock held                   | fd: write; fd: ftruncate; fd: read; fd: fstat     | ok      ok      ok      ok      ok      ok
self,mine,his,root's lock held   | truncate(it); access(W_OK)                        | ok      ok      EACCES  EACCES  EACCES  ok
mine,his,root's lock free        | truncate(it); access(W_OK)                        | ok      ok      EACCES  EACCES  EACCES  ok
mine,his,root's lock free,held   | access(R_OK)                                      | ok      ok      ok      EACCES  EACCES  ok
mine,his,root's lock free,held   | access(X_OK)                                      | EACCES  EACCES  EACCES  EACCES  EACCES  EACCES
mine,his,root's lock free,held   | access(F_OK); stat(it)                            | ok      ok      ok      ok      EACCES  ok

# Mode, owner and times are not its own.
mine,his,root's lock free,held   | utimes(it, now); utimes(it, then)                 | ok      ok      ok      ok      EACCES  ok
mine,his,root's lock free        | chmod(it); chown(it, him); chgrp(it, my group)    | ok      ok      ok      ok      EACCES  ok
self,mine lock held              | chmod(it); chown(it, him); chgrp(it, my group)    | ok      ok      ok      ok      EACCES  ok
his,root's lock held             | chmod(it); chown(it, me); chgrp(it, my group)     | EPERM   EPERM   EPERM   EPERM   EACCES  ok

# To remove: its owner, the directory's, root; and nobody while it is held.
mine lock free                   | unlink(it); rename(it, away); rename(own, it)     | ok      ok      EACCES  EACCES  EACCES  ok
mine lock free                   | rename(it, away, RENAME_NOREPLACE)                | ok      ok      EACCES  EACCES  EACCES  ok
his,root's lock free             | unlink(it); rename(it, away); rename(own, it)     | ok      EPERM   EACCES  EACCES  EACCES  ok
his,root's lock free             | rename(it, away, RENAME_NOREPLACE)                | ok      EPERM   EACCES  EACCES  EACCES  ok
self,mine lock held              | unlink(it); rename(it, away)                      | EBUSY   EBUSY   EACCES  EACCES  EACCES  EBUSY
his,root's lock held             | unlink(it); rename(it, away)                      | EBUSY   EPERM   EACCES  EACCES  EACCES  EBUSY
self,mine,his,root's lock held   | rename(own, it)                                   | EBUSY   EBUSY   EACCES  EACCES  EACCES  EBUSY
mine,his,root's lock free,held   | rmdir(it)                                         | ENOTDIR ENOTDIR ENOTDIR ENOTDIR EACCES  ENOTDIR
free                             | link(own, it); symlink(it); mkdir(it)             | ok      ok      EACCES  EACCES  EACCES  ok
free                             | rename(own, it); rename(own, it, RENAME_NOREPLACE) | ok      ok      EACCES  EACCES  EACCES  ok
mine lock free,held              | link(it, away)                                    | ok      ok      ok      ok      EACCES  ok
his,root's lock free             | link(it, away)                                    | ok      ok      EPERM   EPERM   EACCES  ok
his,root's lock held             | link(it, away)                                    | EPERM   EPERM   EPERM   EPERM   EACCES  ok
` + bothPermissions

func TestPermissionsWhereOpenTakesTheLock(t *testing.T) {
	testPermissions(t, "open", openPermissions)
}
