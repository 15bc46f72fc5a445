package tests

import (
	"os/exec"

	"golang.org/x/sys/unix"
)

// This file is the calls of a [Client] that are about names rather than open
// files: one method for all of them, and what the client process does.

// Name makes the call of that name, with a path or two and a number: "link",
// "rename" (number: the flags), "symlink" (the text first), "readlink", "mkdir"
// (the mode), "rmdir", "lchown" (the user), "lchgrp" (the group), "utimes" (0:
// to now, else to that second), "execve".
func (c *Client) Name(call string, number int, paths ...string) error {
	c.t.Helper()
	r := request{Op: "name " + call, Path: []byte(paths[0]), N: number}
	if len(paths) > 1 {
		r.Data = []byte(paths[1])
	}
	return c.err(r)
}

// Readlink returns the text of a symbolic link.
func (c *Client) Readlink(path string) (string, error) {
	c.t.Helper()
	a, err := c.call(request{Op: "readlink", Path: []byte(path)})
	return string(a.Data), err
}

func serveNameRequest(r *request) error {
	path, second := string(r.Path), string(r.Data)
	switch r.Op {
	case "name link":
		return unix.Link(path, second)
	case "name rename":
		return unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, second, uint(r.N))
	case "name symlink":
		return unix.Symlink(path, second)
	case "name readlink":
		_, err := unix.Readlink(path, make([]byte, unix.PathMax))
		return err
	case "name mkdir":
		return unix.Mkdir(path, uint32(r.N))
	case "name rmdir":
		return unix.Rmdir(path)
	case "name lchown":
		return unix.Lchown(path, r.N, -1)
	case "name lchgrp":
		return unix.Lchown(path, -1, r.N)
	case "name utimes":
		times := []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}
		if r.N != 0 {
			times = []unix.Timespec{{Sec: int64(r.N)}, {Sec: int64(r.N)}}
		}
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, times, unix.AT_SYMLINK_NOFOLLOW)
	case "name execve":
		return exec.Command(path).Run()
	}
	return unix.ENOSYS
}
