package lockspace

import (
	"fmt"
	"slices"
	"testing"
)

// A cycle of POSIX fcntl waits fails with EDEADLK; any other may be false and
// is left alone (design 1.5).
func TestDeadlock(t *testing.T) {
	tests := map[string]string{
		"two processes, two locks": `
			a posix x 0-0      -> got
			b posix x 0-0 on M -> got
			a posix x 0-0 on M -> waits
			b posix x 0-0      -> deadlock
			b close on M       -> -b +a`,
		"two processes, two ranges of one lock": `
			a posix x 0-4      -> got
			b posix x 5-9      -> got
			a posix x 5-5      -> waits
			b posix x 4-4      -> deadlock
			b close            -> -b +a`,
		"two upgrades of one range": `
			a posix s 0-9      -> got
			b posix s 0-9      -> got
			a posix x 0-9      -> waits
			b posix x 0-9      -> deadlock
			b unposix 0-9      -> -b +a`,
		"three processes, three locks": `
			a posix x 0-0      -> got
			b posix x 0-0 on M -> got
			c posix x 0-0 on N -> got
			a posix s 0-0 on M -> waits
			b posix s 0-0 on N -> waits
			c posix s 0-0      -> deadlock
			c close on N       -> -c +b`,
		"three processes, three ranges": `
			a posix x 0-0      -> got
			b posix x 1-1      -> got
			c posix x 2-2      -> got
			a posix s 1-1      -> waits
			b posix s 2-2      -> waits
			c posix s 0-0      -> deadlock`,
		"a process that locks through several handles is known to be one": `
			a posix x 0-0      -> got
			b posix x 0-0 on M -> got
			a' posix x 0-0 on M -> waits
			b' posix x 0-0     -> deadlock`,
		"one of several holders in the way": `
			a posix s 0-9      -> got
			b posix s 5-9      -> got
			c posix s 7-7      -> got
			b posix x 0-0 on M -> got
			d posix x 0-0 on M -> waits
			a posix x 0-0 on M -> waits
			b posix x 0-9      -> deadlock
			c close            -> -c`,
		"a try is no wait": `
			a posix x 0-0      -> got
			b posix x 0-0 on M -> got
			a posix x 0-0 on M -> waits
			b try posix x 0-0  -> held`,
		"a wait that was interrupted is none": `
			a posix x 0-0      -> got
			b posix x 0-0 on M -> got
			a posix x 0-0 on M -> waits
			a interrupted on M ->
			b posix x 0-0      -> waits
			a posix x 0-0 on M -> deadlock
			a unposix 0-       -> -a +b`,
		"no cycle without the last edge": `
			a posix x 0-0      -> got
			b posix x 0-0 on M -> got
			a posix x 0-0 on M -> waits
			b posix x 1-1      -> got
			b posix x 0-0 on N -> got`,
		"places in queues make none: the holder is let past": `
			a posix s 0-0      -> got
			b posix x 0-0 on M -> got
			b posix x 0-9      -> waits
			c posix x 0-0 on N -> got
			c posix s 5-5      -> waits     # behind b only
			a posix x 0-0 on N -> waits +c  # so b waits for c
			= a s 0-0, c s 5-5 | b`,
		"open file descriptions: two processes may share one": `
			a ofd x 0-0        -> got
			b ofd x 0-0 on M   -> got
			a ofd x 0-0 on M   -> waits
			b ofd x 0-0        -> waits
			= a x 0-0 | b
			=M b x 0-0 | a`,
		"open file descriptions on one lock": `
			a ofd x 0-4        -> got
			b ofd x 5-9        -> got
			a ofd x 5-5        -> waits
			b ofd x 4-4        -> waits
			b interrupted      ->`,
		"one open file description in the cycle is enough": `
			a posix x 0-4      -> got
			b ofd x 5-9        -> got
			a posix x 5-5      -> waits
			b ofd x 4-4        -> waits`,
		"flock": `
			a flock x          -> got
			b flock x on M     -> got
			a flock x on M     -> waits
			b flock x          -> waits
			a interrupted on M ->
			= a x | b`,
		"flock and fcntl": `
			a flock x          -> got
			b posix x 0-9 on M -> got
			a posix x 0-9 on M -> waits
			b posix x 0-9      -> waits`,
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) { play(t, text) })
	}
}

// A process with several threads waits in several places at once, so a cycle
// can be closed by a grant: the waits that it put into a cycle are refused.
func TestDeadlockByThreads(t *testing.T) {
	tests := map[string]string{
		"a grant closes a cycle": `
			z posix x 0-0      -> got
			q posix x 0-0 on M -> got
			p posix x 0-0      -> waits
			q posix x 0-0      -> waits    # behind p, who holds nothing
			p' posix x 0-0 on M -> waits   # another thread, for q
			z close            -> -z +p q:deadlock
			q close on M       -> -q +p'`,
		"only those in the cycle are refused": `
			z posix x 0-0      -> got
			q posix x 0-0 on M -> got
			p posix x 0-0      -> waits
			r posix x 0-0      -> waits
			q posix x 0-0      -> waits
			p' posix x 0-0 on M -> waits
			z close            -> -z +p q:deadlock
			p close            -> -p +r`,
		"who is refused makes room": `
			z posix x 0-9      -> got
			q posix x 0-0 on M -> got
			p posix x 0-4      -> waits
			q posix x 3-9      -> waits
			r posix x 5-9      -> waits    # behind q
			p' posix x 0-0 on M -> waits
			z close            -> -z +p q:deadlock +r`,
		"not for open file descriptions": `
			z ofd x 0-0        -> got
			q ofd x 0-0 on M   -> got
			p ofd x 0-0        -> waits
			q ofd x 0-0        -> waits
			p ofd x 0-0 on M   -> waits
			z close            -> -z +p`,
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) { play(t, text) })
	}
}

