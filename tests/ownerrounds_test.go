package tests

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Part 4: "all resources or none, without deadlock between two owners that ask in
// different orders". Two owners with overlapping resources in opposite order, 10,000
// rounds in all, before somebody who looks on.

const ownerRounds = 10_000

// ownerPath is the path of a named owner's file.
func ownerPath(m *Mount, owner, file string) string {
	return m.Path(".lockfs/owner/" + owner + "/" + file)
}

// makeOwner makes a named owner with some resources, and returns its open ctl.
func makeOwner(t testing.TB, c *Client, m *Mount, name string, resources ...string) (ctl int) {
	t.Helper()
	wantErr(t, "mkdir", c.Name("mkdir", 0o755, m.Path(".lockfs/owner/"+name)), nil)
	for _, r := range resources {
		tellOwner(t, c, m, name, "resources", r)
	}
	return c.Open(ownerPath(m, name, "ctl"), unix.O_WRONLY)
}

// tellOwner writes to a file of a named owner.
func tellOwner(t testing.TB, c *Client, m *Mount, name, file, text string) {
	t.Helper()
	fd := c.Open(ownerPath(m, name, file), unix.O_WRONLY)
	wantErr(t, text+" to "+file, c.Write(fd, text+"\n"), nil)
	wantErr(t, "close", c.Close(fd), nil)
}

func TestOwnersInOppositeOrder(t *testing.T) {
	for _, backing := range []bool{false, true} {
		t.Run(fmt.Sprintf("backing=%v", backing), func(t *testing.T) {
			flags := []string{"--backing", "none"}
			if backing {
				flags[1] = t.TempDir()
			}
			m := mount(t, flags...)
			m.Deadline(5 * time.Minute)
			playRounds(t, m, ownerRounds/2)
		})
	}
}

// playRounds has two owners take and give back so many times in all.
func playRounds(t *testing.T, m *Mount, rounds int) {
	disks := make([]string, 6)
	for i := range disks {
		disks[i] = fmt.Sprintf("disk /images/%d.img", i)
	}
	var backwards []string
	for i := range disks {
		backwards = append(backwards, disks[len(disks)-1-i])
	}
	// Four of the disks are both's, in opposite order; two are either one's own.
	lists := [][]string{disks[:5], backwards[:5]}

	var inside, done, refused atomic.Int64
	var running sync.WaitGroup
	for who, list := range lists {
		c := newClient(t)
		name := fmt.Sprint("vm", who)
		ctl := makeOwner(t, c, m, name, list...)
		running.Go(func() {
			for done.Load() < int64(rounds) && !t.Failed() {
				err := c.Write(ctl, "acquire\n")
				if err == unix.EBUSY {
					refused.Add(1)
					time.Sleep(rand.N(200 * time.Microsecond))
					continue
				}
				if err != nil {
					t.Errorf("%s: acquire: %v", name, err)
					return
				}
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d owners are inside together", n)
				}
				if rand.IntN(4) == 0 {
					time.Sleep(rand.N(200 * time.Microsecond))
				}
				inside.Add(-1)
				done.Add(1)
				if err := c.Write(ctl, "release\n"); err != nil {
					t.Errorf("%s: release: %v", name, err)
				}
			}
		})
	}
	over := make(chan struct{})
	go func() {
		running.Wait()
		close(over)
	}()
	looks, halves := lookOn(t, m, over)
	t.Logf("%d rounds, %d refusals, %d looks, of which %d saw an owner", done.Load(), refused.Load(), looks, halves)
	if refused.Load() == 0 || halves == 0 {
		t.Errorf("%d refusals, and %d looks that saw an owner: nobody was in anybody's way", refused.Load(), halves)
	}
}

// lookOn looks at what is held until it is over: at every moment one owner has all
// five of its locks, or neither has any.
func lookOn(t *testing.T, m *Mount, over chan struct{}) (looks, seen int) {
	look := newClient(t)
	for {
		select {
		case <-over:
			return looks, seen
		default:
		}
		text, err := look.ReadAll(m.Path(".lockfs/locks"))
		if err != nil {
			t.Fatal(err)
		}
		looks++
		lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		if text == "" {
			continue
		}
		seen++
		pids := make(map[string]bool)
		for _, line := range lines {
			pids[strings.Fields(line)[4]] = true
		}
		if len(lines) != 5 || len(pids) != 1 {
			t.Fatalf("held are at one moment\n%s", text)
		}
	}
}
