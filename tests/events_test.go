package tests

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/tests/openmetrics"
)

// 1.7: events, as programs read them, and metrics, as they are scraped.

// eventLine is what is looked at of a line of events.
type eventLine struct {
	Event, Path, Reason, Via string
	PathBase64               string `json:"path_base64"`
	Token, Count             uint64
	Pid, UID                 int
	Comm                     string
	Workers                  int
	Held, Waited             float64
	By                       struct{ Pid, UID int }
}

func parseEvents(t testing.TB, text string) (lines []eventLine) {
	t.Helper()
	for _, s := range strings.SplitAfter(text, "\n") {
		if s == "" {
			continue
		}
		var l eventLine
		if err := json.Unmarshal([]byte(s), &l); err != nil || !strings.HasSuffix(s, "}\n") {
			t.Fatalf("%q is no line of events: %v", s, err)
		}
		if l.PathBase64 != "" {
			b, err := base64.StdEncoding.DecodeString(l.PathBase64)
			if err != nil {
				t.Fatal(err)
			}
			l.Path = string(b)
		}
		lines = append(lines, l)
	}
	return lines
}

// eventReader reads a stream until it ends.
type eventReader struct {
	mu   sync.Mutex
	text strings.Builder
	err  error
	done chan struct{}
}

// readEvents begins to read, by some bytes at a time.
func readEvents(t testing.TB, c *Client, path string, size int) *eventReader {
	t.Helper()
	r := &eventReader{done: make(chan struct{})}
	fd := c.Open(path, unix.O_RDONLY)
	go func() {
		defer close(r.done)
		for {
			p := c.start(request{Op: "read", FD: fd, N: size})
			<-p.done
			if p.err == unix.EINTR {
				continue // the runtime's own signals
			}
			r.mu.Lock()
			r.text.Write(p.answer.Data)
			r.err = p.err
			r.mu.Unlock()
			if len(p.answer.Data) == 0 || p.err != nil {
				return
			}
		}
	}()
	return r
}

func (r *eventReader) read() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// await waits until something was read.
func (r *eventReader) await(t testing.TB, what string) {
	t.Helper()
	eventually(t, answerLimit, func() bool { return strings.Contains(r.read(), what) }, "a reader of events gets "+what)
}

// awaitFile waits until a program has written something to a file.
func awaitFile(t testing.TB, path, what string) string {
	t.Helper()
	text := ""
	eventually(t, answerLimit, func() bool {
		b, _ := os.ReadFile(path)
		text = string(b)
		return strings.Contains(text, what)
	}, filepath.Base(path)+" has "+what)
	return text
}

