package tests

import "golang.org/x/sys/unix"

// The calls of the tables in permissionrows_test.go. "it" is what the row is
// about, "own" a file of the caller's elsewhere.

type permissionCall struct {
	// descriptor is the flags with which the caller has opened it already, 0
	// for not at all.
	descriptor int
	// own: there is a file of the caller's own.
	own bool
	// ends: if it succeeds, it ends what is held under the name.
	ends bool
	do   func(p *permissionTry) error
}

// reading are flags that are not 0.
const reading = unix.O_RDONLY | unix.O_CREAT

var permissionCalls = map[string]permissionCall{
	"open(O_CREAT|O_EXCL)":   {do: opening(takeFlags)},
	"open(O_CREAT|O_RDWR)":   {do: opening(openFlags)},
	"open(O_CREAT|O_WRONLY)": {do: opening(unix.O_CREAT | unix.O_WRONLY)},
	"open(O_CREAT|O_RDONLY)": {do: opening(unix.O_CREAT | unix.O_RDONLY)},
	"open(O_RDONLY)":         {do: opening(unix.O_RDONLY)},
	"open(O_WRONLY)":         {do: opening(unix.O_WRONLY)},
	"open(O_RDWR)":           {do: opening(unix.O_RDWR)},
	"open(O_WRONLY|O_TRUNC)": {do: opening(unix.O_WRONLY | unix.O_TRUNC)},
	"open(O_RDONLY|O_TRUNC)": {do: opening(unix.O_RDONLY | unix.O_TRUNC)},
	"try(O_RDONLY)":          {do: opening(unix.O_RDONLY | unix.O_NONBLOCK)},
	"try(O_WRONLY)":          {do: opening(unix.O_WRONLY | unix.O_NONBLOCK)},
	"try(O_RDWR)":            {do: opening(unix.O_RDWR | unix.O_NONBLOCK)},
	"try(O_CREAT|O_RDWR)":    {do: opening(unix.O_CREAT | unix.O_RDWR | unix.O_NONBLOCK)},
	"try(O_WRONLY|O_TRUNC)":  {do: opening(unix.O_WRONLY | unix.O_TRUNC | unix.O_NONBLOCK)},
	"read it":                {do: func(p *permissionTry) error { _, err := p.me.ReadAll(p.path); return err }},
	"truncate(it)":           {do: func(p *permissionTry) error { return p.me.Truncate(p.path, 0) }},
	"execve(it)":             {do: naming("execve", 0)},

	"fd: flock(LOCK_SH)":  {descriptor: reading, do: flocking(unix.LOCK_SH)},
	"fd: flock(LOCK_EX)":  {descriptor: reading, do: flocking(unix.LOCK_EX)},
	"fd: fcntl(F_RDLCK)":  {descriptor: reading, do: fcntling(unix.F_RDLCK)},
	"fd: fcntl(F_WRLCK)":  {descriptor: unix.O_RDWR, do: fcntling(unix.F_WRLCK)},
	"ro: fcntl(F_WRLCK)":  {descriptor: reading, do: fcntling(unix.F_WRLCK)},
	"fd: fcntl(F_GETLK)":  {descriptor: reading, do: func(p *permissionTry) error { p.me.GetLk(p.fd, wr(0, toEnd)); return nil }},
	"fd: read":            {descriptor: reading, do: func(p *permissionTry) error { _, err := p.me.Read(p.fd, 100); return err }},
	"fd: write":           {descriptor: unix.O_RDWR, do: func(p *permissionTry) error { return p.me.Write(p.fd, "x") }},
	"fd: ftruncate":       {descriptor: unix.O_RDWR, do: func(p *permissionTry) error { return p.me.Ftruncate(p.fd, 0) }},
	"fd: fstat":           {descriptor: reading, do: func(p *permissionTry) error { _, err := p.me.Fstat(p.fd); return err }},
	"access(F_OK)":        {do: accessing(unix.F_OK)},
	"access(R_OK)":        {do: accessing(unix.R_OK)},
	"access(W_OK)":        {do: accessing(unix.W_OK)},
	"access(X_OK)":        {do: accessing(unix.X_OK)},
	"stat(it)":            {do: func(p *permissionTry) error { _, err := p.me.Stat(p.path); return err }},
	"chmod(it)":           {do: func(p *permissionTry) error { return p.me.Chmod(p.path, 0o600) }},
	"chown(it, him)":      {do: func(p *permissionTry) error { return p.me.Name("lchown", p.him.id, p.path) }},
	"chown(it, me)":       {do: func(p *permissionTry) error { return p.me.Name("lchown", p.me.id, p.path) }},
	"chgrp(it, my group)": {do: func(p *permissionTry) error { return p.me.Name("lchgrp", p.me.id, p.path) }},
	"chgrp(it, another)":  {do: naming("lchgrp", 2345)},
	"utimes(it, now)":     {do: naming("utimes", 0)},
	"utimes(it, then)":    {do: naming("utimes", 1e9)},

	"link(it, away)":                     {do: func(p *permissionTry) error { return p.me.Name("link", 0, p.path, p.away) }},
	"link(own, it)":                      {own: true, do: func(p *permissionTry) error { return p.me.Name("link", 0, p.own, p.path) }},
	"symlink(it)":                        {do: func(p *permissionTry) error { return p.me.Name("symlink", 0, "text", p.path) }},
	"readlink(it)":                       {do: naming("readlink", 0)},
	"mkdir(it)":                          {do: naming("mkdir", 0o777)},
	"rmdir(it)":                          {ends: true, do: naming("rmdir", 0)},
	"unlink(it)":                         {ends: true, do: func(p *permissionTry) error { return p.me.Unlink(p.path) }},
	"rename(it, away)":                   {ends: true, do: func(p *permissionTry) error { return p.me.Name("rename", 0, p.path, p.away) }},
	"rename(it, away, RENAME_NOREPLACE)": {ends: true, do: func(p *permissionTry) error { return p.me.Name("rename", unix.RENAME_NOREPLACE, p.path, p.away) }},
	"rename(own, it)":                    {own: true, do: func(p *permissionTry) error { return p.me.Name("rename", 0, p.own, p.path) }},
	"rename(own, it, RENAME_NOREPLACE)":  {own: true, do: func(p *permissionTry) error { return p.me.Name("rename", unix.RENAME_NOREPLACE, p.own, p.path) }},

	"list the directory":  {do: func(p *permissionTry) error { _, err := p.me.TryReaddir(p.dir); return err }},
	"access(., R_OK)":     {do: func(p *permissionTry) error { return p.me.Access(p.dir, unix.R_OK) }},
	"access(., W_OK)":     {do: func(p *permissionTry) error { return p.me.Access(p.dir, unix.W_OK) }},
	"access(., X_OK)":     {do: func(p *permissionTry) error { return p.me.Access(p.dir, unix.X_OK) }},
	"chmod(., as it is)":  {do: chmodAsItIs},
	"chown(., as it is)":  {do: chownAsItIs},
	"utimes(., now)":      {do: func(p *permissionTry) error { return p.me.Name("utimes", 0, p.dir) }},
	"utimes(., then)":     {do: func(p *permissionTry) error { return p.me.Name("utimes", 1e9, p.dir) }},
	"chown(., him)":       {do: chownAway},
	"read ./.lockfs":      {do: func(p *permissionTry) error { _, err := p.me.TryReaddir(p.dir + "/.lockfs"); return err }},
	"open(./.lockfs/new)": {do: func(p *permissionTry) error { _, err := p.me.TryOpen(p.dir+"/.lockfs/new", takeFlags); return err }},
}

