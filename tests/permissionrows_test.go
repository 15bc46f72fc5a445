package tests

// The tables of who may do what, written from 1.4 and 1.5. The first column says
// what there is: see [permissionThing]. The outcomes are those of the owner of
// the directory, of users to whom its bits give rwx, r-x, --x and nothing, and of
// root. What the caller has as a descriptor ("fd:" and "ro:", the latter
// for reading only) was opened while the directory was open to everybody.

// Where locks are held by open files, they have no bits of their own: the
// directory decides, write to take, read to look.
const handlePermissions = `
# To take: write. The same whether it is free or held, but for who is in the way.
#                                                                                     owner   rwx     r-x     --x     ---     root
free                           | open(O_CREAT|O_EXCL)                               | ok      ok      EACCES  EACCES  EACCES  ok
self,mine,his,root's           | open(O_CREAT|O_EXCL)                               | EEXIST  EEXIST  EEXIST  EEXIST  EACCES  EEXIST
free,self,mine,his,root's      | open(O_CREAT|O_RDWR); open(O_CREAT|O_WRONLY)       | ok      ok      EACCES  EACCES  EACCES  ok
free                           | open(O_CREAT|O_RDONLY)                             | ok      ok      EACCES  EACCES  EACCES  ok
self,mine,his,root's           | open(O_WRONLY); open(O_RDWR)                       | ok      ok      EACCES  EACCES  EACCES  ok
self,mine,his,root's           | open(O_WRONLY|O_TRUNC); open(O_RDONLY|O_TRUNC)     | ok      ok      EACCES  EACCES  EACCES  ok
self,mine,his,root's           | truncate(it)                                       | ok      ok      EACCES  EACCES  EACCES  ok
free,self                      | fd: flock(LOCK_SH); fd: flock(LOCK_EX)             | ok      ok      EACCES  EACCES  EACCES  ok
mine,his,root's                | fd: flock(LOCK_SH); fd: flock(LOCK_EX)             | EAGAIN  EAGAIN  EACCES  EACCES  EACCES  EAGAIN
free,self                      | fd: fcntl(F_RDLCK); fd: fcntl(F_WRLCK)             | ok      ok      EACCES  EACCES  EACCES  ok
mine,his,root's                | fd: fcntl(F_RDLCK); fd: fcntl(F_WRLCK)             | EAGAIN  EAGAIN  EACCES  EACCES  EACCES  EAGAIN
free,mine,his,root's           | ro: fcntl(F_WRLCK)                                 | EBADF   EBADF   EBADF   EBADF   EBADF   EBADF

# To look: read. To stat: search.
free                           | open(O_RDONLY); stat(it); access(F_OK)             | ENOENT  ENOENT  ENOENT  ENOENT  EACCES  ENOENT
self,mine,his,root's           | open(O_CREAT|O_RDONLY); open(O_RDONLY); read it    | ok      ok      ok      EACCES  EACCES  ok
self,mine,his,root's           | access(R_OK)                                       | ok      ok      ok      EACCES  EACCES  ok
self,mine,his,root's           | access(W_OK)                                       | ok      ok      EACCES  EACCES  EACCES  ok
self,mine,his,root's           | access(X_OK); execve(it)                           | EACCES  EACCES  EACCES  EACCES  EACCES  EACCES
self,mine,his,root's           | access(F_OK); stat(it)                             | ok      ok      ok      ok      EACCES  ok
free,mine,his,root's           | fd: fcntl(F_GETLK); fd: read; fd: fstat            | ok      ok      ok      ok      ok      ok

# To write: to be the holder. Truncation by others is accepted and ignored.
free,self                      | fd: write; fd: ftruncate                           | ok      ok      ok      ok      ok      ok
mine,his,root's                | fd: write                                          | EBUSY   EBUSY   EBUSY   EBUSY   EBUSY   EBUSY
mine,his,root's                | fd: ftruncate                                      | ok      ok      ok      ok      ok      ok

# Mode, owner and times are not its own: who might change them changes nothing.
self,mine                      | chmod(it); chown(it, him); chgrp(it, my group)     | ok      ok      ok      ok      EACCES  ok
his,root's                     | chmod(it); chown(it, me); chgrp(it, my group)      | EPERM   EPERM   EPERM   EPERM   EACCES  ok
self,mine,his,root's           | utimes(it, now); utimes(it, then)                  | ok      ok      ok      ok      EACCES  ok

# To break: the holder's user, the directory's owner, root.
free                           | unlink(it); rmdir(it); rename(it, away)            | ENOENT  ENOENT  ENOENT  ENOENT  EACCES  ENOENT
self,mine                      | unlink(it); rename(it, away)                       | ok      ok      EACCES  EACCES  EACCES  ok
self,mine                      | rename(it, away, RENAME_NOREPLACE)                 | ok      ok      EACCES  EACCES  EACCES  ok
his,root's                     | unlink(it); rename(it, away)                       | ok      EPERM   EACCES  EACCES  EACCES  ok
his,root's                     | rename(it, away, RENAME_NOREPLACE)                 | ok      EPERM   EACCES  EACCES  EACCES  ok
self,mine,his,root's           | rmdir(it)                                          | ENOTDIR ENOTDIR ENOTDIR ENOTDIR EACCES  ENOTDIR

# By name: write to the directory, and nothing there.
free                           | link(own, it); symlink(it); mkdir(it)              | ok      ok      EACCES  EACCES  EACCES  ok
free                           | rename(own, it); rename(own, it, RENAME_NOREPLACE) | ok      ok      EACCES  EACCES  EACCES  ok
self,mine,his,root's           | link(own, it); symlink(it); mkdir(it)              | EEXIST  EEXIST  EEXIST  EEXIST  EACCES  EEXIST
self,mine,his,root's           | rename(own, it, RENAME_NOREPLACE)                  | EEXIST  EEXIST  EEXIST  EEXIST  EACCES  EEXIST
self,mine,his,root's           | rename(own, it)                                    | EBUSY   EBUSY   EACCES  EACCES  EACCES  EBUSY
self,mine                      | link(it, away)                                     | ok      ok      ok      ok      EACCES  ok
his,root's                     | link(it, away)                                     | EPERM   EPERM   EPERM   EPERM   EACCES  ok
` + bothPermissions + `
mine symlink                   | chown(it, him); utimes(it, then)                   | ok      ok      ok      ok      EACCES  ok
his,root's symlink             | utimes(it, then)                                   | ok      ok      ok      ok      EACCES  ok
`

