package state

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// What outlives the memory, and the machine: two small files in a directory of
// their own. tokens says up to which number fencing tokens may have been given
// out; saved (saved.go) is what a clean stop leaves for the next start.
//
// Each file is replaced as a whole: written under another name, synced,
// renamed over the old one, and the directory synced. So a file that is not
// whole is not one of ours, or the disk's fault. It is never trusted and never
// deleted, but renamed, and a warning says so.

// Errors of [OpenDir].
var (
	// ErrInUse: another process uses the directory.
	ErrInUse = errors.New("in use by another lockfs")
	// ErrUntrusted: somebody else than this user and root may write to it.
	ErrUntrusted = errors.New("others may write to it")
)

// Dir is the directory. Its methods may be called from several goroutines, as
// long as no two write the same file.
type Dir struct {
	f *os.File
	// warn is called with what a person should know.
	warn func(msg string, args ...any)
}

// OpenDir opens a directory, which is made if it is missing, and locks it for
// as long as it is open: two mounts would give out the same tokens. warn is
// called with messages for the log, as slog.Logger.Warn is. Errors: [ErrInUse],
// [ErrUntrusted], those of mkdir(2) and open(2).
func OpenDir(path string, warn func(msg string, args ...any)) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := trusted(f); err != nil {
		_ = f.Close()
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrInUse
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &Dir{f, warn}, nil
}

// trusted says whether others than this user and root could put files into a
// directory.
func trusted(dir *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: dir.Name(), Err: err}
	}
	if st.Uid != 0 && st.Uid != uint32(os.Geteuid()) || st.Mode&0o022 != 0 {
		return fmt.Errorf("%s: %w: it belongs to uid %d and has mode %04o", dir.Name(), ErrUntrusted, st.Uid, st.Mode&0o7777)
	}
	return nil
}

// AdoptDir returns a directory that another process opened and locked. The
// descriptor belongs to the Dir from here on.
func AdoptDir(fd int, warn func(msg string, args ...any)) *Dir {
	return &Dir{os.NewFile(uintptr(fd), "state directory"), warn}
}

// File returns the open directory.
func (d *Dir) File() *os.File { return d.f }

// Close gives the directory up.
func (d *Dir) Close() error { return d.f.Close() }

const tokensFile = "tokens"

// The file is text, for people:
//
//	lockfs tokens 1
//	reserved 262144
//	crc32 1c291ca3
//
// The sum is that of the lines before, in IEEE's polynomial.
const (
	tokensHead = "lockfs tokens 1\nreserved %d\n"
	tokensSum  = "crc32 %08x\n"
)

// maxTokens is more than can ever be given out, with room for blocks above it.
const maxTokens = 1 << 62

func encodeTokens(reserved uint64) []byte {
	b := fmt.Appendf(nil, tokensHead, reserved)
	return fmt.Appendf(b, tokensSum, crc32.ChecksumIEEE(b))
}

// decodeTokens accepts what encodeTokens makes and nothing else.
func decodeTokens(b []byte) (reserved uint64, err error) {
	if _, err := fmt.Sscanf(string(b), tokensHead, &reserved); err != nil {
		return 0, ErrFormat
	}
	if reserved > maxTokens || !bytes.Equal(b, encodeTokens(reserved)) {
		return 0, ErrFormat
	}
	return reserved, nil
}

// Reserved returns the highest token that may have been given out, 0 if none
// ever was. If the file that knows is damaged or somebody else's, it is set
// aside, and the number is the time, in microseconds: more tokens than that
// cannot have been given out since 1970.
func (d *Dir) Reserved() (uint64, error) {
	b, err := d.read(tokensFile, 4096)
	if errors.Is(err, unix.ENOENT) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	reserved, err := decodeTokens(b)
	if err == nil {
		return reserved, nil
	}
	if err := d.setAside(tokensFile, "tokens go on from the time of day"); err != nil {
		return 0, err
	}
	return TokensByTime(), nil
}

// TokensByTime returns a number of tokens that is higher than what has been
// given out up to now, on a machine whose clock is not set back: the time in
// microseconds.
func TokensByTime() uint64 { return uint64(time.Now().UnixMicro()) }

// Reserve writes down that tokens up to a number may be given out, so that it
// is known after a crash of the machine.
func (d *Dir) Reserve(upTo uint64) error { return d.replace(tokensFile, encodeTokens(upTo)) }

// read returns the content of a regular file of at most some bytes. One that is
// no regular file, or longer, comes back as what nobody wrote: nil.
func (d *Dir) read(name string, most int64) ([]byte, error) {
	fd, err := unix.Openat(int(d.f.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		return nil, nil // a symbolic link, a socket
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: d.path(name), Err: err}
	}
	f := os.NewFile(uintptr(fd), d.path(name))
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > most {
		return nil, nil
	}
	b := make([]byte, fi.Size())
	n, err := f.ReadAt(b, 0)
	if err != nil {
		return nil, err
	}
	return b[:n], nil
}

// replace makes b the content of a file: all of it or, if the machine stops
// meanwhile, the old one.
func (d *Dir) replace(name string, b []byte) error {
	dir, temporary := int(d.f.Fd()), name+".new"
	// A worker that died may have left one.
	if err := unix.Unlinkat(dir, temporary, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "unlink", Path: d.path(temporary), Err: err}
	}
	fd, err := unix.Openat(dir, temporary, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return &os.PathError{Op: "create", Path: d.path(temporary), Err: err}
	}
	f := os.NewFile(uintptr(fd), d.path(temporary))
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		_ = unix.Unlinkat(dir, temporary, 0)
		return err
	}
	if err := unix.Renameat(dir, temporary, dir, name); err != nil {
		return &os.PathError{Op: "rename", Path: d.path(temporary), Err: err}
	}
	return d.f.Sync()
}

// remove removes a file for good.
func (d *Dir) remove(name string) error {
	if err := unix.Unlinkat(int(d.f.Fd()), name, 0); err != nil {
		return &os.PathError{Op: "unlink", Path: d.path(name), Err: err}
	}
	return d.f.Sync()
}

// setAside renames what is not ours, or damaged. therefore is what happens
// instead of using it.
func (d *Dir) setAside(name, therefore string) error {
	dir, now := int(d.f.Fd()), time.Now().UTC().Format("20060102T150405")
	for n := 0; ; n++ {
		aside := name + ".damaged-" + now
		if n > 0 {
			aside = fmt.Sprintf("%s-%d", aside, n)
		}
		err := unix.Renameat2(dir, name, dir, aside, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "set aside", Path: d.path(name), Err: err}
		}
		d.warn("a file of the state directory is damaged or not lockfs's; it was renamed, and "+therefore,
			"file", d.path(name), "renamed", aside)
		return d.f.Sync()
	}
}

// path is for messages.
func (d *Dir) path(name string) string { return filepath.Join(d.f.Name(), name) }
