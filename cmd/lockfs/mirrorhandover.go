package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// The mirror's files go along when the keeper is replaced by execve(2), which
// keeps descriptors and their numbers. There may be thousands: their list is a
// file in memory, not a part of the environment.

// list returns a descriptor of a list of all files, which is the caller's.
func (s *mirrorStore) list() (int, error) {
	s.mu.Lock()
	var files []mirrorFile
	for _, f := range s.files {
		files = append(files, f)
	}
	s.mu.Unlock()
	text, err := json.Marshal(files)
	if err != nil {
		return -1, err
	}
	fd, err := unix.MemfdCreate("lockfs-mirror-files", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("list the mirror's files: %w", err)
	}
	for off := 0; off < len(text); {
		n, err := unix.Pwrite(fd, text[off:], int64(off))
		if err != nil {
			_ = unix.Close(fd)
			return -1, fmt.Errorf("list the mirror's files: %w", err)
		}
		off += n
	}
	return fd, nil
}

// adopt takes the files on a list over, and closes that. The mount goes on
// without those that it cannot have.
func (s *mirrorStore) adopt(list int) {
	f := os.NewFile(uintptr(list), "list of the mirror's files")
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
	var files []mirrorFile
	if err == nil {
		err = json.Unmarshal(text, &files)
	}
	if err != nil {
		s.log.Error("the mirror's files are lost: what the last keeper left of them is not understood", "err", err)
		return
	}
	for _, f := range files {
		if err := setCloseOnExec(f.FD, true); err != nil {
			s.log.Error("a file of the mirror is lost", "file", f.ID, "err", err)
			continue
		}
		s.files[f.ID] = f
	}
}

// leaveMirror adds what belongs to the mirror to the descriptors that the next
// program gets, and lets it have the files. undo is for when it does not take
// over after all.
func (k *keeper) leaveMirror(fds map[string]int) (undo func(), err error) {
	if k.format() == formatPlain {
		return func() {}, nil
	}
	if k.worker.mirror == nil {
		return nil, errors.New("the worker has no line for the mirror's files")
	}
	// What comes from here on waits in the socket.
	k.worker.mirror.pause()
	fds[fdMirror] = k.worker.mirror.socket.fd
	list, err := k.mirror.list()
	if err == nil {
		fds[fdMirrorFiles] = list
		err = k.mirror.setCloseOnExec(false)
	}
	undo = func() {
		_ = k.mirror.setCloseOnExec(true)
		if list >= 0 {
			_ = unix.Close(list)
		}
		k.worker.mirror.resume()
	}
	if err != nil {
		undo()
		return nil, err
	}
	return undo, nil
}

// adoptMirror takes up what leaveMirror left, or the directory alone, which is
// all that a service manager keeps. The line is the one to the worker that is
// there, nil if there is none.
func (k *keeper) adoptMirror(in *inherited) *mirrorLine {
	if dir, ok := in.fds[fdBacking]; ok {
		k.backing = os.NewFile(uintptr(dir), in.Backing)
	}
	k.mirror = newMirrorStore(k.log)
	if list, ok := in.fds[fdMirrorFiles]; ok {
		k.mirror.adopt(list)
	}
	fd, ok := in.fds[fdMirror]
	if !ok {
		return nil
	}
	socket, err := adoptMirrorSocket(fd)
	if err != nil {
		k.log.Error("what the worker said last of the mirror's files is lost", "err", err)
		return nil
	}
	return &mirrorLine{store: k.mirror, socket: socket}
}