// Symbolic links and directories hold by name everywhere.
const bothPermissions = `
#                                                                                     owner   rwx     r-x     --x     ---     root
mine,his symlink               | readlink(it); stat(it)                             | ok      ok      ok      ok      EACCES  ok
mine symlink                   | unlink(it); rename(it, away)                       | ok      ok      EACCES  EACCES  EACCES  ok
mine symlink                   | rename(it, away, RENAME_NOREPLACE)                 | ok      ok      EACCES  EACCES  EACCES  ok
his,root's symlink             | unlink(it); rename(it, away)                       | ok      EPERM   EACCES  EACCES  EACCES  ok
his,root's symlink             | rename(it, away, RENAME_NOREPLACE)                 | ok      EPERM   EACCES  EACCES  EACCES  ok
mine symlink                   | link(it, away)                                     | ok      ok      ok      ok      EACCES  ok
his,root's symlink             | link(it, away)                                     | EPERM   EPERM   EPERM   EPERM   EACCES  ok
his,root's symlink             | chown(it, me); chgrp(it, my group)                 | EPERM   EPERM   EPERM   EPERM   EACCES  ok
mine,his symlink               | open(O_CREAT|O_EXCL); link(own, it); mkdir(it)     | EEXIST  EEXIST  EEXIST  EEXIST  EACCES  EEXIST
mine,his symlink               | symlink(it); rename(own, it, RENAME_NOREPLACE)     | EEXIST  EEXIST  EEXIST  EEXIST  EACCES  EEXIST
mine,his symlink               | rename(own, it)                                    | EBUSY   EBUSY   EACCES  EACCES  EACCES  EBUSY
mine,his symlink               | rmdir(it)                                          | ENOTDIR ENOTDIR ENOTDIR ENOTDIR EACCES  ENOTDIR

mine directory                 | rmdir(it); rename(it, away)                        | ok      ok      EACCES  EACCES  EACCES  ok
his,root's directory           | rmdir(it)                                          | ok      EPERM   EACCES  EACCES  EACCES  ok
# A directory that gets another parent is written to.
his,root's directory           | rename(it, away)                                   | EACCES  EPERM   EACCES  EACCES  EACCES  ok
mine directory                 | chmod(it); chgrp(it, my group); utimes(it, then)   | ok      ok      ok      ok      EACCES  ok
mine directory                 | chown(it, him); chgrp(it, another)                 | EPERM   EPERM   EPERM   EPERM   EACCES  ok
his,root's directory           | chmod(it); chown(it, me); utimes(it, then)         | EPERM   EPERM   EPERM   EPERM   EACCES  ok
mine,his directory             | stat(it)                                           | ok      ok      ok      ok      EACCES  ok
mine,his directory             | open(O_CREAT|O_EXCL); link(own, it); mkdir(it)     | EEXIST  EEXIST  EEXIST  EEXIST  EACCES  EEXIST
mine,his directory             | symlink(it); rename(own, it, RENAME_NOREPLACE)     | EEXIST  EEXIST  EEXIST  EEXIST  EACCES  EEXIST
mine,his directory             | unlink(it); rename(own, it)                        | EISDIR  EISDIR  EISDIR  EISDIR  EACCES  EISDIR
mine,his directory             | link(it, away)                                     | EPERM   EPERM   EPERM   EPERM   EACCES  EPERM

# The directory itself.
free                           | list the directory; access(., R_OK)                | ok      ok      ok      EACCES  EACCES  ok
free                           | access(., W_OK); utimes(., now)                    | ok      ok      EACCES  EACCES  EACCES  ok
free                           | access(., X_OK); read ./.lockfs                    | ok      ok      ok      ok      EACCES  ok
free                           | open(./.lockfs/new)                                | EACCES  EACCES  EACCES  EACCES  EACCES  EACCES
free                           | chmod(., as it is); utimes(., then)                | ok      EPERM   EPERM   EPERM   EPERM   ok
free                           | chown(., as it is)                                 | ok      EPERM   EPERM   EPERM   EPERM   ok
free                           | chown(., him)                                      | EPERM   EPERM   EPERM   EPERM   EPERM   ok
`

