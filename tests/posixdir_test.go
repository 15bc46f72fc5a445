package tests

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The issue: "a hold=name lockspace passes as a small POSIX directory." Every
// call of the cases below comes to the same on a tmpfs and on lockfs, to the
// errno, by an ordinary user and by root, but for the differences that are
// named with their case, and why.

//go:embed posixdir.py
var posixDirProgram string

// posixCase is calls in a directory, as posixdir.py makes them.
type posixCase struct {
	name, text string
	// differs are the calls that come to something else on lockfs; each must.
	differs []difference
	// alone: where nothing is outside. Else directories with others in them are not
	// renamed (EXDEV).
	alone bool
}

// difference is a line of what the calls came to. U:U stands for the user and
// group that make them.
type difference struct {
	tmpfs, lockfs string
	why           string
}

// of returns the line on tmpfs and that on lockfs of a user.
func (d difference) of(uid uint32) (tmpfs, lockfs string) {
	own := strings.NewReplacer("U:U", fmt.Sprintf("%d:%d", uid, uid))
	return own.Replace(d.tmpfs), own.Replace(d.lockfs)
}

// Why lockfs is not like a tmpfs. All of it is in the contract or the package
// comment of fs.
const (
	smallBodies   = "a file has at most 4096 bytes"
	emptyIsRecord = "read=pid: reading what is held and empty tells the holder's pid"
	heldStays     = "a plain rename onto a held name is EBUSY"
	othersHold    = "nobody else writes to, or truncates, what is held"
	restricted    = "restricted deletion is always in force, as with a sticky bit"
	noSticky      = "there is no sticky bit"
	noSetID       = "files have no set-user-ID and set-group-ID bits"
	onlyLocks     = "there are files, directories and symbolic links"
	controlled    = "every directory has .lockfs"
	noAttributes  = "there are no extended attributes"
	noMapping     = "a file cannot be mapped for all to share"
	noExchange    = "renaming knows no other flag than RENAME_NOREPLACE"
	noReserving   = "no room is reserved: there is fallocate(2) nowhere that FUSE asks for it"
	noTmpfile     = "there is no O_TMPFILE"
	alwaysReady   = "epoll(7) takes the files"
	inNanoseconds = "times are between the years 1678 and 2262"
	namesAreNodes = "a node stands for a name: to the kernel, a file under a new name is another one"
)

var posixUsers = []struct {
	name string
	uid  uint32
}{{"alice", aliceID}, {"root", 0}}

func TestASmallPOSIXDirectory(t *testing.T) {
	all := slices.Concat(posixFileCases, posixNameCases, posixDirectoryCases)
	alone := slices.DeleteFunc(slices.Clone(all), func(c posixCase) bool { return !c.alone })
	mirrored := slices.DeleteFunc(all, func(c posixCase) bool { return c.alone })
	compareWithTmpfs(t, mountByName(t), mirrored)
	compareWithTmpfs(t, mount(t, "--policy", holdByName, "--backing", "none"), alone)
}

func compareWithTmpfs(t *testing.T, m *Mount, cases []posixCase) {
	dir := likeTmpfs(t)
	met := make(map[difference]bool)
	for _, user := range posixUsers {
		want, got := posixCalls(t, dir, user.uid, cases), posixCalls(t, m.Dir, user.uid, cases)
		for i, c := range cases {
			t.Run(c.name+"/"+user.name, func(t *testing.T) {
				if len(want[i]) != len(got[i]) {
					t.Errorf("%d calls on tmpfs, %d on lockfs", len(want[i]), len(got[i]))
				}
				for n := range min(len(want[i]), len(got[i])) {
					at := slices.IndexFunc(c.differs, func(d difference) bool {
						// A tmpfs of an older kernel may lack it too.
						tmpfs, lockfs := d.of(user.uid)
						return got[i][n] == lockfs && (want[i][n] == tmpfs || want[i][n] == lockfs)
					})
					switch {
					case at >= 0:
						met[c.differs[at]] = true
					case want[i][n] != got[i][n]:
						t.Errorf("on tmpfs  %s\non lockfs %s\nafter %q", want[i][n], got[i][n], want[i][:n])
					}
				}
			})
		}
	}
	for _, c := range cases {
		for _, d := range c.differs {
			if !met[d] {
				t.Errorf("%s: no difference any more: %s", c.name, d.tmpfs)
			}
		}
	}
}

// likeTmpfs mounts a tmpfs with the flags of a mount of lockfs, which every user
// may enter; and times of access are nobody's business on it either.
func likeTmpfs(t *testing.T) string {
	t.Helper()
	dir := mountParent(t)
	if err := unix.Mount("none", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOATIME, "mode=0777"); err != nil {
		t.Fatalf("mounting a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmounting a tmpfs: %v", err)
		}
		os.Remove(dir)
	})
	return dir
}

// posixCalls returns what the calls of each case came to, in a directory.
func posixCalls(t *testing.T, dir string, uid uint32, cases []posixCase) [][]string {
	t.Helper()
	texts := make([][2]string, len(cases))
	for i, c := range cases {
		texts[i] = [2]string{c.name, c.text}
	}
	in, err := json.Marshal(texts)
	if err != nil {
		t.Fatal(err)
	}
	out, stderr, exit := run(t, nil, "/usr/bin/python3", "-I", "-S", "-c", posixDirProgram, dir, fmt.Sprint(uid), string(in))
	var came [][]string
	if err := json.Unmarshal([]byte(out), &came); err != nil || exit != 0 || len(came) != len(cases) {
		t.Fatalf("exit %d, %d cases of %d (%v): %s", exit, len(came), len(cases), err, stderr)
	}
	return came
}
