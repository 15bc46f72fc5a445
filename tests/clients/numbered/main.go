// Program numbered makes the calls of package lockspace/numbered that it is told to
// make, for the tests: a line of input is TAG CALL ARGUMENTS, and its answer TAG
// RESULT, when the call has returned. Calls are made at once, each by a goroutine of
// its own. Lockers have names, which the calls that return one give them.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/lockfs/lockfs/lockspace/numbered"
)

// words are how errors are told.
var words = []struct {
	err  error
	word string
}{
	{numbered.ErrAllAllocated, "all-allocated"},
	{numbered.ErrAllocated, "allocated"},
	{numbered.ErrNotAllocated, "not-allocated"},
	{numbered.ErrRange, "range"},
	{numbered.ErrNoIDs, "no-ids"},
	{numbered.ErrNotLockspace, "not-lockspace"},
	{numbered.ErrPolicy, "policy"},
	{numbered.ErrSize, "size"},
	{os.ErrExist, "exists"},
	{os.ErrPermission, "permission"},
	{os.ErrClosed, "closed"},
}

func word(err error) string {
	if err == nil {
		return "ok"
	}
	var all []string
	for _, w := range words {
		if errors.Is(err, w.err) {
			all = append(all, w.word)
		}
	}
	if len(all) == 0 {
		return "error: " + err.Error()
	}
	return strings.Join(all, ",")
}

// program is what the calls are made with.
type program struct {
	mu      sync.Mutex
	manager *numbered.Manager
	lockers map[string]*numbered.Locker
}

func (p *program) use(m *numbered.Manager, err error) string {
	if err == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.manager = m
	}
	return word(err)
}

func (p *program) keep(name string, l *numbered.Locker, err error) string {
	if err != nil {
		return word(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lockers[name] = l
	return fmt.Sprint(l.ID())
}

func (p *program) call(args []string) (result string) {
	defer func() {
		if r := recover(); r != nil {
			result = fmt.Sprint("panic: ", r)
		}
	}()
	arg := func(i int) string { return append(args, "", "", "")[i] }
	number := func(i int) uint32 {
		n, err := strconv.ParseUint(arg(i), 10, 32)
		if err != nil {
			panic(err)
		}
		return uint32(n)
	}
	p.mu.Lock()
	m, l := p.manager, p.lockers[arg(1)]
	p.mu.Unlock()
	switch args[0] {
	case "create":
		return p.use(numbered.Create(arg(1), number(2)))
	case "create-unlimited":
		return p.use(numbered.CreateUnlimited(arg(1)))
	case "new":
		return p.use(numbered.New(arg(1)))
	case "open":
		return p.use(numbered.Open(arg(1), number(2)))
	case "close":
		return word(m.Close())
	case "allocate":
		l, err := m.AllocateLock()
		return p.keep(arg(1), l, err)
	case "allocate-many":
		var first, last uint32
		for i := range number(1) {
			l, err := m.AllocateLock()
			if err != nil {
				return word(err)
			}
			if last = l.ID(); i == 0 {
				first = last
			}
		}
		return fmt.Sprintf("%d to %d", first, last)
	case "allocate-on": // until that fails
		last := "none"
		for {
			l, err := m.AllocateLock()
			if err != nil {
				return last + " " + word(err)
			}
			last = fmt.Sprint(l.ID())
		}
	case "retrieve":
		l, err := m.RetrieveLock(number(2))
		return p.keep(arg(1), l, err)
	case "take":
		l, err := m.AllocateAndRetrieveLock(number(2))
		return p.keep(arg(1), l, err)
	case "free-all":
		return word(m.FreeAllLocks())
	case "available":
		n, err := m.AvailableLocks()
		switch {
		case err != nil:
			return word(err)
		case n == nil:
			return "nil"
		}
		return fmt.Sprint(*n)
	case "held":
		held, err := m.LocksHeld()
		if err != nil {
			return word(err)
		}
		return fmt.Sprint(held)
	case "id":
		return fmt.Sprint(l.ID())
	case "lock":
		l.Lock()
		return "ok"
	case "unlock":
		l.Unlock()
		return "ok"
	case "count":
		for range number(3) {
			count(l, arg(2))
		}
		return "ok"
	case "free":
		return word(l.Free())
	}
	return "no such call"
}

// count adds 1 to the number in a file, which goes wrong if another does so too.
func count(l *numbered.Locker, file string) {
	l.Lock()
	defer l.Unlock()
	text, err := os.ReadFile(file)
	if err != nil {
		panic(err)
	}
	n, err := strconv.Atoi(string(text))
	if err != nil {
		panic(fmt.Errorf("%q: another writes to it: %w", text, err))
	}
	if err := os.WriteFile(file, fmt.Append(nil, n+1), 0o644); err != nil {
		panic(err)
	}
}

func main() {
	p := &program{lockers: make(map[string]*numbered.Locker)}
	var out sync.Mutex
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		tag, call, _ := strings.Cut(in.Text(), " ")
		go func() {
			result := p.call(strings.Fields(call))
			out.Lock()
			defer out.Unlock()
			fmt.Println(tag, strings.ReplaceAll(result, "\n", " "))
		}()
	}
}