func opening(flags int) func(*permissionTry) error {
	return func(p *permissionTry) error {
		fd, err := p.me.TryOpen(p.path, flags)
		if err == nil {
			err = p.me.Close(fd)
		}
		return err
	}
}

func naming(call string, number int) func(*permissionTry) error {
	return func(p *permissionTry) error { return p.me.Name(call, number, p.path) }
}

func flocking(how int) func(*permissionTry) error {
	return func(p *permissionTry) error { return p.me.Flock(p.fd, how|unix.LOCK_NB) }
}

func fcntling(kind int16) func(*permissionTry) error {
	return func(p *permissionTry) error { return p.me.Fcntl(p.fd, unix.F_SETLK, lk(kind, 0, toEnd)) }
}

func accessing(mode int) func(*permissionTry) error {
	return func(p *permissionTry) error { return p.me.Access(p.path, mode) }
}

// The directory is to be the same for the rows that follow.

func chmodAsItIs(p *permissionTry) error {
	st, err := p.me.Stat(p.dir)
	if err != nil {
		return err
	}
	return p.me.Chmod(p.dir, st.Mode&0o7777)
}

func chownAsItIs(p *permissionTry) error {
	st, err := p.me.Stat(p.dir)
	if err != nil {
		return err
	}
	return p.me.Chown(p.dir, int(st.UID), int(st.GID))
}

func chownAway(p *permissionTry) error {
	st, err := p.me.Stat(p.dir)
	if err != nil {
		return err
	}
	if err = p.me.Chown(p.dir, 4321, -1); err == nil {
		err = p.me.Chown(p.dir, int(st.UID), int(st.GID))
	}
	return err
}
