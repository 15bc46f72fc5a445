package mirror

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A directory that holds, or that somebody else has made, is not made again for a lock
// in it when it has gone. One that is there for locks only is.
func TestGoneDirectoriesStayGone(t *testing.T) {
	all, dir := mounts(t, "one")
	b := all[0]
	m, _ := madeBy(t, b, "held", unix.S_IFDIR)
	plant(t, "directory", dir+"/theirs")
	if o, err := b.Look("theirs", MadeName{}); o == nil || err != nil {
		t.Fatalf("it is %v, %v", o, err)
	}
	for _, name := range []string{"held", "theirs"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Open(name+"/lock", 0, 0); !errors.Is(err, unix.ESTALE) {
			t.Errorf("opening a lock in %s: %v", name, err)
		}
		if _, err := b.OpenLock(name+"/lock", MadeName{}, 0, 0); !errors.Is(err, unix.ESTALE) {
			t.Errorf("opening a lock in %s, where names hold: %v", name, err)
		}
		if _, _, err := b.Make(newName(name+"/in/lock", unix.S_IFREG)); !errors.Is(err, unix.ESTALE) {
			t.Errorf("making a name in %s: %v", name, err)
		}
	}
	wantIn(t, dir)
	if o, err := b.Look("theirs", MadeName{}); o != nil || err != nil {
		t.Errorf("it is %v, %v", o, err)
	}
	if err := b.Remove(m); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"held", "theirs"} {
		o, err := b.Open(name+"/lock", 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(o.FD)
	}
}

// What one mount has made, and would remove, is somebody's as long as somebody has
// something in it.
func TestDirectoriesThatOthersUse(t *testing.T) {
	all, dir := mounts(t, "one")
	b := all[0]
	madeBy(t, b, "made", unix.S_IFDIR)
	o, err := b.Open("space/lock", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(o.FD)
	seen := func(want bool) {
		t.Helper()
		listed, err := b.List("", true)
		if err != nil || (len(listed) == 2) != want || len(listed) == 1 {
			t.Errorf("listed are %v, %v", listed, err)
		}
		for _, name := range []string{"made", "space"} {
			if o, err := b.Look(name, MadeName{}); (o != nil) != want || err != nil {
				t.Errorf("%s is %v, %v", name, o, err)
			}
		}
	}
	seen(false)
	for _, name := range []string{"made", "space"} {
		plant(t, "file", filepath.Join(dir, name, "theirs"))
	}
	seen(true)
}

// What others have left behind does not keep a directory from being removed, but what
// they are to find again there does.
func TestDirectoriesWithLeftovers(t *testing.T) {
	all, dir := mounts(t, "one", "two")
	m, _ := madeBy(t, all[0], "d", unix.S_IFDIR)
	_, closeFile := madeBy(t, all[1], "d/lock", unix.S_IFREG)
	want := func(err error) {
		t.Helper()
		if got := all[0].Vacant(m); !errors.Is(got, err) {
			t.Errorf("Vacant: %v, want %v", got, err)
		}
	}
	want(unix.ENOTEMPTY)
	closeFile() // the mount dies
	want(nil)
	o, err := all[1].Open("d/space/lock", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(o.FD)
	want(unix.ENOTEMPTY)
	if err := os.RemoveAll(dir + "/d/space"); err != nil {
		t.Fatal(err)
	}
	if err := all[0].Remove(m); err != nil {
		t.Error(err)
	}
	wantIn(t, dir)
}

// A process that died while it looked whether a directory can be removed leaves it
// under another name. Whoever has come in meanwhile finds it under its own again.
func TestHiddenDirectoriesComeBack(t *testing.T) {
	all, dir := mounts(t, "one")
	m, _ := madeBy(t, all[0], "d", unix.S_IFDIR)
	plant(t, "file", dir+"/d/theirs")
	if err := os.Rename(dir+"/d", filepath.Join(dir, m.Temporary)); err != nil {
		t.Fatal(err)
	}
	if err := all[0].Remove(m); !errors.Is(err, unix.ENOTEMPTY) {
		t.Errorf("Remove: %v", err)
	}
	wantIn(t, dir, "d")
}

// One that nobody asks about any more is as if it had never been looked at.
func TestForgottenDirectories(t *testing.T) {
	all, dir := mounts(t, "one")
	b := all[0]
	plant(t, "directory", dir+"/theirs")
	if o, err := b.Look("theirs", MadeName{}); o == nil || err != nil {
		t.Fatalf("it is %v, %v", o, err)
	}
	b.Forget("theirs")
	m, _ := madeBy(t, b, "held", unix.S_IFDIR)
	b.Forget("held") // it is not somebody else's
	b.there.Range(func(path, _ any) bool {
		if path != "held" {
			t.Errorf("%v is known", path)
		}
		return true
	})
	if !b.isThere("held") {
		t.Error("what is held is not known")
	}
	if err := b.Remove(m); err != nil {
		t.Error(err)
	}
}

// Who must not take long does nothing where there is much; else it does not matter how much
// there is.
func TestDirectoriesWithManyNames(t *testing.T) {
	all, dir := mounts(t, "one")
	b := all[0]
	const many = 2*namesAtOnce + 1
	m, _ := madeBy(t, b, "d", unix.S_IFDIR)
	for i := range many {
		o, err := b.Open(fmt.Sprint("d/lock", i), 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(o.FD)
	}
	if err := b.RemoveFew(m, many-1); !errors.Is(err, ErrMany) {
		t.Errorf("RemoveFew: %v", err)
	}
	if entries, err := os.ReadDir(dir + "/d"); err != nil || len(entries) != many {
		t.Errorf("%d of %d names are left, %v", len(entries), many, err)
	}
	if err := b.RemoveFew(m, many); err != nil {
		t.Errorf("RemoveFew: %v", err)
	}
	wantIn(t, dir)
	m, _ = madeBy(t, b, "d", unix.S_IFDIR)
	for i := range 2 * namesAtOnce {
		plant(t, "file", fmt.Sprint(dir, "/d/theirs", i))
	}
	if err := b.RemoveFew(m, 1); !errors.Is(err, unix.ENOTEMPTY) { // the first says so
		t.Errorf("RemoveFew: %v", err)
	}
}
