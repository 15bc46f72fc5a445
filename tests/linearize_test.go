package tests

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// A history of what processes saw on a mount at the same time must have an
// order in which it could have happened one call after the other, each between
// its beginning and its end: the mount behaves like one table.
//
// A close, and a death, count as one moment like every other call, so that
// whoever is started after it finds the lock free: FUSE sends the release of
// an open file without waiting for an answer, but before close(2) or wait(2)
// returns, and the daemon takes requests in order.

const (
	histories    = 40
	historyCalls = 100 // by each process
	// judgeLimit is how long the search for an order may take.
	judgeLimit = time.Minute
)

func TestConcurrentHistoriesAreLinearizable(t *testing.T) {
	m := stressMount(t)
	calls, outcomes := 0, map[string]int{}
	for seed := range histories * stressFactor(t) {
		processes, names := 3+seed%3, 1+seed/2%2
		out := output(t, nil, "history", m.Path(""), fmt.Sprint(processes), fmt.Sprint(names), fmt.Sprint(historyCalls), fmt.Sprint(seed))
		var records []call
		for line := range strings.Lines(out) {
			r := parseCall(t, line)
			records = append(records, r)
			outcomes[r.what+" "+r.result.String()[:2]]++
		}
		calls += len(records)
		if !judge(t, records) {
			t.Fatalf("the history of seed %d is not linearizable", seed)
		}
		wantNothingHeld(t, m)
	}
	t.Logf("%d calls in %d histories: %v", calls, histories*stressFactor(t), outcomes)
	for _, often := range []string{"excl ok", "excl EE", "wait ok", "wait EI", "wait ED", "try ok", "try EA", "try ES", "unlink ok", "getlk ok", "read ok", "die ok"} {
		if outcomes[often] < histories/8 {
			t.Errorf("%q came only %d times: the histories are too tame (%v)", often, outcomes[often], outcomes)
		}
	}
}

// judge reports whether a history has an order, and says where it has none.
func judge(t testing.TB, records []call) bool {
	t.Helper()
	ops := operations(records)
	verdict, info := porcupine.CheckOperationsVerbose(contract, ops, judgeLimit)
	switch verdict {
	case porcupine.Ok:
		return true
	case porcupine.Unknown:
		t.Fatalf("no order was found within %v, and not that there is none", judgeLimit)
	}
	for _, attempts := range info.PartialLinearizationsOperations() {
		explain(t, ops, attempts)
	}
	return false
}

// explain shows for one lock the end of the longest order that was found, and
// the calls that cannot come next.
func explain(t testing.TB, ops []porcupine.Operation, attempts [][]porcupine.Operation) {
	t.Helper()
	var best []porcupine.Operation
	for _, a := range attempts {
		if len(a) > len(best) {
			best = a
		}
	}
	if len(best) == 0 {
		return
	}
	state, name := contract.Init(), best[0].Input.(step).name
	done := map[step]bool{}
	for _, op := range best {
		_, state = contract.Step(state, op.Input, op.Output)
		done[op.Input.(step)] = true
	}
	rest := slices.DeleteFunc(slices.Clone(ops), func(op porcupine.Operation) bool {
		return op.Input.(step).name != name || done[op.Input.(step)]
	})
	if len(rest) == 0 {
		return
	}
	var b strings.Builder
	show := func(op porcupine.Operation) {
		fmt.Fprintf(&b, "  %d-%d %s\n", op.Call, op.Return, contract.DescribeOperation(op.Input, op.Output))
	}
	fmt.Fprintf(&b, "name %d, so far:\n", name)
	for _, op := range best[max(0, len(best)-25):] {
		show(op)
	}
	fmt.Fprintf(&b, "state %s, and none of these can be next:\n", contract.DescribeState(state))
	slices.SortFunc(rest, func(x, y porcupine.Operation) int { return int(x.Call - y.Call) })
	for _, op := range rest[:min(len(rest), 12)] {
		show(op)
	}
	t.Log(b.String())
}

