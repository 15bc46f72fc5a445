package mirror

import (
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxListed is how many names [Backing.Locked] returns at most.
const maxListed = 10_000

// Locked returns the names in a directory beneath ("" for the backing directory
// itself) of the files that somebody has an fcntl lock on, this process too, in the
// order of the alphabet: as far as /proc/locks shows it, and of what other hosts have
// locked on a filesystem that several share, that of which is published who holds
// it. A missing directory has none. It takes as long as the directory is large: not
// for steps.
func (b *Backing) Locked(dir string) ([]string, error) {
	return b.LockedBut(dir, func(string) bool { return false })
}

// LockedBut is Locked without names that are not to be looked at.
func (b *Backing) LockedBut(dir string, skip func(name string) bool) ([]string, error) {
	locked, err := lockedInodes()
	if err != nil || len(locked) == 0 && !b.remote {
		return nil, err
	}
	if dir == "" {
		dir = "."
	} else if !valid(dir) {
		return nil, wrap("open", dir, unix.EINVAL)
	}
	fd, err := b.openat2(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err == unix.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, wrap("open", dir, err)
	}
	f := os.NewFile(uintptr(fd), dir)
	defer f.Close()
	var names []string
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, wrap("getdents", dir, err)
		}
		if n == 0 {
			break
		}
		names = b.appendLocked(names, dir, buf[:n], locked, skip)
		if len(names) >= maxListed {
			break
		}
	}
	slices.Sort(names)
	return names, nil
}

// appendLocked adds the names among the entries of a directory whose files are
// locked: the inode's number, or that something is published, says that they may be,
// fcntl(2) that they are.
func (b *Backing) appendLocked(names []string, dir string, entries []byte, locked map[uint64]bool, skip func(string) bool) []string {
	_, _, all := unix.ParseDirent(entries, -1, nil)
	for _, name := range all {
		if skip(name) || isTemporary(name) {
			continue
		}
		path := name
		if dir != "." {
			path = dir + "/" + name
		}
		var st unix.Stat_t
		if b.stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		if published := b.remote && st.Size > int64(len(header)); !locked[st.Ino] && !published {
			continue
		}
		if _, found, err := b.Probe(path); err == nil && found && !b.hasMade(path) {
			names = append(names, name)
		}
	}
	return names
}

// hasMade reports whether what is at path holds its name for this mount, or is about to, or
// has: who asks knows of it.
func (b *Backing) hasMade(path string) bool {
	if b.mount == "" {
		return false
	}
	at, err := b.spot(path)
	if err != nil {
		return false
	}
	defer at.close()
	fd, x, err := b.see(at)
	if err != nil {
		return err == unix.ENOENT // it was, and is gone
	}
	unix.Close(fd)
	return b.knows(x) || b.isGone(at, x)
}

// lockedInodes returns the numbers of the inodes that have an fcntl lock, on any
// filesystem. A line of /proc/locks is (proc_locks(5)):
//
//	1: OFDLCK ADVISORY  WRITE -1 00:01:1014 0 EOF
//
// The kernel writes a page of it at a time, and then goes on with the lock of the number
// at which it had been: if others have been given back meanwhile, it leaves out as many.
// So what is longer is read again until there is nothing new in it.
func lockedInodes() (map[uint64]bool, error) {
	file, err := os.Open("/proc/locks")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	inodes := make(map[uint64]bool)
	for range maxReadings {
		known := len(inodes)
		text, atOnce, err := readAgain(file)
		if err != nil {
			return nil, err
		}
		parseLocks(text, inodes)
		if atOnce || len(inodes) == known {
			break
		}
	}
	return inodes, nil
}

// maxReadings is how often it is read at most, where locks come and go all the time.
const maxReadings = 8

// readAgain reads a file from its beginning, as fast as it can, and reports whether
// that was one reading only.
func readAgain(file *os.File) (text []byte, atOnce bool, err error) {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, false, err
	}
	for readings := 0; ; readings++ {
		text = slices.Grow(text, 16<<10)
		n, err := file.Read(text[len(text):cap(text)])
		text = text[:len(text)+n]
		if err == io.EOF {
			return text, readings <= 1, nil
		}
		if err != nil {
			return nil, false, err
		}
	}
}

// parseLocks adds the inodes of a text.
func parseLocks(text []byte, inodes map[uint64]bool) {
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		// Who waits has "->" behind the number.
		if len(fields) < 6 || fields[1] != "POSIX" && fields[1] != "OFDLCK" {
			continue
		}
		where := fields[5]
		if n, err := strconv.ParseUint(where[strings.LastIndexByte(where, ':')+1:], 10, 64); err == nil {
			inodes[n] = true
		}
	}
}
