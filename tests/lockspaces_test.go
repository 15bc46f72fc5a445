package tests

import (
	"maps"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/tests/openmetrics"
)

var octal = regexp.MustCompile(`\\[0-7]{3}`)

// unescapeField reads a field of the control file locks.
func unescapeField(s string) string {
	return octal.ReplaceAllStringFunc(s, func(c string) string {
		n, _ := strconv.ParseUint(c[1:], 8, 8)
		return string([]byte{byte(n)})
	})
}

// spacesIn returns the holds of the lockspaces in metrics, by path.
func spacesIn(t testing.TB, text string) map[string]float64 {
	t.Helper()
	samples, err := openmetrics.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	holds := make(map[string]float64)
	for name, n := range samples {
		if path, ok := openmetrics.LabelValue(name, "lockspace"); ok && strings.HasPrefix(name, "lockfs_lockspace_holds{") {
			holds[unescapeField(path)] = n
		}
	}
	return holds
}

// Lockspaces of any name are scraped, by whoever may list them, and whatever
// happens to the worker meanwhile.
func TestLockspacesAreScraped(t *testing.T) {
	m := mount(t, "--space", "legacy:hold=name")
	root, alice := newClient(t), newClient(t, asAlice())
	want := map[string]float64{".": 1, "legacy": 1}
	root.Open(m.Path("held"), takeFlags)
	wantErr(t, "close", root.Close(root.Open(m.Path("legacy/by name"), takeFlags)), nil)
	for _, name := range []string{"a b", "new\nline", `quo"te\`, `\040`, "#", "-", "ümläut", "broken\xff\xc3", "\u2028"} {
		wantErr(t, "mkdir", alice.Name("mkdir", 0o755, m.Path(name)), nil)
		lease := alice.Open(m.Path(name+"/.lockfs/policy/lease"), unix.O_WRONLY)
		wantErr(t, "write", alice.Write(lease, "1h\n"), nil)
		alice.Open(m.Path(name+"/held"), takeFlags)
		want["."]++
		want[name] = 1
	}
	for _, who := range [][]clientOption{nil, {asBob()}} {
		text, exit := sh(t, m, `cat .lockfs/metrics`, who...)
		if got := spacesIn(t, text); !maps.Equal(got, want) || exit != 0 {
			t.Errorf("%v, want %v", got, want)
		}
	}
	fd, text := root.Open(m.Path(".lockfs/metrics"), unix.O_RDONLY), ""
	for {
		part, err := root.Read(fd, 5000)
		wantErr(t, "read", err, nil)
		if part == "" {
			break
		}
		text += part
		root.Open(m.Path("held too"), openFlags)
		killWorker(t, m)
	}
	if got := spacesIn(t, text); !maps.Equal(got, want) {
		t.Errorf("over killed workers: %v, want %v", got, want)
	}
	wantErr(t, "chmod", alice.Chmod(m.Path("-"), 0o711), nil)
	wantErr(t, "mkdir", alice.Name("mkdir", 0o755, m.Path("-/secret")), nil)
	fd = alice.Open(m.Path("-/secret/.lockfs/policy/grace"), unix.O_WRONLY)
	wantErr(t, "write", alice.Write(fd, "1h\n"), nil)
	for who, shown := range map[string]bool{"root": true, "alice": true, "bob": false} {
		user := map[string]clientOption{"root": asUser(0, 0), "alice": asAlice(), "bob": asBob()}[who]
		text, _ := sh(t, m, `cat .lockfs/metrics`, user)
		if _, ok := spacesIn(t, text)["-/secret"]; ok != shown {
			t.Errorf("a lockspace in a directory that others may not list is shown to %s: %v", who, ok)
		}
		if n := strings.Count(text, "\nlockfs_lockspaces_untold 0\n"); (n == 1) != shown {
			t.Errorf("%s: untold is wrong", who)
		}
	}
}