// The judge is worth nothing if it never says no.
func TestTheJudgeKnowsRightFromWrong(t *testing.T) {
	// A line for each call on one name: beginning, end, process, call, file,
	// and for lock calls way, mode and range, then the outcome. F_GETLK's is
	// process, mode and range of what is in the way.
	for _, tc := range []struct {
		name  string
		right bool
		calls []string
	}{
		{"taken and refused", true, []string{"1 2 A excl 1 ok", "3 4 B excl 2 EEXIST", "5 6 B stat ok"}},
		{"taken twice", false, []string{"1 2 A excl 1 ok", "3 4 B excl 2 ok"}},
		{"taken at the same time by two", false, []string{"1 3 A excl 1 ok", "2 4 B excl 2 ok"}},
		{"refused though free", false, []string{"1 2 B excl 2 EEXIST"}},
		{"refused before it was taken", false, []string{"1 2 B excl 2 EEXIST", "3 4 A excl 1 ok"}},
		{"refused while it is being taken", true, []string{"1 3 B excl 2 EEXIST", "2 4 A excl 1 ok"}},
		{"closed and free", true, []string{"1 2 A excl 1 ok", "3 4 A close 1 ok", "5 6 B excl 2 ok"}},
		{"closed and not free", false, []string{"1 2 A excl 1 ok", "3 4 A close 1 ok", "5 6 B excl 2 EEXIST"}},
		{"dead and free", true, []string{"1 2 A excl 1 ok", "3 4 A die ok", "5 6 B stat ENOENT"}},
		{"dead and listed", false, []string{"1 2 A excl 1 ok", "3 4 A die ok", "5 6 B stat ok"}},
		{"held and not listed", false, []string{"1 2 A excl 1 ok", "3 4 B stat ENOENT"}},
		{"two readers", true, []string{"1 2 A try 1 flock r 0 -1 ok", "3 4 B try 2 ofd r 0 2 ok"}},
		{"reader and writer", false, []string{"1 2 A try 1 flock r 0 -1 ok", "3 4 B try 2 ofd w 0 2 ok"}},
		{"other bytes", true, []string{"1 2 A try 1 ofd w 0 1 ok", "3 4 B try 2 ofd w 2 -1 ok"}},
		{"the same byte", false, []string{"1 2 A try 1 ofd w 0 2 ok", "3 4 B try 2 posix w 2 -1 ok"}},
		{"flock and fcntl of one process", true, []string{"1 2 A try 1 flock w 0 -1 ok", "3 4 A try 2 posix w 0 2 ok"}},
		{"two files of one process", false, []string{"1 2 A try 1 flock w 0 -1 ok", "3 4 A try 2 flock w 0 -1 ok"}},
		{"a close drops POSIX locks", true, []string{"1 2 A try 1 posix w 0 1 ok", "1 2 A open 2 ok", "3 4 A close 2 ok", "5 6 B try 3 posix w 0 1 ok"}},
		{"a close drops POSIX locks and did not", false, []string{"1 2 A try 1 posix w 0 1 ok", "1 2 A open 2 ok", "3 4 A close 2 ok", "5 6 B try 3 posix w 0 1 EAGAIN"}},
		{"a close drops no OFD lock", false, []string{"1 2 A try 1 ofd w 0 1 ok", "1 2 A open 2 ok", "3 4 A close 2 ok", "5 6 B try 3 posix w 0 1 ok"}},
		{"first come, first served", true, []string{"1 2 A excl 1 ok", "3 9 B wait 2 flock w 0 -1 ok", "4 12 C wait 3 flock w 0 -1 ok", "5 6 A close 1 ok", "10 11 B close 2 ok"}},
		{"two waiters, both inside", false, []string{"1 2 A excl 1 ok", "3 9 B wait 2 flock w 0 -1 ok", "4 10 C wait 3 flock w 0 -1 ok", "5 6 A close 1 ok", "11 12 B close 2 ok"}},
		{"a try is refused behind a waiter", true, []string{"1 2 A try 1 flock r 0 -1 ok", "3 20 B wait 2 flock w 0 -1 ok", "4 5 C try 3 flock r 0 -1 EAGAIN", "10 11 A close 1 ok"}},
		{"a try slips past a waiter", false, []string{"1 2 A try 1 flock r 0 -1 ok", "3 20 B wait 2 flock w 0 -1 ok", "4 5 C try 3 flock r 0 -1 EAGAIN", "6 7 C try 3 ofd r 0 2 ok", "10 11 A close 1 ok"}},
		{"a reader slips past a waiting writer", false, []string{"1 2 A try 1 flock r 0 -1 ok", "3 20 B wait 2 flock w 0 -1 ok", "4 5 C try 3 flock r 0 -1 EAGAIN", "6 7 C wait 3 flock r 0 -1 ok", "10 11 A close 1 ok"}},
		{"a wait that ends without the lock", false, []string{"1 2 A excl 1 ok", "3 4 B wait 2 flock w 0 -1 ok"}},
		{"interrupted", true, []string{"1 2 A excl 1 ok", "3 4 B wait 2 flock w 0 -1 EINTR", "5 6 A close 1 ok", "7 8 C excl 3 ok"}},
		{"broken", true, []string{"1 2 A excl 1 ok", "3 4 B unlink ok", "5 6 A fsync 1 ESTALE", "7 8 C excl 3 ok"}},
		{"broken without notice", false, []string{"1 2 A excl 1 ok", "3 4 B unlink ok", "5 6 A fsync 1 ok"}},
		{"given back by its own unlink", true, []string{"1 2 A excl 1 ok", "3 4 A unlink ok", "5 6 A fsync 1 ok", "7 8 C excl 3 ok"}},
		{"stale for nothing", false, []string{"1 2 A excl 1 ok", "5 6 A fsync 1 ESTALE"}},
		{"who is in the way", true, []string{"1 2 A try 1 posix w 1 2 ok", "3 4 B getlk 2 posix w 0 -1 A w 1 2"}},
		{"the wrong one is in the way", false, []string{"1 2 A try 1 posix w 1 2 ok", "3 4 B getlk 2 posix w 0 -1 C w 1 2"}},
		{"the wrong bytes are in the way", false, []string{"1 2 A try 1 posix w 1 2 ok", "3 4 B getlk 2 posix w 0 -1 A w 1 3"}},
		{"nobody is in the way", false, []string{"1 2 A try 1 posix w 1 2 ok", "3 4 B getlk 2 posix w 0 -1 A u 0 -1"}},
		{"deadlock", true, []string{"1 2 A try 1 posix w 0 0 ok", "1 2 B try 2 posix w 1 1 ok", "3 9 A wait 1 posix w 1 1 EINTR", "4 5 B wait 2 posix w 0 0 EDEADLK"}},
		{"deadlock for nothing", false, []string{"1 2 A try 1 posix w 0 0 ok", "4 5 B wait 2 posix w 0 0 EDEADLK"}},
		{"an upgrade past a waiting writer", true, []string{"1 2 A try 1 flock r 0 -1 ok", "3 9 B wait 2 flock w 0 -1 EINTR", "4 5 A try 1 flock w 0 -1 ok"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var records []call
			for _, call := range tc.calls {
				records = append(records, sketch(t, call))
			}
			slices.SortFunc(records, func(x, y call) int { return int(x.start - y.start) })
			quiet := &silent{TB: t}
			if got := judge(quiet, records); got != tc.right {
				t.Errorf("judged linearizable: %v, want %v", got, tc.right)
			}
		})
	}
}

// silent keeps explanations of wrong histories to itself.
type silent struct{ testing.TB }

func (silent) Log(...any) {}

// sketch makes a record of a line as above.
func sketch(t testing.TB, call string) call {
	t.Helper()
	f := strings.Fields(call)
	pid := map[string]string{"A": "101", "B": "102", "C": "103"}
	file, way, mode, first, last := "0", "-", "r", "0", "-1"
	rest := f[4:]
	if len(rest) > 1 {
		file, rest = rest[0], rest[1:]
	}
	if len(rest) > 1 {
		way, mode, first, last, rest = rest[0], rest[1], rest[2], rest[3], rest[4:]
	}
	answer, errno := "0 r 0 -1", 0
	switch {
	case len(rest) == 4:
		answer = strings.Join([]string{pid[rest[0]], rest[1], rest[2], rest[3]}, " ")
	case rest[0] != "ok":
		errno = int(errnoNamed(t, rest[0]))
	}
	return parseCall(t, fmt.Sprintf("%s %s 0 %s %s %s %s %s %d %s %s %s", pid[f[2]], f[3], file, way, mode, first, last,
		errno, answer, f[0], f[1]))
}