// cat, tail, head, a shell's read and dd, while two users take, wait and break, and
// after the worker was killed; and names of any bytes.
func TestToolsReadEvents(t *testing.T) {
	m := mount(t)
	dir := t.TempDir()
	tools := map[string]string{
		"cat":  `cat .lockfs/events`,
		"tail": `tail -f .lockfs/events`,
		"last": `tail -n 1 -F .lockfs/events`,
		"bash": `while read -r line; do printf '%s\n' "$line"; /bin/true; done <.lockfs/events`,
		"dd":   `dd bs=13 if=.lockfs/events 2>/dev/null`,
	}
	var running []*process
	for name, tool := range tools {
		script := fmt.Sprintf("cd %s && echo held && exec >%s/%s && %s", m.Dir, dir, name, tool)
		p := startProcess(t, nil, "/bin/bash", "-c", script)
		p.Held(t)
		running = append(running, p)
	}
	head := startProcess(t, nil, "/bin/sh", "-c", fmt.Sprintf("cd %s && echo held && cat .lockfs/events | head -n 2 >%s/head", m.Dir, dir))
	head.Held(t)
	eventually(t, answerLimit, func() bool {
		out, _ := sh(t, m, `cat .lockfs/metrics`)
		return strings.Contains(out, fmt.Sprintf("\nlockfs_event_readers %d\n", len(tools)+1))
	}, "all have opened the stream")
	alice, root := newClient(t, asAlice()), newClient(t)
	fd := alice.Open(m.Path("lock"), openFlags)
	wantErr(t, "flock", alice.Flock(fd, unix.LOCK_EX), nil)
	other := root.Open(m.Path("lock"), openFlags)
	wait := root.StartFlock(other, unix.LOCK_EX)
	wait.MustBlock(t)
	wantErr(t, "unlink", root.Unlink(m.Path("lock")), nil)
	wantErr(t, "flock", wait.Wait(t), nil)
	killWorker(t, m)
	names := []string{"a b", "new\nline", `quo"te\`, "ümläut", "broken\xff\xc3"}
	for _, name := range names {
		wantErr(t, "close", root.Close(root.Open(m.Path(name), takeFlags)), nil)
	}
	wantErr(t, "close", root.Close(root.Open(m.Path("last"), takeFlags)), nil)

	for name := range tools {
		text := awaitFile(t, dir+"/"+name, `"path":"last"`)
		lines := parseEvents(t, text[:strings.LastIndex(text, "\n")+1])
		var got []string
		for _, l := range lines {
			if l.Event == "taken" || l.Event == "released" {
				got = append(got, l.Path)
			}
		}
		// The worker may have died before all was read that happened before.
		all := fmt.Sprintf("%q", got)
		for _, n := range names {
			if strings.Count(all, fmt.Sprintf("%q", n)) != 2 {
				t.Errorf("%s: %q is not there twice in %s", name, n, all)
			}
		}
		if strings.Count(text, `"recovered"`) != 1 {
			t.Errorf("%s was told of another worker %d times", name, strings.Count(text, `"recovered"`))
		}
		for _, l := range lines {
			if l.Event == "broken" && (l.By.UID != 0 || l.By.Pid != root.Pid() || l.UID != aliceID || l.Pid != alice.Pid() || l.Held == 0) {
				t.Errorf("%s: broken: %+v", name, l)
			}
		}
	}
	head.awaitExit(t)
	if lines := parseEvents(t, awaitFile(t, dir+"/head", "taken")); len(lines) != 2 || lines[1].Pid != alice.Pid() {
		t.Errorf("head: %+v", lines)
	}
	for _, p := range running {
		p.Kill(t)
	}
}

// Lines name the process, if it lives long enough to be looked at, also that it gave back
// what it held when it is gone by then.
func TestEventsNameProcesses(t *testing.T) {
	m := mount(t)
	r := readEvents(t, newClient(t, asAlice()), m.Path(".lockfs/events"), 4096)
	r.await(t, "opened")
	c := newClient(t)
	eventually(t, answerLimit, func() bool {
		wantErr(t, "close", c.Close(c.Open(m.Path("again"), takeFlags)), nil)
		return strings.Contains(r.read(), `"comm":"client"`)
	}, "a line names a client")
	// Whoever is named in the line that he has taken it has been looked at since.
	kept := ""
	eventually(t, answerLimit, func() bool {
		kept += "kept"
		fd := c.Open(m.Path(kept), takeFlags)
		r.await(t, fmt.Sprintf(`"path":"%s"`, kept))
		for _, l := range parseEvents(t, r.read()) {
			if l.Event == "taken" && l.Path == kept && l.Comm == "client" {
				return true
			}
		}
		wantErr(t, "close", c.Close(fd), nil)
		return false
	}, "the line of what is kept names a client")
	c.Kill()
	eventually(t, answerLimit, func() bool {
		for _, l := range parseEvents(t, r.read()) {
			if l.Event == "released" && l.Path == kept {
				return l.Comm == "client" && l.Pid == c.Pid()
			}
		}
		return false
	}, "the line of the end names who held it")
}

// Several readers of one stream each, over killed workers and to the end of the
// mount: all that is read are lines, in their order, and all see each worker.
func TestReadersOfEventsSurviveTheWorker(t *testing.T) {
	m := mount(t)
	var readers []*eventReader
	for i := range 6 {
		opts := []clientOption{}
		if i%2 == 1 {
			opts = append(opts, asAlice())
		}
		readers = append(readers, readEvents(t, newClient(t, opts...), m.Path(".lockfs/events"), []int{4096, 300, 1 << 20}[i/2]))
	}
	for _, r := range readers {
		r.await(t, "opened")
	}
	stop, stopped := make(chan struct{}), make(chan error)
	taker := newClient(t)
	fd := taker.Open(m.Path("lock"), openFlags)
	go func() {
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			for _, how := range []int{unix.LOCK_EX, unix.LOCK_UN} {
				if err := taker.Flock(fd, how); err != nil {
					stopped <- err
					return
				}
			}
		}
	}()
	const kills = 5
	for i := range kills {
		time.Sleep(100 * time.Millisecond)
		killWorker(t, m)
		for _, r := range readers {
			r.await(t, fmt.Sprintf(`"workers":%d}`, i+2))
		}
	}
	close(stop)
	wantErr(t, "flock", <-stopped, nil)
	wantErr(t, "close", taker.Close(taker.Open(m.Path("last"), takeFlags)), nil)
	for _, r := range readers {
		r.await(t, `"path":"last"`)
	}
	for i, r := range readers {
		text := r.read()
		last, workers, dropped := uint64(0), 0, false
		for _, l := range parseEvents(t, text[:strings.LastIndex(text, "\n")+1]) {
			switch l.Event {
			case "taken":
				if l.Token != last+1 && last != 0 && !dropped && workers == 0 || l.Token <= last {
					t.Fatalf("reader %d: token %d after %d", i, l.Token, last)
				}
				last, dropped = l.Token, false
			case "dropped":
				dropped = true
			case "recovered":
				workers++
			}
		}
		if workers != kills {
			t.Errorf("reader %d saw %d workers come, want %d", i, workers, kills)
		}
	}
	// Who waits when the mount ends finds the end of the stream.
	m.Quit()
	for i, r := range readers {
		select {
		case <-r.done:
			wantErr(t, fmt.Sprintf("reader %d at the end", i), r.err, nil)
		case <-time.After(answerLimit):
			t.Fatalf("reader %d does not end", i)
		}
	}
}

// poll, epoll and Go's runtime wait for events, O_NONBLOCK does not, and a reader
// that stops is told what it has missed.
func TestPollAndSlowReadersOfEvents(t *testing.T) {
	m := mount(t)
	c, taker := newClient(t), newClient(t)
	path := m.Path(".lockfs/events")
	fd := c.Open(path, unix.O_RDONLY|unix.O_NONBLOCK)
	osfd, err := c.TryOSOpen(path, unix.O_RDONLY)
	wantErr(t, "open", err, nil)
	slow := c.Open(path, unix.O_RDONLY|unix.O_NONBLOCK)
	drain := func(fd int) (text string) {
		t.Helper()
		for {
			part, err := c.Read(fd, 4096)
			if err == unix.EAGAIN {
				if ready, err := c.Poll(fd, unix.POLLIN); err == nil && ready == 0 {
					return text
				}
				continue
			}
			wantErr(t, "read", err, nil)
			text += part
		}
	}
	for _, fd := range []int{fd, osfd, slow} {
		if lines := parseEvents(t, drain(fd)); len(lines) != 1 || lines[0].Event != "opened" {
			t.Fatalf("the beginning: %+v", lines)
		}
	}
	lock := taker.Open(m.Path("lock"), openFlags)
	for round := range 3 {
		sleeping := []*Pending{
			c.StartPoll(fd, unix.POLLIN, -1), c.StartEpoll(fd, unix.EPOLLIN, -1),
			c.StartEpoll(fd, unix.EPOLLIN|unix.EPOLLET, -1), c.StartOSAwait(osfd),
		}
		for _, p := range sleeping {
			p.MustBlock(t)
		}
		if round == 1 {
			killWorker(t, m)
		} else {
			wantErr(t, "flock", taker.Flock(lock, []int{unix.LOCK_EX, 0, unix.LOCK_UN}[round]), nil)
		}
		for i, p := range sleeping {
			wantErr(t, fmt.Sprint("sleeper ", i), p.Wait(t), nil)
		}
		for _, fd := range []int{fd, osfd} {
			lines := parseEvents(t, drain(fd))
			if want := []string{"taken", "recovered", "released"}[round]; len(lines) != 1 || lines[0].Event != want {
				t.Fatalf("round %d: %+v, want %s", round, lines, want)
			}
		}
	}
	const rounds = 3000
	for range rounds {
		wantErr(t, "flock", taker.Flock(lock, unix.LOCK_EX), nil)
		wantErr(t, "flock", taker.Flock(lock, unix.LOCK_UN), nil)
	}
	text, lines, missed := "", uint64(0), uint64(0)
	eventually(t, answerLimit, func() bool {
		text += drain(slow)
		if !strings.HasSuffix(text, "\n") {
			return false
		}
		lines, missed = 0, 0
		for _, l := range parseEvents(t, text) {
			lines++
			missed += l.Count
		}
		return missed+lines-1 >= 2*rounds+2 // from the other worker on: recovered, released
	}, "the slow reader gets what is left")
	if missed == 0 || missed+lines-1 != 2*rounds+2 {
		t.Errorf("%d lines, %d missed, of %d", lines, missed, 2*rounds+2)
	}
	if strings.Contains(m.Stderr(), "refused by the kernel") {
		t.Error("the kernel has refused a notification")
	}
}

// Metrics are OpenMetrics, and count what happens.
func TestMetricsAreScraped(t *testing.T) {
	m := mount(t)
	scrape := func() openmetrics.Samples {
		t.Helper()
		out, exit := sh(t, m, `cat .lockfs/metrics`, asAlice())
		samples, err := openmetrics.Parse(out)
		if err != nil || exit != 0 {
			t.Fatalf("exit code %d: %v", exit, err)
		}
		return samples
	}
	before := scrape()
	holder := newClient(t)
	fd := holder.Open(m.Path("held"), takeFlags)
	sh(t, m, `flock lock true; flock lock true; flock -n held true; ln -s x link`)
	after := scrape()
	for name, more := range map[string]float64{
		"lockfs_holds": 2, `lockfs_grants_total{via="excl"}`: 1, `lockfs_grants_total{via="flock"}`: 2,
		`lockfs_grants_total{via="symlink"}`: 1, `lockfs_refusals_total{via="flock"}`: 1,
		`lockfs_ends_total{reason="released"}`: 2, "lockfs_hold_seconds_count": 2, "lockfs_workers_total": 0,
	} {
		if got := after[name] - before[name]; got != more {
			t.Errorf("%s: %v more, want %v", name, got, more)
		}
	}
	if n := after[`lockfs_requests_total{kind="create"}`]; n == 0 {
		t.Errorf("no CREATE is counted: %v", after)
	}
	killWorker(t, m)
	if got := scrape()["lockfs_workers_total"]; got != 2 {
		t.Errorf("after a crash: workers %v", got)
	}
	wantErr(t, "close", holder.Close(fd), nil)
	sh(t, m, `rm link`)
}

// A request that the worker died of is carried out by the next one: what happens
// then is told behind the line that says so.
func TestRecoveredComesFirst(t *testing.T) {
	m, p := crashMount(t)
	reader, taker := newClient(t), newClient(t)
	events, lock := reader.Open(m.Path(".lockfs/events"), unix.O_RDONLY), taker.Open(m.Path("lock"), openFlags)
	p.arm(death{step: "read", opcode: opSetlk})
	wantErr(t, "flock", taker.Flock(lock, unix.LOCK_EX|unix.LOCK_NB), nil)
	if !p.await(1) {
		t.Fatal("no worker died")
	}
	text, names := "", ""
	eventually(t, answerLimit, func() bool {
		part, err := reader.Read(events, 4096)
		wantErr(t, "read", err, nil)
		text += part
		return strings.HasSuffix(text, "\n") && strings.Contains(text, "taken")
	}, "the lock is taken")
	for _, l := range parseEvents(t, text) {
		names += l.Event + " "
	}
	if names != "opened recovered taken " {
		t.Errorf("%q", names)
	}
}
