package lockspace

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Each case draws the holds of a and b before and after a request, a column
// for each byte: s shared, x exclusive, "." nothing; the last column is the
// byte 9 and everything behind it. The holds of one owner that are one range
// and one mode must be one hold: "|" stands between two.
var rangeTests = []struct {
	name   string
	before [2]string
	do     string // what a does
	want   string
	after  [2]string
}{
	// 0123456789  0123456789                           0123456789  0123456789
	{"take", [2]string{"..........", ".........."}, "posix x 2-4", "got", [2]string{"..xxx.....", ".........."}},
	{"take to the end", [2]string{"..........", ".........."}, "posix s 5-", "got", [2]string{".....sssss", ".........."}},
	{"take the last byte only", [2]string{"..........", ".........."}, "posix s 9-", "got", [2]string{".........s", ".........."}},
	{"beside another's", [2]string{"..........", "..xxx....."}, "posix x 5-7", "got", [2]string{".....xxx..", "..xxx....."}},
	{"over another's", [2]string{"..........", "..xxx....."}, "posix x 4-7", "held", [2]string{"..........", "..xxx....."}},
	{"read beside readers", [2]string{"..........", "..sss....."}, "posix s 0-", "got", [2]string{"ssssssssss", "..sss....."}},
	{"write over readers", [2]string{"..........", "..sss....."}, "posix x 0-2", "held", [2]string{"..........", "..sss....."}},
	{"again", [2]string{"..xxx.....", ".........."}, "posix x 2-4", "got", [2]string{"..xxx.....", ".........."}},
	{"a part again", [2]string{"..xxxxx...", ".........."}, "posix x 3-4", "got", [2]string{"..xxxxx...", ".........."}},
	{"merge on the left", [2]string{"..xxx.....", ".........."}, "posix x 0-1", "got", [2]string{"xxxxx.....", ".........."}},
	{"merge on the right", [2]string{"..xxx.....", ".........."}, "posix x 5-6", "got", [2]string{"..xxxxx...", ".........."}},
	{"merge both and all between", [2]string{"ss.s.s.ss.", ".........."}, "posix s 2-6", "got", [2]string{"sssssssss.", ".........."}},
	{"do not merge with a gap", [2]string{"xx........", ".........."}, "posix x 3-4", "got", [2]string{"xx.xx.....", ".........."}},
	{"do not merge two modes", [2]string{"xx........", ".........."}, "posix s 2-4", "got", [2]string{"xx|sss.....", ".........."}},
	{"upgrade the middle", [2]string{"ssssssssss", ".........."}, "posix x 3-5", "got", [2]string{"sss|xxx|ssss", ".........."}},
	{"upgrade the whole", [2]string{"..sss.....", ".........."}, "posix x 0-", "got", [2]string{"xxxxxxxxxx", ".........."}},
	{"upgrade what another reads", [2]string{"ssssssssss", "....s....."}, "posix x 3-5", "held", [2]string{"ssssssssss", "....s....."}},
	{"downgrade the middle", [2]string{"xxxxxxxxxx", ".........."}, "posix s 3-5", "got", [2]string{"xxx|sss|xxxx", ".........."}},
	{"downgrade over several", [2]string{"xx.xx.xx..", ".........."}, "posix s 1-6", "got", [2]string{"x|ssssss|x..", ".........."}},
	{"merge and convert at once", [2]string{"sss|xxx|sss.", ".........."}, "posix s 2-6", "got", [2]string{"sssssssss.", ".........."}},
	{"grow over the other mode", [2]string{"sss|xxx|sss.", ".........."}, "posix x 2-8", "got", [2]string{"ss|xxxxxxx.", ".........."}},
	{"unlock the middle", [2]string{"xxxxxxxxxx", ".........."}, "unposix 3-5", "", [2]string{"xxx...xxxx", ".........."}},
	{"unlock the left", [2]string{"xxxxxxxxxx", ".........."}, "unposix 0-5", "", [2]string{"......xxxx", ".........."}},
	{"unlock the right", [2]string{"xxxxxxxxxx", ".........."}, "unposix 5-", "", [2]string{"xxxxx.....", ".........."}},
	{"unlock over several", [2]string{"ss|xx|ss|xx|ss", ".........."}, "unposix 1-8", "-a -a -a", [2]string{"s........s", ".........."}},
	{"unlock all", [2]string{".xx..s.x..", ".........."}, "unposix 0-", "-a -a -a", [2]string{"..........", ".........."}},
	{"unlock what is not held", [2]string{"xx........", "....xx...."}, "unposix 3-", "", [2]string{"xx........", "....xx...."}},
	{"unlock leaves others alone", [2]string{"ssssssssss", "..sssss..."}, "unposix 0-", "-a", [2]string{"..........", "..sssss..."}},
}