// Where names hold, files have modes as anywhere. To open one takes what its
// mode says and a way to it; to make and to remove names, the directory. The same
// whether it is free or held: what is held is in the way, and only its holder
// writes.
const namePermissions = `
#                                                                                     owner   rwx     r-x     --x     ---     root
free                           | open(O_CREAT|O_EXCL); open(O_CREAT|O_RDONLY)       | ok      ok      EACCES  EACCES  EACCES  ok
free                           | open(O_CREAT|O_RDWR); open(O_CREAT|O_WRONLY)       | ok      ok      EACCES  EACCES  EACCES  ok
free                           | link(own, it); symlink(it); mkdir(it)              | ok      ok      EACCES  EACCES  EACCES  ok
free                           | rename(own, it); rename(own, it, RENAME_NOREPLACE) | ok      ok      EACCES  EACCES  EACCES  ok
free                           | open(O_RDONLY); stat(it); access(F_OK)             | ENOENT  ENOENT  ENOENT  ENOENT  EACCES  ENOENT
free                           | unlink(it); rmdir(it); rename(it, away)            | ENOENT  ENOENT  ENOENT  ENOENT  EACCES  ENOENT

# It is there.
mine,his,root's 0644 free,held | open(O_CREAT|O_EXCL); symlink(it)                  | EEXIST  EEXIST  EEXIST  EEXIST  EACCES  EEXIST
mine,his 0644 free,held        | link(own, it); mkdir(it)                           | EEXIST  EEXIST  EEXIST  EEXIST  EACCES  EEXIST
mine,his 0644 free,held        | rename(own, it, RENAME_NOREPLACE)                  | EEXIST  EEXIST  EEXIST  EEXIST  EACCES  EEXIST
mine,his 0000,0644 free,held   | stat(it); access(F_OK)                             | ok      ok      ok      ok      EACCES  ok
mine,his 0644 free,held        | rmdir(it)                                          | ENOTDIR ENOTDIR ENOTDIR ENOTDIR EACCES  ENOTDIR

# To open: its mode. The directory's owner has no more rights than others.
mine 0600,0644 free,held       | open(O_CREAT|O_RDWR); open(O_RDWR)                 | ok      ok      ok      ok      EACCES  ok
mine 0600,0666 free,held       | open(O_WRONLY|O_TRUNC); truncate(it)               | ok      ok      ok      ok      EACCES  ok
mine 0400,0644 free,held       | open(O_RDONLY); read it; access(R_OK)              | ok      ok      ok      ok      EACCES  ok
mine 0400,0466 free,held       | open(O_WRONLY); open(O_RDWR); truncate(it)         | EACCES  EACCES  EACCES  EACCES  EACCES  ok
mine 0400 free,held            | open(O_RDONLY|O_TRUNC); access(W_OK)               | EACCES  EACCES  EACCES  EACCES  EACCES  ok
mine 0200,0044 free,held       | open(O_RDONLY); read it; access(R_OK)              | EACCES  EACCES  EACCES  EACCES  EACCES  ok
his 0666 free,held             | open(O_CREAT|O_RDWR); open(O_WRONLY|O_TRUNC)       | ok      ok      ok      ok      EACCES  ok
his 0666,0602 free,held        | open(O_WRONLY); truncate(it); access(W_OK)         | ok      ok      ok      ok      EACCES  ok
his 0644,0604 free,held        | open(O_RDONLY); read it; access(R_OK)              | ok      ok      ok      ok      EACCES  ok
his 0644,0640,0600 free,held   | open(O_CREAT|O_RDWR); open(O_WRONLY)               | EACCES  EACCES  EACCES  EACCES  EACCES  ok
his 0644,0600 free,held        | open(O_WRONLY|O_TRUNC); truncate(it)               | EACCES  EACCES  EACCES  EACCES  EACCES  ok
his 0644,0600 free,held        | open(O_RDONLY|O_TRUNC); access(W_OK)               | EACCES  EACCES  EACCES  EACCES  EACCES  ok
his 0640,0600,0602 free,held   | open(O_RDONLY); read it; access(R_OK)              | EACCES  EACCES  EACCES  EACCES  EACCES  ok
mine 0700 free,held            | access(X_OK)                                       | ok      ok      ok      ok      EACCES  ok
his 0711 free,held             | access(X_OK)                                       | ok      ok      ok      ok      EACCES  ok
his 0744 free,held             | access(X_OK)                                       | EACCES  EACCES  EACCES  EACCES  EACCES  ok
mine,his 0666 free,held        | access(X_OK)                                       | EACCES  EACCES  EACCES  EACCES  EACCES  EACCES
mine 0700 free                 | execve(it)                                         | ok      ok      ok      ok      EACCES  ok
his 0711 free                  | execve(it)                                         | ok      ok      ok      ok      EACCES  ok
his 0744 free                  | execve(it)                                         | EACCES  EACCES  EACCES  EACCES  EACCES  ok
mine,his 0666 free             | execve(it)                                         | EACCES  EACCES  EACCES  EACCES  EACCES  EACCES

# To lock takes no more than the descriptor, whatever became of the mode.
mine,his 0666,0644,0600 free   | fd: flock(LOCK_SH); fd: flock(LOCK_EX)             | ok      ok      ok      ok      ok      ok
mine,his 0666,0644,0600 held   | fd: flock(LOCK_SH); fd: flock(LOCK_EX)             | EAGAIN  EAGAIN  EAGAIN  EAGAIN  EAGAIN  EAGAIN
mine,his 0666,0600 free        | fd: fcntl(F_RDLCK); fd: fcntl(F_WRLCK)             | ok      ok      ok      ok      ok      ok
mine,his 0666,0600 held        | fd: fcntl(F_RDLCK); fd: fcntl(F_WRLCK)             | EAGAIN  EAGAIN  EAGAIN  EAGAIN  EAGAIN  EAGAIN
mine,his 0644 free,held        | ro: fcntl(F_WRLCK)                                 | EBADF   EBADF   EBADF   EBADF   EBADF   EBADF
mine,his 0600 free,held        | fd: fcntl(F_GETLK); fd: read; fd: fstat            | ok      ok      ok      ok      ok      ok

# To write: its holder.
mine,his,root's 0600 free      | fd: write; fd: ftruncate                           | ok      ok      ok      ok      ok      ok
self 0600 held                 | fd: write; fd: ftruncate                           | ok      ok      ok      ok      ok      ok
mine,his,root's 0600 held      | fd: write                                          | EBUSY   EBUSY   EBUSY   EBUSY   EBUSY   EBUSY
mine,his 0600 held             | fd: ftruncate                                      | ok      ok      ok      ok      ok      ok

# Mode, owner and times: the owner's.
mine 0000,0644 free,held       | chmod(it); chown(it, me); chgrp(it, my group)      | ok      ok      ok      ok      EACCES  ok
mine 0000,0644 free,held       | utimes(it, now); utimes(it, then)                  | ok      ok      ok      ok      EACCES  ok
mine 0666 free,held            | chown(it, him); chgrp(it, another)                 | EPERM   EPERM   EPERM   EPERM   EACCES  ok
his 0666 free,held             | chmod(it); chown(it, me); chown(it, him)           | EPERM   EPERM   EPERM   EPERM   EACCES  ok
his 0666 free,held             | chgrp(it, my group); utimes(it, then)              | EPERM   EPERM   EPERM   EPERM   EACCES  ok
his 0666,0602 free,held        | utimes(it, now)                                    | ok      ok      ok      ok      EACCES  ok
his 0644,0600 free,held        | utimes(it, now)                                    | EACCES  EACCES  EACCES  EACCES  EACCES  ok

# To remove: its owner, the directory's, root; by writing to the directory.
mine 0000,0666 free,held       | unlink(it); rename(it, away)                       | ok      ok      EACCES  EACCES  EACCES  ok
mine 0644 free,held            | rename(it, away, RENAME_NOREPLACE)                 | ok      ok      EACCES  EACCES  EACCES  ok
his,root's 0600,0666 free,held | unlink(it); rename(it, away)                       | ok      EPERM   EACCES  EACCES  EACCES  ok
his 0666 free,held             | rename(it, away, RENAME_NOREPLACE)                 | ok      EPERM   EACCES  EACCES  EACCES  ok
mine 0600 free                 | rename(own, it)                                    | ok      ok      EACCES  EACCES  EACCES  ok
his,root's 0666,0600 free      | rename(own, it)                                    | ok      EPERM   EACCES  EACCES  EACCES  ok
mine,his,root's 0666 held      | rename(own, it)                                    | EBUSY   EBUSY   EACCES  EACCES  EACCES  EBUSY

# To link: one's own, and what one may read and write.
mine 0000,0644 free,held       | link(it, away)                                     | ok      ok      ok      ok      EACCES  ok
his 0666,0606 free,held        | link(it, away)                                     | ok      ok      ok      ok      EACCES  ok
his 0644,0602,0600 free,held   | link(it, away)                                     | EPERM   EPERM   EPERM   EPERM   EACCES  ok
` + bothPermissions + `
mine symlink                   | chown(it, me); utimes(it, then)                    | ok      ok      ok      ok      EACCES  ok
mine symlink                   | chown(it, him)                                     | EPERM   EPERM   EPERM   EPERM   EACCES  ok
his,root's symlink             | utimes(it, then)                                   | EPERM   EPERM   EPERM   EPERM   EACCES  ok
`
