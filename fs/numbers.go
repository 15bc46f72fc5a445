package fs

import (
	"fmt"
	"math"
	"slices"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace/numberset"
)

// Which numbers are reserved in which directories. They are kept as ranges, with a
// record each, so what one number changes is a few records of fixed size.
//
// A number is its reserver's for one purpose: so many of one user's are reserved in
// all directories together, and so many of all users'. The worst that a user can do
// is to reserve numbers of which no two are next to each other; each is a range then.
//
// The numbers of a directory go with it, whoever reserved them. rmdir(2) does not mind
// them: they would be in the way of who cleans up, and who removes the directory
// removes the locks that they are for. The records of what may be a million ranges
// are dropped some in each step. Until then they are of a directory that there is
// not, by which the next process knows them.
//
// A clean stop keeps them. If the directory's policy says less when the mount starts
// again (the command line says what the root's is), those that are out of range stay
// reserved until they are freed: none is given twice. Nor is one that is asked for
// after the stop has begun and what is to be kept was written down, while the mount is
// in use: nothing is reserved or freed any more then, ENOLCK.

const (
	// maxNumbersOfUser and maxNumbers are how many numbers may be reserved by one
	// user, EDQUOT, and by all, ENOLCK.
	maxNumbersOfUser = 1 << 20
	maxNumbers       = 4 * maxNumbersOfUser
	// numbersAtOnce is how many records are dropped in one step.
	numbersAtOnce = 4096
)

// NumbersRecord is what must outlive the process of numbers next to each other that
// one user has reserved.
type NumbersRecord struct {
	ID uint64
	// Dir is the directory's number.
	Dir uint64
	// First to Last are reserved.
	First, Last uint32
	UID         uint32
}

// numbers are those that are reserved.
type numbers struct {
	// sets are by directory; none is empty.
	sets   map[uint64]*numberset.Set
	ofUser map[uint32]uint64 // how many; nobody has none
	all    uint64
	// lastID is the highest number of a record.
	lastID uint64
	// left are the records of directories that have gone.
	left []uint64
}

func newNumbers() numbers {
	return numbers{sets: make(map[uint64]*numberset.Set), ofUser: make(map[uint32]uint64)}
}

// count adds to how many are a user's; n is less than 0 for those that are freed.
func (s *numbers) count(uid uint32, n int64) {
	s.all += uint64(n)
	if s.ofUser[uid] += uint64(n); s.ofUser[uid] == 0 {
		delete(s.ofUser, uid)
	}
}

// has reports whether a number is reserved in a directory.
func (s *numbers) has(dir uint64, n uint32) bool {
	set := s.sets[dir]
	return set != nil && set.Has(n)
}

// below returns how many numbers below a bound are reserved in a directory.
func (s *numbers) below(dir, bound uint64) uint64 {
	if set := s.sets[dir]; set != nil {
		return set.Below(bound)
	}
	return 0
}

// numbersJournal puts the ranges of a directory into the journal.
type numbersJournal struct {
	f   *FS
	dir uint64
}

func (j numbersJournal) NewID() uint64 {
	j.f.numbers.lastID++
	return j.f.numbers.lastID
}

func (j numbersJournal) Put(r numberset.Range) {
	j.f.journal.PutNumbers(&NumbersRecord{ID: r.ID, Dir: j.dir, First: r.First, Last: r.Last, UID: r.Owner})
}

func (j numbersJournal) Drop(id uint64) { j.f.journal.DropNumbers(id) }

// allocate reserves the lowest number that is free in a directory, for a user.
func (f *FS) allocate(dir *node, uid uint32) (uint32, fuse.Status) {
	n, ok := uint32(0), true
	if set := f.numbers.sets[dir.ID]; set != nil {
		n, ok = set.Lowest()
	}
	switch ids := dir.file.Policy.ids; {
	case ids == 0:
		return 0, fuse.ENOENT
	case !ok || uint64(n) >= ids:
		return 0, errNoSpc
	}
	return n, f.reserve(dir, n, uid)
}

// reserve reserves a number, which is in range, in a directory for a user. Errors:
// EEXIST, ENOENT if the directory has been removed, EDQUOT and ENOLCK.
func (f *FS) reserve(dir *node, n, uid uint32) fuse.Status {
	s := &f.numbers
	switch {
	case f.closing:
		return fuse.Status(unix.ENOLCK)
	case dir.file.isRemoved():
		return fuse.ENOENT
	case s.has(dir.ID, n):
		return fuse.Status(unix.EEXIST)
	case s.ofUser[uid] >= maxNumbersOfUser:
		return fuse.Status(unix.EDQUOT)
	case s.all >= maxNumbers:
		return fuse.Status(unix.ENOLCK)
	}
	set := s.sets[dir.ID]
	if set == nil {
		set = numberset.New(numbersJournal{f, dir.ID})
		s.sets[dir.ID] = set
	}
	set.Add(n, uid)
	s.count(uid, 1)
	return fuse.OK
}