func TestRanges(t *testing.T) {
	for _, tt := range rangeTests {
		t.Run(tt.name, func(t *testing.T) {
			script := setUp("a", tt.before[0]) + setUp("b", tt.before[1])
			do := tt.do
			if tt.want == "held" {
				do = "try " + do
			}
			script += fmt.Sprintf("a %s -> %s\n", do, tt.want)
			// The table keeps holds in the order in which they came, the
			// picture by owner and byte.
			play(t, script+"=pictures "+draw("a", tt.after[0])+"; "+draw("b", tt.after[1]))
		})
	}
}

// pieces returns what a picture's holds are, as "x 2-4".
func pieces(picture string) (list []string) {
	byte0 := 0
	for i := 0; i < len(picture); {
		n := 1
		for i+n < len(picture) && picture[i+n] == picture[i] {
			n++
		}
		switch c := picture[i]; c {
		case '|':
			byte0 -= n
		case 's', 'x':
			last := fmt.Sprint(byte0 + n - 1)
			if byte0+n == 10 {
				last = ""
			}
			list = append(list, fmt.Sprintf("%c %d-%s", c, byte0, last))
		}
		byte0 += n
		i += n
	}
	return list
}

func setUp(who, picture string) (script string) {
	for _, p := range pieces(picture) {
		script += fmt.Sprintf("%s posix %s -> got\n", who, p)
	}
	return script
}

func draw(who, picture string) string {
	list := pieces(picture)
	for i := range list {
		list[i] = who + " " + list[i]
	}
	return strings.Join(list, ", ")
}

// pictures writes the holds of L by owner and byte.
func (s *script) pictures() string {
	byOwner := make(map[string][]Hold)
	for _, h := range s.state()[s.key("L")].holds {
		name := s.name(&h.Request)
		byOwner[name] = append(byOwner[name], h)
	}
	var text []string
	for _, name := range []string{"a", "b"} {
		holds := byOwner[name]
		slices.SortFunc(holds, func(a, b Hold) int { return int(a.Range.First) - int(b.Range.First) })
		var list []string
		for _, h := range holds {
			list = append(list, s.hold(&h))
		}
		text = append(text, strings.Join(list, ", "))
	}
	return strings.TrimSpace(strings.Join(text, "; "))
}

// Tokens: every grant has one higher than all before; a split keeps it, a
// merged hold has the new one and the time since the earliest part.
func TestTokensOfRanges(t *testing.T) {
	w := newWorld(t)
	key := Key{1, "L"}
	take := func(mode Mode, first, last uint64) {
		t.Helper()
		w.clock.advance(1)
		r := Request{Key: key, Via: ViaFcntl, Mode: mode, Range: Range{first, last}, Party: Party{Handle: 1, File: 1, Owner: 1}}
		wantErr(t, "take", w.Try(r), nil)
	}
	want := func(want ...string) {
		t.Helper()
		var got []string
		for h := range w.table.Holds(key) {
			got = append(got, fmt.Sprintf("%v %v token %d since %d", h.Mode, h.Range, h.Token, h.Since.Boot-start))
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("got %q\nwant %q", got, want)
		}
	}
	take(Exclusive, 0, 9)
	want("exclusive 0-9 token 1 since 1")
	take(Exclusive, 2, 3) // asked again
	want("exclusive 0-9 token 1 since 1")
	take(Shared, 4, 5)
	want("exclusive 0-3 token 1 since 1", "exclusive 6-9 token 1 since 1", "shared 4-5 token 2 since 3")
	take(Exclusive, 10, MaxOffset)
	want("exclusive 0-3 token 1 since 1", "exclusive 6-end token 3 since 1", "shared 4-5 token 2 since 3")
	take(Exclusive, 4, 5)
	want("exclusive 0-end token 4 since 1")
	for h := range w.table.Holds(key) {
		if h.Listed != 1 {
			t.Fatalf("the lock was listed at %d, want its first token, 1", h.Listed)
		}
	}
}

// A range that cannot be locked is refused, and gives nothing back.
func TestInvalidRange(t *testing.T) {
	w := newWorld(t)
	r := Request{Key: Key{1, "L"}, Via: ViaFcntl, Mode: Exclusive, Range: Range{0, 9}, Party: Party{Handle: 1, File: 1, Owner: 1}}
	wantErr(t, "a valid one", w.Try(r), nil)
	for _, bad := range []Range{{1, 0}, {5, 3}, {0, MaxOffset + 1}, {MaxOffset + 1, MaxOffset + 1}} {
		r.Range = bad
		wantErr(t, "try", w.Try(r), ErrRange)
		_, err := w.Acquire(r, 1)
		wantErr(t, "acquire", err, ErrRange)
		_, _, err = w.Test(r)
		wantErr(t, "test", err, ErrRange)
		w.Unlock(r.Key, r.Party, ViaFcntl, bad)
	}
	if h := w.state()[r.Key].holds; len(h) != 1 || h[0].Range != (Range{0, 9}) {
		t.Fatalf("held is %v", h)
	}
}
