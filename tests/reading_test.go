package tests

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// 1.8, for who reads a list: "no client sees an error", and what is read is of one
// moment over any number of workers.

// Workers die at every step of a READ that begins a list of several pages, at every
// record in which that is kept, and at every step of one that goes on in it, while
// the locks are not what they were.
func TestEveryStepOfReadingAList(t *testing.T) {
	m, p := crashMount(t)
	m.Deadline(time.Duration(stressFactor(t)) * 5 * time.Minute)
	c, reader := newClient(t), newClient(t)
	reader.onMain = true
	for i := range 120 {
		c.Open(m.Path(fmt.Sprintf("held %d", i)), takeFlags)
	}
	list := m.Path(".lockfs/locks")
	want, err := reader.ReadAll(list)
	wantErr(t, "read", err, nil)
	pieces := (len(want) + 4095) / 4096
	if pieces < 3 {
		t.Fatalf("the list has %d bytes only", len(want))
	}
	// In the transaction of the READ that has come back are the pieces, the record
	// that says what they are, and that the READ is not away any more.
	begins := looking.plans(opRead, 0, stressFactor(t) > 1)
	for i := range pieces + 2 {
		for _, step := range []string{"entry", "entry applied"} {
			begins = append(begins, []death{{step: step, opcode: opRead, pass: uint32(2 + i)}})
		}
	}
	goesOn := quiet.plans(opRead, 0, stressFactor(t) > 1)
	n := 0
	read := func(begin, next []death) {
		t.Helper()
		n++
		fd, err := reader.TryOpen(list, unix.O_RDONLY)
		wantErr(t, "open", err, nil)
		var got strings.Builder
		for i := 0; ; i++ {
			deaths := map[int][]death{0: begin, 1: next}[i]
			p.arm(deaths...)
			part, err := reader.Read(fd, 5000)
			wantErr(t, "read", err, nil)
			if len(deaths) > 0 && !p.await(len(deaths)) {
				t.Errorf("%v: only %d came about in read %d", deaths, p.met(), i)
			}
			p.disarm()
			if part == "" {
				break
			}
			got.WriteString(part)
			if i == 0 {
				c.Close(c.Open(m.Path("a new one"), takeFlags))
				c.Open(m.Path(fmt.Sprintf("another %d", n)), takeFlags)
			}
		}
		if got.String() != want {
			t.Fatalf("%v, %v:\n%q\nwant\n%q", begin, next, got.String(), want)
		}
		wantErr(t, "close", reader.Close(fd), nil)
		want, err = reader.ReadAll(list)
		wantErr(t, "read", err, nil)
	}
	for _, plan := range begins {
		read(plan, []death{{step: "read", opcode: opRead}}) // goes on with another worker
	}
	for _, plan := range goesOn {
		read(nil, plan)
	}
	t.Logf("%d reads, of %d bytes in the end", n, len(want))
}

// A list that is too long to be kept is never continued with what another worker
// sees: the reader is told, and reads again. At its end he has it all.
func TestAListThatIsTooLongIsNotContinued(t *testing.T) {
	m := stressMount(t)
	hoarders := hoard(t, m, 2*perHoarder)
	c := newClient(t)
	list := m.Path(".lockfs/locks")
	want, err := c.ReadAll(list)
	wantErr(t, "read", err, nil)
	if len(want) <= 256<<10 {
		t.Fatalf("the list has %d bytes only", len(want))
	}
	fd := c.Open(list, unix.O_RDONLY)
	part, err := c.Pread(fd, 1000, 0)
	if part != want[:1000] || err != nil {
		t.Fatalf("%d bytes, %v", len(part), err)
	}
	killWorker(t, m)
	for range 2 {
		if part, err := c.Pread(fd, 1000, 1000); part != "" || err != unix.ESTALE {
			t.Errorf("in the middle: %d bytes, %v, want ESTALE", len(part), err)
		}
		if part, err := c.Pread(fd, 1000, int64(len(want))); part != "" || err != nil {
			t.Errorf("at the end: %d bytes, %v", len(part), err)
		}
	}
	if part, err := c.Pread(fd, 1000, 0); part != want[:1000] || err != nil {
		t.Errorf("anew: %d bytes, %v", len(part), err)
	}
	killAll(t, hoarders)
}