// free frees a number in a directory. Errors: ENOENT if it is not reserved, ENOLCK.
func (f *FS) free(dir *node, n uint32) fuse.Status {
	s := &f.numbers
	set := s.sets[dir.ID]
	switch {
	case set == nil || !set.Has(n):
		return fuse.ENOENT
	case f.closing:
		return fuse.Status(unix.ENOLCK)
	}
	uid, _ := set.Remove(n)
	s.count(uid, -1)
	if set.Len() == 0 {
		delete(s.sets, dir.ID)
	}
	return fuse.OK
}

// freeNumbersOf frees those of a directory that is no more.
func (f *FS) freeNumbersOf(dir uint64) {
	s := &f.numbers
	set := s.sets[dir]
	if set == nil {
		return
	}
	delete(s.sets, dir)
	for r := range set.Ranges() {
		s.count(r.Owner, -int64(r.Len()))
		s.left = append(s.left, r.ID)
	}
}

// dropNumbers drops some records of directories that have gone.
func (f *FS) dropNumbers() {
	s := &f.numbers
	n := min(len(s.left), numbersAtOnce)
	for _, id := range s.left[:n] {
		f.journal.DropNumbers(id)
	}
	if s.left = s.left[n:]; len(s.left) == 0 {
		s.left = nil
	}
}

// mayHaveIDs says what is in the way of a directory having so many numbers: one that
// is reserved and would be out of range.
func (f *FS) mayHaveIDs(dir *node, ids uint64) error {
	set := f.numbers.sets[dir.ID]
	if set == nil || ids == dir.file.Policy.ids {
		return nil
	}
	if last, some := set.Last(); some && uint64(last) >= ids {
		return fmt.Errorf("ids=%s: number %d is reserved", formatIDs(ids), last)
	}
	return nil
}

// saveNumbers writes those of a directory to a store.
func (f *FS) saveNumbers(r *Records, dir *file) {
	set := f.numbers.sets[dir.Ino]
	if set == nil {
		return
	}
	for x := range set.Ranges() {
		r.PutNumbers(&NumbersRecord{ID: x.ID, Dir: dir.Ino, First: x.First, Last: x.Last, UID: x.Owner})
	}
}

// restoreNumbers reserves what was when the process died, or at the clean stop.
func (f *FS) restoreNumbers(s *Saved, files map[uint64]*file) error {
	n := &f.numbers
	ranges := make(map[uint64][]numberset.Range)
	for _, r := range s.numbers {
		n.lastID = max(n.lastID, r.ID)
		switch x := files[r.Dir]; {
		case x == nil:
			n.left = append(n.left, r.ID)
		case x.Kind != directory:
			return fmt.Errorf("numbers %d: %d is no directory: %w", r.ID, r.Dir, ErrRecord)
		default:
			ranges[r.Dir] = append(ranges[r.Dir], numberset.Range{ID: r.ID, First: r.First, Last: r.Last, Owner: r.UID})
		}
	}
	for dir, some := range ranges {
		set := numberset.New(numbersJournal{f, dir})
		if err := set.Load(some); err != nil {
			return fmt.Errorf("numbers of directory %d: %w: %w", dir, err, ErrRecord)
		}
		n.sets[dir] = set
		for _, r := range some {
			n.count(r.Owner, int64(r.Len()))
		}
	}
	return nil
}

// warnOfNumbers says which directories have numbers that are out of range.
func (f *FS) warnOfNumbers() {
	for dir, set := range f.numbers.sets {
		d := f.nodes.dir(dir)
		if last, some := set.Last(); d != nil && some && uint64(last) >= d.file.Policy.ids {
			f.log.Warn("numbers stay reserved that are out of range: the last mount had more ids here",
				"directory", f.directoryPath(d), "ids", formatIDs(d.file.Policy.ids), "highest", last,
				"out_of_range", set.Len()-set.Below(d.file.Policy.ids))
		}
	}
}

// isReserved reports whether the number is reserved whose file in ids a control node
// is.
func (f *FS) isReserved(c controlNode) bool {
	n, ok := parseNumber(c.lock.Key.Name)
	return ok && n <= math.MaxUint32 && f.numbers.has(c.about.ID, uint32(n))
}

// parseNumber reads a number as it is written in names: the decimal digits, without
// zeros before them. One that is too high for 64 bits is the highest of those.
func parseNumber(name string) (n uint64, ok bool) {
	if name == "" || len(name) > 1 && name[0] == '0' || slices.ContainsFunc([]byte(name), func(c byte) bool { return c < '0' || c > '9' }) {
		return 0, false
	}
	for _, c := range []byte(name) {
		if n > (1<<64-1-9)/10 {
			return 1<<64 - 1, true
		}
		n = n*10 + uint64(c-'0')
	}
	return n, true
}