// What cannot be told from the request, whether a wait is POSIX, is asked for
// only when there is a cycle.
func TestDeadlockLookup(t *testing.T) {
	for _, class := range []Class{ClassPOSIX, ClassOFD, ClassUnknown} {
		t.Run(fmt.Sprint(class), func(t *testing.T) {
			w := newWorld(t)
			// Ranges of one lock and one handle each: the table cannot see
			// from the handles that the owner is a process.
			part := func(who uint32, first uint64) Request {
				r := Request{
					Key: Key{1, "L"}, Via: ViaFcntl, Mode: Exclusive, Range: Range{first, first}, Thread: who,
					Party: Party{Handle: uint64(who) + 1, Owner: uint64(who), Taker: Process{Pid: who + 1, Started: 1}},
				}
				return r
			}
			for who := range uint32(3) {
				w.procs.class[who], w.procs.unknown[who] = class, true
				wantErr(t, "take", w.Try(part(who, uint64(who))), nil)
			}
			for who := range uint32(2) {
				if _, err := w.Acquire(part(who, uint64(who)+1), WaitID(who)+1); err != nil {
					t.Fatal("wait:", err)
				}
			}
			if w.procs.asked != nil {
				t.Fatal("asked for", w.procs.asked, "when there was no cycle")
			}
			var err error
			for err = ErrLookup; err == ErrLookup; {
				if _, err = w.Acquire(part(2, 0), 3); err == ErrLookup && !w.procs.lookUp() {
					t.Fatal("ErrLookup, and nothing was asked for")
				}
			}
			want := map[Class]error{ClassPOSIX: ErrDeadlock, ClassOFD: nil, ClassUnknown: nil}[class]
			wantErr(t, "the last wait", err, want)
		})
	}
}

// An owner that has two handles is a process: there is nothing to ask.
func TestDeadlockNeedsNoLookup(t *testing.T) {
	w := newWorld(t)
	request := func(who uint32, lock string) Request {
		w.procs.unknown[who] = true
		return Request{
			Key: Key{1, lock}, Via: ViaFcntl, Mode: Exclusive, Range: Whole, Thread: who,
			Party: Party{Handle: uint64(who)*10 + uint64(lock[0]), Owner: uint64(who), Taker: Process{Pid: who, Started: 1}},
		}
	}
	wantErr(t, "take", w.Try(request(1, "L")), nil)
	wantErr(t, "take", w.Try(request(2, "M")), nil)
	_, err := w.Acquire(request(1, "M"), 1)
	wantErr(t, "wait", err, nil)
	_, err = w.Acquire(request(2, "L"), 2)
	wantErr(t, "close the cycle", err, ErrDeadlock)
	if w.procs.asked != nil {
		t.Fatal("asked for", w.procs.asked)
	}
}

// Edges shows who waits for whom, cycles that are left alone included.
func TestEdges(t *testing.T) {
	play := func(w *world, handle uint64, mode Mode, id WaitID) {
		t.Helper()
		r := Request{Key: Key{1, "L"}, Via: ViaFlock, Mode: mode, Range: Whole, Party: Party{Handle: handle}}
		if _, err := w.Acquire(r, id); err != nil {
			t.Fatal(err)
		}
	}
	w := newWorld(t)
	play(w, 1, Shared, 1)
	play(w, 2, Shared, 2)
	play(w, 3, Exclusive, 3)
	play(w, 4, Shared, 4)
	play(w, 5, Exclusive, 5)
	play(w, 6, Shared, 6)
	w.Cancel(5)
	edges := func() (list []string) {
		w.table.Edges(func(e Edge) bool {
			if e.Hold != nil {
				list = append(list, fmt.Sprintf("%d holds up %d", e.Hold.Party.Handle, e.Wait.Party.Handle))
			} else {
				list = append(list, fmt.Sprintf("%d before %d", e.Before.Party.Handle, e.Wait.Party.Handle))
			}
			return true
		})
		slices.Sort(list)
		return list
	}
	if got, want := edges(), []string{"1 holds up 3", "2 holds up 3", "3 before 4", "3 before 6"}; !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	for stop := range 4 {
		n := 0
		w.table.Edges(func(Edge) bool { n++; return n <= stop })
		if n != stop+1 {
			t.Fatalf("Edges went on after it was told to stop: %d calls", n)
		}
	}
}
